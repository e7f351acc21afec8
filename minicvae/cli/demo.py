"""What every demo asks for on its command line: how long to train, on which images, and where the pictures go."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable
from pathlib import Path

from minicvae.cli.parser import at_least

__all__ = ["demo_options", "parsed"]


def demo_options(
    description: str,
    name: str,
    *,
    epochs: int,
    full_epochs: int,
    limit: int | None = None,
    arguments: Callable[[ArgumentParser], object] = lambda parser: None,
) -> Namespace:
    """out, data, epochs, limit and full, from the command line; `out` is made where it is missing.

    epochs, limit: of the short run; limit is None for all training images. full_epochs: of `--full`, which trains on
    all images. arguments: adds what the demo takes beside these.
    """
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demos") / name, help="folder for the pictures")
    parser.add_argument("--data", default="mnist", help="a data set by name, a folder of IDX files or an .npz file")
    parser.add_argument("--full", action="store_true", help=f"the reference's protocol: {full_epochs} epochs")
    parser.add_argument("--epochs", type=at_least(1), help=f"passes over the images (default: {epochs})")
    parser.add_argument(
        "--limit", type=at_least(1), help=f"train on the first N images only (default: {limit or 'all'})", metavar="N"
    )
    arguments(parser)
    options = parsed(parser)
    options.epochs = options.epochs or (full_epochs if options.full else epochs)
    options.limit = options.limit or (None if options.full else limit)
    return options


def parsed(parser: ArgumentParser) -> Namespace:
    """The options of a demo; its folder `out` is made where it is missing.

    What is not known is refused, but in a notebook, which has arguments of its own.
    """
    options, unknown = parser.parse_known_args()
    if unknown and "ipykernel" not in sys.modules:
        parser.error(f"unrecognised arguments: {' '.join(unknown)}")
    options.out.mkdir(parents=True, exist_ok=True)
    return options
