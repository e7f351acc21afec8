"""`minicvae plot`: all pictures of a run, drawn anew."""

from __future__ import annotations

from argparse import Namespace

from minicvae.cli.data import recorded
from minicvae.cli.models import draw, open_run
from minicvae.cli.parser import Parser, at_least, device_option, run_argument

__all__ = ["DESCRIPTION", "EXAMPLE", "arguments", "run"]

DESCRIPTION = """\
Draw all pictures of a run anew, into its folder figures/: the losses, generated
images, reconstructions, walks between images, and what else suits the model."""

EXAMPLE = "minicvae plot runs/mlp-1"


def arguments(parser: Parser) -> None:
    """What `plot` takes."""
    run_argument(parser)
    parser.add_argument("--seed", metavar="N", type=at_least(0), default=0, help="another seed, other images")
    device_option(parser)


def run(args: Namespace) -> int:
    """Draw, and print where the pictures are."""
    record, model = open_run(args)
    pictures = draw(record, model, recorded(record.config["data"]), args.seed)
    print(*pictures, sep="\n")
    return 0
