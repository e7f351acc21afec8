"""Does an adversary in the latent help? The same model with and without one, side by side, and what it cost.

A CVAE's KL holds each posterior q(z|x,c) to the prior, but nothing looks at their mixture over all images of a class,
q(z|c) - and it is from the prior that `generate` draws, so where the two differ the decoder is asked about latents
that it never saw. A discriminator D(z, c) looks at just that: it learns to tell encoded z from N(0, I), and the
encoder learns to deceive it. Run it as a script, or cell by cell in an editor that knows `# %%`:

    python demos/adversarial.py                  10,000 images, 5 epochs: less than a minute on two cores
    python demos/adversarial.py --full           50,000 images, 20 epochs, and a classifier's opinion of the pictures
"""

# %% Settings
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle

import minicvae as mc
from minicvae.classifier import Classifier, trained_on
from minicvae.cli.data import labelled, prepare
from minicvae.cli.demo import demo_options
from minicvae.diagnostics import diagnose
from minicvae.layers import Chain, Dense
from minicvae.plots.figures import colours
from minicvae.randomness import Purpose, generator, standard_normal
from minicvae.tables import table


def arguments(parser):
    parser.add_argument("--seed", type=int, default=0, help="of the weights, the noise and the order (default: 0)")


args = demo_options(__doc__, "adversarial", epochs=5, full_epochs=20, limit=10_000, arguments=arguments)
data = prepare(args.data, limit=args.limit, held_out=True)  # nothing is chosen on the test set
few = min(len(data.train), len(data.held_out) if args.full else 4_000)
held_x, held_y, names = data.held_out.x[:few], data.held_out.y[:few], data.names

# %% The models
# The weight is what the adversary's opinion counts with the encoder. With weight 0 it only watches: encoder and
# decoder come out as if there were none, bit for bit. `pathways` has 16 dimensions of z where `adversarial` has 2, and
# with beta = 25 it collapses. No cure is to be expected there: a collapsed posterior is the prior, and deceives the
# discriminator perfectly.
PAIRS = {
    "latent of 2 dimensions": ("adversarial", {}),
    "latent of 16": ("pathways", {"discriminator_widths": (64, 64)}),
    "latent of 16, beta 25": ("pathways", {"discriminator_widths": (64, 64), "beta": 25}),
}
WEIGHTS = {"without": 0.0, "with": 10.0}


def trained(preset, overrides, weight):
    sizes = {"classes": len(names), "image_shape": held_x.shape[1:], **overrides}
    model = mc.build(preset, adversarial_weight=weight, seed=args.seed, **sizes)
    model.fit(data.train.x, data.train.y, epochs=args.epochs, batch_size=50, seed=args.seed, verbose=0)
    return model


# %% What is measured
# Beside the diagnostics: how far a judge who took no part in the training, a network of its own that is given z and c,
# can tell encoded z from the prior. 50% is by chance: to the judge, the aggregate posterior is the prior.
def sampled(model, times=1):
    """So many z ~ q(z|x,c) for each held-out image, one set after the other."""
    mean, log_var = (np.tile(part, (times, 1)) for part in model.encode(held_x, held_y))
    return mean + np.exp(log_var / 2) * standard_normal(mean.shape, mean.dtype, args.seed, Purpose.EVALUATE)


def judged(model):
    """Accuracy of the judge on z of half of the held-out images and as many draws from the prior, all new to it."""
    z = sampled(model, times=5)
    prior = standard_normal(z.shape, z.dtype, args.seed, Purpose.GENERATE)
    given = np.tile(np.eye(len(names), dtype=z.dtype)[held_y], (5, 1))
    rows = np.concatenate([np.hstack([prior, given]), np.hstack([z, given])])
    labels = np.repeat([1, 0], len(z))
    # Drawn, for MNIST's order is not random: its images with odd numbers hold a tenth more ink than the even ones.
    half = generator(args.seed, Purpose.SHUFFLE).permutation(len(held_x)) % 2 == 0
    fitted = np.tile(half, 10)
    network = Chain([Dense(rows.shape[1], 64, "relu"), Dense(64, 64, "relu"), Dense(64, 2)])
    judge = Classifier(network, seed=args.seed)
    judge.fit(rows[fitted], labels[fitted], epochs=3, batch_size=100, seed=args.seed)
    return judge.accuracy(rows[~fitted], labels[~fitted])


