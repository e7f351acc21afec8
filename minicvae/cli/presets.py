"""`minicvae presets`: the models there are to train."""

from __future__ import annotations

from argparse import Namespace
from textwrap import wrap

from minicvae.cli.parser import Parser
from minicvae.model import build
from minicvae.models.presets import PRESETS
from minicvae.tables import table

__all__ = ["DESCRIPTION", "EXAMPLE", "arguments", "run"]

DESCRIPTION = """\
List the presets: the models that `minicvae train` knows by name, with their
parameter counts and the epochs and batch size that their protocol says."""

EXAMPLE = "minicvae presets"

HEADER = ("preset", "latent", "parameters", "epochs", "batch", "what it is")
WIDTH = 80  # columns of the table; the descriptions take what the numbers leave


def arguments(parser: Parser) -> None:
    """`presets` takes nothing."""


def run(args: Namespace) -> int:
    """Print the table."""
    known = [
        [name, str(preset.latent_dim), f"{_parameters(name):,}", str(preset.epochs), str(preset.batch_size)]
        for name, preset in PRESETS.items()
    ]
    left = WIDTH - sum(2 + max(map(len, column)) for column in zip(HEADER, *known, strict=False))
    rows = []
    for cells, preset in zip(known, PRESETS.values(), strict=True):
        first, *others = wrap(preset.summary, left)
        rows += [[*cells, first], *([*[""] * len(cells), line] for line in others)]
    print(table(HEADER, rows, "<>>>><"))
    return 0


def _parameters(name: str) -> int:
    return build(name, device="numpy").parameters.size
