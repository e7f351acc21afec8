"""Posterior collapse, shown and cured: the same model with a beta far too high, and five things that might help.

python demos/collapse.py          # less than a minute
python demos/collapse.py --full   # 50 epochs on all images
"""

# %% Where beta is too high it pays to make q(z|x,c) = p(z) for every image: the KL is zero, and z says nothing
import minicvae as mc
from minicvae import plots
from minicvae.cli.data import prepare
from minicvae.cli.demo import demo_options
from minicvae.diagnostics import diagnose
from minicvae.schedules import Cyclical, Linear
from minicvae.tables import table

options = demo_options(__doc__, "collapse", epochs=6, full_epochs=50, limit=20_000)
data = prepare(options.data, limit=options.limit)
x, c = data.test.x[:2000], data.test.y[:2000]
HIGH = 20.0

# %% The same networks, images and seeds: only the weight of the KL differs, and what of the KL is free
variants = {
    "beta 20": ({}, HIGH),
    "linear annealing, 0 to 20": ({}, Linear(0, HIGH, over=0.6)),
    "cyclical annealing, 0 to 20": ({}, Cyclical(0, HIGH, cycles=2)),
    "free bits, 0.5 nats a dimension": ({"free_bits": 0.5}, HIGH),
    "beta falls from 20 to 1": ({}, Linear(HIGH, 1, over=0.6)),
    "beta 1": ({}, 1.0),
}
rows, diagnoses = [], {}
for name, (overrides, beta) in variants.items():
    model = mc.build("mlp", classes=len(data.class_names), image_shape=x.shape[1:], seed=0, **overrides)
    fitted = model.fit(data.train.x, data.train.y, epochs=options.epochs, beta=beta, seed=0, verbose=0)
    found = diagnoses[name] = diagnose(model, x, c)
    print(f"{name}: {found.words()[0]}", flush=True)
    losses, peak = model.evaluate(x, c), max(fitted.history["kl"])
    spread = found.spread.found / found.spread.reference
    numbers = losses["kl"], peak, losses["reconstruction"], losses["kl"] + losses["reconstruction"]
    rows.append([name, f"{found.active.sum()} of {len(found.kl)}", *(f"{v:.1f}" for v in numbers), f"{spread:.0%}"])

# %% Side by side. The bound is reconstruction + KL whatever beta was, so its column can be compared
header = ["", "active", "KL", "KL, best epoch", "reconstruction", "-bound", "spread"]
print(f"\n{table(header, rows, '<>>>>>>')}")
print("KL, reconstruction and bound in nats per test image; KL, best epoch: the highest that an epoch's mean has been;")
print("spread: how far apart generated images of a class lie, as a share of real ones\n")

# %% Who is cured?
# Annealing up to 20 is not enough: while beta is low z is learnt, and as beta rises most of it is given up again (see
# the two columns of the KL). It helps where a model collapses early in the training although its final beta is low
# enough, not where the final beta is too high. Free bits keep every dimension in use whatever beta is, at a rate that
# they set and not the data. The fault was the beta: with 1 the bound is best, and a collapsed model recovers when beta
# comes down, later than one that never collapsed.
plots.save(plots.compared_dimensions(diagnoses), options.out / "collapse.png")
print(f"The picture is in {options.out}/: collapse.png")