whole = labelled(args.data)
classifier = trained_on(whole.x, whole.y) if args.full else None  # minutes, the first time


def measured(model):
    """Each measure by name, and how it is written."""
    losses = model.evaluate(held_x, held_y)
    d = diagnose(model, held_x, held_y, classifier=classifier, seed=args.seed)
    mismatch = float((d.kl - d.information).sum())  # Σ_j KL(q(z_j|c) ‖ p(z_j)): see `diagnostics.information`
    found = {
        "reconstruction + KL": (losses["reconstruction"] + losses["kl"], ".2f"),
        "reconstruction": (losses["reconstruction"], ".2f"),
        "KL, all dimensions": (losses["kl"], ".2f"),
        "active dimensions": (int(d.active.sum()), "d"),
        "aggregate posterior from prior, nats": (mismatch, ".3f"),
        "a judge tells them apart": (judged(model), ".1%"),
        "label read from z": (d.leakage.found, ".1%"),
        "distance within a class, generated": (d.spread.found, ".2f"),
    }
    if d.recognised:
        found["generated digits recognised"] = (d.recognised.found, ".1%")
    return found


# %% Side by side
def compared(without, with_):
    """What the adversary changed, in words. The judge's accuracy is sure to about a point: less is called noise."""
    bound, apart, told = "reconstruction + KL", "aggregate posterior from prior, nats", "a judge tells them apart"
    label, active = "label read from z", "active dimensions"
    helped = with_[apart] < without[apart] and with_[told] < without[told] - 0.02
    came = "brought the aggregate posterior nearer to the prior" if helped else "did not change the aggregate posterior"
    worse, woke = with_[bound] - without[bound], with_[active] - without[active]
    more = f"{woke} more dimensions are" if woke > 0 else "no more dimensions are"
    return (
        f"The adversary {came}: {without[apart]:.2f} nats from it, then {with_[apart]:.2f}; the judge is right in "
        f"{without[told]:.0%}, then {with_[told]:.0%}.\n"
        f"The bound on log p(x|c) is {abs(worse):.2f} nats {'worse' if worse > 0 else 'better'}; the label is read "
        f"from z in {without[label]:.0%}, then {with_[label]:.0%}; {more} active."
    )


sides, latents = list(WEIGHTS), {}
for title, (preset, overrides) in PAIRS.items():
    pair = {}
    for side, weight in WEIGHTS.items():
        model = trained(preset, overrides, weight)
        pair[side] = measured(model)
        if model.latent_dim == 2:
            latents[side] = sampled(model)
    rows = [[name, *(format(*pair[side][name]) for side in sides)] for name in pair[sides[0]]]
    print(table([title, *(f"{side} adversary" for side in sides)], rows, "<>>"), flush=True)
    values = ({name: value for name, (value, _) in pair[side].items()} for side in sides)
    print(f"\n{compared(*values)}\n", flush=True)

# %% The picture: for each class, one z for each held-out image of it, and the circle that holds 95% of the prior
figure = Figure(figsize=(1.5 * len(names), 3.7), dpi=150, layout="constrained")
edge = np.sqrt(-2 * np.log(0.05))  # |z|² / 2 is exponentially distributed where z ~ N(0, I) has two dimensions
for axes_of_side, side in zip(figure.subplots(2, len(names), sharex=True, sharey=True), sides, strict=True):
    for label, (axes, name, colour) in enumerate(zip(axes_of_side, names, colours(len(names)), strict=True)):
        z = latents[side][held_y == label]
        axes.scatter(*z.T, s=2, alpha=0.4, color=colour, linewidths=0)
        axes.add_patch(Circle((0, 0), edge, fill=False, linewidth=1))
        inside = (np.hypot(*z.T) < edge).mean()
        axes.set_title(f"{name}: {inside:.0%} inside", fontsize=9)
        axes.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal", xticks=[], yticks=[])
    axes_of_side[0].set_ylabel(f"{side} adversary", fontsize=9)
figure.suptitle(
    "Encoded latents of each class, z[0] to the right and z[1] upwards, and the circle that holds 95% of the prior",
    fontsize=11,
)
figure.savefig(args.out / "latents.png")
print(f"The picture is {args.out}/latents.png")
