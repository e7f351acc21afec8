"""A tighter bound: VAE and importance-weighted autoencoder (IWAE) with 1, 5 and 50 samples of z for each image.

python demos/importance_weighted.py                    # a minute or two: 7,000 images, four epochs
python demos/importance_weighted.py --full             # the published protocol: 3,280 epochs
python demos/importance_weighted.py --full --stages 3  # its first three stages, 13 epochs; a higher number goes on

What is stopped goes on where it was when the same command is given again.
"""

# %% The protocol
# Burda, Grosse, Salakhutdinov 2016: no condition, two hidden layers of 200 tanh each way, z of 50 dimensions; pixels
# drawn black or white anew at each epoch; Adam with epsilon 1e-4, batches of 20, and a rate that falls from 1e-3 to
# 1e-4 in eight stages, each three times as long as the one before. Nothing is chosen on the test images.
import argparse
from pathlib import Path

import minicvae as mc
from minicvae import plots
from minicvae.checkpoint import whole_file
from minicvae.cli.demo import parsed
from minicvae.cli.parser import at_least
from minicvae.diagnostics import diagnose
from minicvae.models.presets import find
from minicvae.objectives import ELBO, IWAE
from minicvae.schedules import Tripling
from minicvae.tables import table

PUBLISHED = {  # nats, active units of 50
    "vae-1": (86.76, 19),
    "vae-5": (86.47, 20),
    "vae-50": (86.35, 20),
    "iwae-1": (86.76, 19),
    "iwae-5": (85.54, 22),
    "iwae-50": (84.78, 25),
}
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--full", action="store_true", help="all images and 3,280 epochs: the published protocol")
parser.add_argument("--stages", type=int, default=8, choices=range(1, 9), help="stop --full after so many stages")
parser.add_argument("--epochs", type=at_least(1), help="of the short run (default: 4)")
parser.add_argument("--limit", type=at_least(1), metavar="N", help="images of the short run (default: 7,000)")
parser.add_argument(
    "--test-images", type=at_least(1), metavar="N", help="how many are scored (default: 200; --full: 10,000)"
)
parser.add_argument(
    "--samples", type=at_least(1), metavar="N", help="of z for each of them (default: 500; --full: 5,000)"
)
parser.add_argument("--models", nargs="+", choices=PUBLISHED, default=list(PUBLISHED), help="default: all six")
parser.add_argument("--device", default="cpu", help="where to compute: cpu, numpy or cuda (default: cpu)")
parser.add_argument("--out", type=Path, default=Path("runs/demos/importance_weighted"), help="folder for the results")
args = parsed(parser)

train, test = mc.datasets.load("mnist")
protocol = find("iwae")
if args.full:
    rate, images = protocol.learning_rate, train.x
    epochs, until = protocol.epochs, rate.ends[args.stages - 1]
    scored, samples = args.test_images or len(test), args.samples or 5000
else:
    rate, images = Tripling(stages=2), train.x[: args.limit or 7_000]
    epochs = until = args.epochs or rate.ends[-1]
    scored, samples = args.test_images or 200, args.samples or 500
x, labels = mc.datasets.binarise(test.x)[:scored], test.y[:scored]

# %% Six models that differ in their objective only
# The VAE averages its reconstruction over k samples, its bound is that of one. The IWAE's bound is the logarithm of the
# mean weight of k samples, which is tighter: a sample that explains the image badly does little harm, so the posterior
# may spread further and use more dimensions of z. In the first epochs all dimensions are in use and the VAE is ahead;
# with 13 epochs on all images (`--full --stages 3`) the order is the published one.
rows, diagnoses = [], {}
for name in args.models:
    kind, k = name.split("-")
    objective = {"vae": ELBO, "iwae": IWAE}[kind](samples=int(k))
    model = mc.build("iwae", objective=objective, device=args.device, seed=0)
    model.start_at_mean(images)
    print(f"\n{name}", flush=True)
    history = model.fit(
        images,
        len(images),
        epochs=epochs,
        batch_size=protocol.batch_size,
        learning_rate=rate,
        optimizer=protocol.optimizer,
        binarise=True,
        checkpoint=args.out / f"{name}.checkpoint",
        until=until,
        seed=0,
    )
    model.save(args.out / f"{name}.safetensors")

    # %% What each is worth: -log p(x) by importance sampling, the same for all, and the units that carry something
    nll = -model.log_likelihood(x, labels, samples)
    found = diagnoses[name] = diagnose(model, x, labels)
    minutes, (published, units) = sum(history.history["seconds"]) / 60, PUBLISHED[name]
    numbers = f"{nll.mean():.2f}", f"{found.active.sum()}", f"{published:.2f}", f"{units}", f"{minutes:.1f}"
    rows.append([kind.upper(), k, *numbers])
    scores = table(["", "k", "NLL", "active", "published NLL", "active", "minutes"], rows, "<>>>>>>")
    print(f"\n{scores}", flush=True)
    with whole_file(args.out / "table.txt") as temporary:
        temporary.write_text(scores + "\n", encoding="utf-8")

# %% The picture: the KL of each dimension of z
plots.save(plots.compared_dimensions(diagnoses), args.out / "dimensions.png")
print(
    f"\nNLL of the first {scored:,} test images, {samples:,} samples each, after {history.epochs:,} of the published\n"
    f"3,280 epochs, on {len(images):,} images. The table, the picture and the models are in {args.out}/"
)
