"""`minicvae summary`: a model's layers, shapes and parameter counts."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from minicvae.cli.models import announce_compilation
from minicvae.cli.parser import Parser, device_option, suggestion
from minicvae.model import build
from minicvae.models.presets import PRESETS
from minicvae.runs import Run

__all__ = ["DESCRIPTION", "EXAMPLE", "arguments", "run"]

DESCRIPTION = "Show a model's layers with their output shapes and parameter counts."

EXAMPLE = """\
minicvae summary mlp
minicvae summary runs/mlp-1"""


def arguments(parser: Parser) -> None:
    """What `summary` takes."""
    parser.add_argument("model", metavar="PRESET|RUN", help="a preset, or the run folder of a trained model")
    device_option(parser)


def run(args: Namespace) -> int:
    """Print the table. Raises ValueError for what is neither."""
    announce_compilation(args.device)
    if args.model in PRESETS:
        model = build(args.model, device=args.device)
    elif Path(args.model).exists():
        model = Run.open(args.model).model(args.device)
    else:
        raise ValueError(f"there is neither a preset nor a run {args.model!r}{suggestion(args.model, PRESETS)}")
    model.summary()
    return 0
