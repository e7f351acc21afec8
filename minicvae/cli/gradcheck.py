"""`minicvae gradcheck`: every gradient of a model against finite differences."""

from __future__ import annotations

import time
from argparse import Namespace

from minicvae import conditions
from minicvae.cli.models import announce_compilation
from minicvae.cli.parser import Parser, at_least, choice, device_option
from minicvae.gradcheck import Report, check_model, compare
from minicvae.model import CVAE, build
from minicvae.models.presets import PRESETS
from minicvae.randomness import Purpose, generator

__all__ = ["DESCRIPTION", "EXAMPLE", "arguments", "check", "run"]

DESCRIPTION = """\
Hold the gradient of every parameter of a preset, as it is written by hand, to
finite differences of its loss in float64. The images, the noise and the biases
are drawn. Each row of the table is a parameter: its worst element, the two
gradients there, their difference and the bound that it is held to. On cuda the
gradients are held to those of numpy instead.

Exit status 1 if any gradient is wrong or could not be checked."""

EXAMPLE = """\
minicvae gradcheck mlp
minicvae gradcheck all --device numpy"""


def arguments(parser: Parser) -> None:
    """What `gradcheck` takes."""
    parser.add_argument(
        "preset", metavar="PRESET|all", nargs="?", type=choice(*PRESETS, "all"), default="all", help="default: all"
    )
    parser.add_argument("--examples", metavar="N", type=at_least(1), default=3, help="images in the batch (default: 3)")
    parser.add_argument(
        "--elements",
        metavar="N",
        type=at_least(1),
        default=8,
        help="elements of each parameter that are compared one by one, beside a direction through all (default: 8)",
    )
    parser.add_argument("--seed", metavar="N", type=at_least(0), default=0, help="of all that is drawn (default: 0)")
    device_option(parser)


def run(args: Namespace) -> int:
    """Print a table for each preset and a verdict; 1 if one fails."""
    announce_compilation(args.device)
    failed = []
    begin = time.perf_counter()
    names = list(PRESETS) if args.preset == "all" else [args.preset]
    for name in names:
        report = check(name, args.device, examples=args.examples, elements=args.elements, seed=args.seed)
        print(report, end="\n\n", flush=True)
        if not report.ok:
            failed.append(name)
    verdict = f"failed: {', '.join(failed)}" if failed else "every gradient is right"
    print(f"{len(names)} of {len(PRESETS)} presets in {time.perf_counter() - begin:.0f} s: {verdict}")
    return 1 if failed else 0


def check(preset: str, device: str, *, examples: int, elements: int, seed: int) -> Report:
    """The report on one preset, on drawn data.

    Biases are drawn too, at zero a mistake with them could hide; and of sizes from 1 to 2, which keeps most units off
    the kink of relu: the steps of the differences may then be large, and their rounding errors are small.
    """
    rng = generator(seed, Purpose.GENERATE)
    model = build(preset, dtype="float64", device=device, seed=seed)
    for name, value in model.parameters.items():
        if name.endswith(".b"):
            model.parameters[name] = rng.choice([-1, 1], value.shape) * rng.uniform(1, 2, value.shape)
    x = rng.random((examples, model.data_dim)) * (rng.random((examples, model.data_dim)) < 0.3)
    c = conditions.draw(model.condition, examples, rng)
    eps = rng.normal(size=(model.objective.samples, examples, model.latent_dim))
    title = f"{preset} on {device}"
    if device != "cuda":
        return check_model(model, x, c, eps=eps, elements=elements, title=title)
    truth = CVAE(**PRESETS[preset].architecture(), dtype="float64", device="numpy")
    for name, value in model.parameters.items():
        truth.parameters[name] = model.kernels.to_numpy(value)
    found, exact = (m.loss_and_gradients(x, c, eps=eps)[1] for m in (model, truth))
    return compare(found, exact, model.data_dim, growth="linear", title=title)
