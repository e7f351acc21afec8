"""Two conditions at once, digit and stroke thickness, and a slant on demand: is what comes what was asked for?

python demos/two_conditions.py          # a minute
python demos/two_conditions.py --full   # 50 epochs of each of the three models
"""

# %% Images, measured: ink area, stroke thickness, slant, width and height, in pixels
import numpy as np

import minicvae as mc
from minicvae import plots
from minicvae.classifier import EPOCHS, trained_on
from minicvae.cli.data import prepare
from minicvae.cli.demo import demo_options
from minicvae.datasets import ATTRIBUTES, attributes
from minicvae.tables import table

options = demo_options(__doc__, "two_conditions", epochs=6, full_epochs=50)
data = prepare(options.data, limit=options.limit, measured=True)
THICKNESS, SLANT = ATTRIBUTES.index("thickness"), ATTRIBUTES.index("slant")

# %% Thin, medium, thick: a third of the training images each
NAMES = ("thin", "medium", "thick")
thickness = data.train.measures[:, THICKNESS]
edges = np.quantile(thickness, [1 / 3, 2 / 3])
grades = np.digitize(thickness, edges)
print(f"thin: below {edges[0]:.2f} pixels; thick: from {edges[1]:.2f} pixels\n")

# %% A model that is told both, with beta 1; and one with beta 4, which leaves less room for z to contradict the label
digits, classes, image_shape = len(data.class_names), mc.conditions.Classes, data.train.x.shape[1:]
condition = mc.conditions.Parts({"digit": classes(digits), "thickness": classes(3)})
models = {}
for beta in (1, 4):
    models[beta] = mc.build("mlp", beta=float(beta), condition=condition, image_shape=image_shape, seed=0)
    told = {"digit": data.train.y, "thickness": grades}
    models[beta].fit(data.train.x, told, epochs=options.epochs, seed=0)

# %% Ask for every digit in every thickness, 100 times, with the same 100 latents; then measure what comes
# A small classifier, trained here once and then kept, says what digit it sees; the one of `--full` is right more often.
latents, shape = 100, (100, digits, 3)  # latent, digit, thickness
digit, grade = (np.broadcast_to(a, shape).ravel() for a in (np.arange(digits)[:, None], np.arange(3)))
few, passes = (None, EPOCHS) if options.full else (20_000, 2)
classifier, summary = trained_on(data.train.x[:few], data.train.y[:few], epochs=passes), []
for beta, model in models.items():
    z = np.repeat(np.random.default_rng(0).standard_normal((latents, model.latent_dim)), digits * 3, axis=0)
    images = model.decode(z, {"digit": digit, "thickness": grade})
    measured = attributes(images)[:, THICKNESS]
    thin, medium, thick = np.moveaxis(measured.reshape(shape), 2, 0)
    ordered = (thin < medium) & (medium < thick)
    seen = classifier.accuracy(images, digit)
    summary.append([f"beta {beta}", *(f"{v.mean():.2f}" for v in (thin, medium, thick)), f"{ordered.mean():.1%}"])
    summary[-1].append(f"{seen:.1%}")
asked = ["training images", *(f"{thickness[grades == k].mean():.2f}" for k in range(3)), "", ""]
print(table(["thickness, pixels", *NAMES, "in order", "digit seen"], [asked, *summary], "<>>>>>"))
print("in order: thin < medium < thick, for the same latent and digit; digit seen: the classifier names what was asked")
print(f"for (it names {classifier.accuracy(data.test.x, data.test.y):.1%} of the test images as labelled)\n")

# %% The model with beta 4 in detail: which third of the training images does what came belong to?
# It draws the digit that was asked for, but blurred, and a blurred stroke measures about half a pixel thicker: the
# order is kept, the level is not. With beta 1 it is the other way round.
came = np.digitize(measured, edges)
shares = [[name, *(f"{np.mean(came[grade == k] == j):.0%}" for j in range(3))] for k, name in enumerate(NAMES)]
print(table(["asked for", *(f"came {name}" for name in NAMES)], shares, "<>>>"), "\n")
rows = [
    [name, *(f"{values[:, k].mean():.2f}" for values in (thin, medium, thick)), f"{ordered[:, k].mean():.0%}"]
    for k, name in enumerate(data.class_names)
]
print(table(["digit", *NAMES, "in order"], rows, "<>>>>"), "\n")
names = {"digit": data.class_names, "thickness": NAMES}
plots.save(plots.crossed(model, names=names), options.out / "digit_and_thickness.png")

# %% A number for a condition: the preset `vector` is told all five measures, standardised, and no digit
sloped = mc.build("vector", image_shape=image_shape, seed=0)
sloped.fit(data.train.x, data.condition(data.train), epochs=options.epochs, seed=0)

# %% Ask for what test images have, but for a slant drawn evenly from the middle 96% of the training images'
low, high = np.quantile(data.train.measures[:, SLANT], [0.02, 0.98])
wanted = data.test.measures[:1000].copy()
wanted[:, SLANT] = np.random.default_rng(1).uniform(low, high, len(wanted))
slant = attributes(sloped.generate(data.standardisation.apply(wanted), seed=0))[:, SLANT]
r = np.corrcoef(wanted[:, SLANT], slant)[0, 1]
error = np.abs(slant - wanted[:, SLANT]).mean()
print(f"Slant asked from {low:.2f} to {high:.2f}: Pearson's r = {r:.3f}, mean error {error:.3f} pixels per pixel")

figure = plots.asked_and_measured(wanted[:, SLANT], slant, name="slant", unit="pixels to the right per pixel up")
plots.save(figure, options.out / "slant.png")

# %% What does the model obey best? All five asked for as test images have them
wanted = data.test.measures[:1000]
found = attributes(sloped.generate(data.condition(data.test)[:1000], seed=0))
obeyed = [[name, f"{np.corrcoef(wanted[:, j], found[:, j])[0, 1]:.3f}"] for j, name in enumerate(ATTRIBUTES)]
print(f"\n{table(['asked as in a test image', 'r'], obeyed, '<>')}")
print(f"\nThe pictures are in {options.out}/: digit_and_thickness.png and slant.png")
