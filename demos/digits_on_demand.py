"""Digits on demand: the all-rounder `mlp`, what its latent says and its label says, and how large a latent should be.

python demos/digits_on_demand.py                          # two minutes
python demos/digits_on_demand.py --full                   # 50 epochs; --epochs 100, --epochs 200 for more
python demos/digits_on_demand.py --data fashion-mnist     # or a folder of IDX files, or an .npz file
"""

# %% The same two hidden layers of 256 with a latent of 2, 16 and 64
import numpy as np

import minicvae as mc
from minicvae import plots
from minicvae.cli.data import prepare
from minicvae.cli.demo import demo_options
from minicvae.diagnostics import diagnose
from minicvae.tables import table

options = demo_options(__doc__, "digits_on_demand", epochs=8, full_epochs=50)
data = prepare(options.data, limit=options.limit)
out, names, test = options.out, data.names, data.test


def trained(data, latent_dim):
    """(the model, its history), trained on those classes that the data has."""
    model = mc.build("mlp", latent_dim=latent_dim, classes=len(names), image_shape=test.x.shape[1:], seed=0)
    print(f"latent {latent_dim}, {len(data.train):,} images")
    pair = data.test.x, data.test.y
    return model, model.fit(data.train.x, data.train.y, validation_data=pair, epochs=options.epochs, seed=0).history


models = {latent_dim: trained(data, latent_dim) for latent_dim in (2, 16, 64)}

# %% Side by side: into 2 too little fits, and the rest is blurred; 64 say no more than 16, and take longer to learn
rows, panels, shown = [], [], np.tile(np.arange(len(names)), 3)
for latent_dim, (model, _) in models.items():
    found, losses = diagnose(model, test.x[:2000], test.y[:2000]), model.evaluate(test.x, test.y)
    spread = found.spread.found / found.spread.reference
    rows.append([str(latent_dim), *(f"{v:.1f}" for v in losses.values()), str(found.active.sum()), f"{spread:.0%}"])
    title = f"latent {latent_dim}, test loss {losses['loss']:.1f} nats"
    panels.append(plots.Panel(model.generate(shown, seed=0), len(names), column_labels=names, column_title=title))
print(f"\n{table(['latent', 'test loss', 'reconstruction', 'KL', 'active', 'spread'], rows, '>>>>>>')}")
print("test images, nats; spread: how far apart generated images of a class lie, as a share of real ones\n")
plots.save(plots.sheet("Generated, with a latent of 2, 16 and 64 dimensions", panels), out / "latent_sizes.png")

# %% The model with 16: a column for each class; its losses
model, history = models[16]
plots.save(plots.generated(model, names=names), out / "generated.png")
plots.save(plots.curves(history), out / "losses.png")

# %% What the latent says: one under ten labels. What the label says: ten latents under it
plots.save(plots.one_latent(model, names=names), out / "one_latent.png")
plots.save(plots.many_latents(model, 3, count=10, names=names), out / "ten_latents.png")

# %% Style carried over: the latent of one image under all labels
plots.save(plots.relabelled(model, test.x, test.y, names=names), out / "style.png")

# %% Only even digits: asked for an odd one, the model draws what it knows under weights that were never trained
even = prepare(options.data, limit=options.limit, only_classes=[str(k) for k in range(0, len(names), 2)])
evens, _ = trained(even, 16)
for part, title in ((slice(0, None, 2), "seen"), (slice(1, None, 2), "never seen")):
    asked = np.arange(len(names))[part]
    losses = evens.evaluate(test.x[np.isin(test.y, asked)], test.y[np.isin(test.y, asked)])
    print(f"Classes {title}: test loss {losses['loss']:.1f} nats")
plots.save(plots.generated(evens, rows=5, names=even.names), out / "even.png")  # in brackets: not in use
print(f"\nThe pictures are in {out}/")
