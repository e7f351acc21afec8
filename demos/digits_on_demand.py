"""Digits on demand: the all-rounder `mlp`, what its latent says and its label says, and how large a latent should be.

python demos/digits_on_demand.py                          # two minutes
python demos/digits_on_demand.py --full                   # 50 epochs; --epochs 100, --epochs 200 for more
python demos/digits_on_demand.py --data fashion-mnist     # or a folder of IDX files, or an .npz file
"""

# %% The same two hidden layers of 256 with a latent of 2, 16 and 64
import numpy as np

import minicvae as mc
from minicvae import plots
from minicvae.classifier import EPOCHS, trained_on
from minicvae.cli.data import prepare
from minicvae.cli.demo import demo_options
from minicvae.diagnostics import diagnose
from minicvae.tables import table

options = demo_options(__doc__, "digits_on_demand", epochs=6, full_epochs=50)
data = prepare(options.data, limit=options.limit)
out, names, test = options.out, data.names, data.test


def trained(data, latent_dim, beta=1.0):
    """(the model, its history), trained on those classes that the data has."""
    sizes = {"latent_dim": latent_dim, "beta": beta, "classes": len(names), "image_shape": test.x.shape[1:]}
    model = mc.build("mlp", seed=0, **sizes)
    print(f"latent {latent_dim}, beta {beta:g}, {len(data.train):,} images")
    pair = data.test.x, data.test.y
    return model, model.fit(data.train.x, data.train.y, validation_data=pair, epochs=options.epochs, seed=0).history


settings = {"latent 2": (2, 1.0), "latent 16": (16, 1.0), "latent 64": (64, 1.0), "latent 16, beta 4": (16, 4.0)}
models = {title: trained(data, *chosen) for title, chosen in settings.items()}

# %% Side by side: 2 are too few, and the rest is blurred; 64 say no more than 16, and take longer to learn
# Where z has room it says something about the digit too, and a z that is drawn at random then contradicts the label.
# A higher beta leaves only what pays: a worse bound, and digits that obey.
few, passes = (None, EPOCHS) if options.full else (20_000, 2)
classifier = trained_on(data.train.x[:few], data.train.y[:few], epochs=passes)
rows, panels, shown = [], [], np.tile(np.arange(len(names)), 3)
for title, (model, _) in models.items():
    found = diagnose(model, test.x[:2000], test.y[:2000], classifier=classifier)
    losses = model.evaluate(test.x, test.y)
    nll, kl = losses["reconstruction"], losses["kl"]
    shares = found.leakage.found, found.spread.found / found.spread.reference, found.recognised.found
    rows.append([title, *(f"{v:.1f}" for v in (nll + kl, nll, kl)), *(f"{v:.0%}" for v in shares)])
    panels.append(
        plots.Panel(
            model.generate(shown, seed=0),
            len(names),
            column_labels=names,
            column_title=f"{title}, {shares[2]:.0%} recognised",
        )
    )
header = ["", "-bound", "reconstruction", "KL", "label in z", "spread", "recognised"]
print(f"\n{table(header, rows, '<>>>>>>')}")
chance, seen = f"{found.leakage.reference:.0%}", f"{found.recognised.reference:.1%}"
print(
    f"-bound = reconstruction + KL, nats per test image; label in z: how often a probe reads it (by chance {chance});"
)
print("spread: how far apart generated images of a class lie, as a share of real ones; recognised: in how many of them")
print(f"a classifier sees the class that was asked for (it does in {seen} of the real ones)\n")
plots.save(
    plots.sheet("Generated, with a latent of 2, 16 and 64 dimensions, and with beta 4", panels),
    out / "latent_sizes.png",
)

# %% The model with 16: a column for each class; its losses
model, history = models["latent 16"]
obedient, _ = models["latent 16, beta 4"]
plots.save(plots.generated(model, names=names), out / "generated.png")
plots.save(plots.generated(obedient, names=names), out / "generated_beta_4.png")
plots.save(plots.curves(history), out / "losses.png")

# %% What the latent says: one under ten labels. What the label says: ten latents under it
plots.save(plots.one_latent(obedient, names=names), out / "one_latent.png")
plots.save(plots.many_latents(obedient, 3, count=10, names=names), out / "ten_latents.png")

# %% Style carried over: the latent of one image under all labels. With beta 1 the image's own digit comes through
plots.save(plots.relabelled(obedient, test.x, test.y, names=names), out / "style.png")
plots.save(plots.relabelled(model, test.x, test.y, names=names), out / "style_beta_1.png")

# %% Only even digits: asked for an odd one, the model draws what it knows under weights that were never trained
even = prepare(options.data, limit=options.limit, only_classes=[str(k) for k in range(0, len(names), 2)])
evens, _ = trained(even, 16, beta=4.0)
for part, title in ((slice(0, None, 2), "seen"), (slice(1, None, 2), "never seen")):
    asked = np.arange(len(names))[part]
    losses = evens.evaluate(test.x[np.isin(test.y, asked)], test.y[np.isin(test.y, asked)])
    print(f"Classes {title}: reconstruction + KL {losses['reconstruction'] + losses['kl']:.1f} nats per test image")
plots.save(plots.generated(evens, rows=5, names=even.names), out / "even.png")  # in brackets: not in use
print(f"\nThe pictures are in {out}/")
