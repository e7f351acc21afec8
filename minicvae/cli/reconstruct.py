"""`minicvae reconstruct`: images beside what the model makes of them."""

from __future__ import annotations

from argparse import Namespace

import numpy as np

from minicvae.cli.data import recorded, rows
from minicvae.cli.models import open_run, write
from minicvae.cli.parser import Parser, at_least, data_option, device_option, out_option, run_argument

__all__ = ["DESCRIPTION", "EXAMPLE", "arguments", "run"]

DESCRIPTION = """\
Show test images beside their reconstructions: encoded, then decoded from the
mean of the posterior. Written as a picture, or with --out NAME.npz as the
arrays x (n, h, w), reconstruction (n, h, w) and c, their conditions."""

EXAMPLE = """\
minicvae reconstruct runs/mlp-1
minicvae reconstruct runs/mlp-1 --indices 0 18 61 --out mine.png"""

COLUMNS = 10


def arguments(parser: Parser) -> None:
    """What `reconstruct` takes."""
    run_argument(parser)
    data_option(parser)
    parser.add_argument(
        "--indices", metavar="I", type=at_least(0), nargs="+", help="which test images (default: the first 20)"
    )
    out_option(parser, "reconstructed.png")
    device_option(parser)


def run(args: Namespace) -> int:
    """Write the picture or the arrays. Raises ValueError for an index that there is not."""
    from minicvae.plots.figures import Panel

    record, model = open_run(args)
    data = recorded(record.config["data"], args.data)
    n = len(data.test)
    indices = np.array(args.indices or range(min(2 * COLUMNS, n)))
    if indices.max() >= n:
        raise ValueError(f"indices: expected 0 to {n - 1}, the test images there are, got {indices.max()}")
    shown = rows(data.test, indices)
    x, c = data.pair(shown)
    decoded = model.reconstruct(x, c)
    labels = [f"{data.class_names[k]} (#{i})" for k, i in zip(shown.y, indices, strict=True)]
    panels = []
    for start in range(0, len(x), COLUMNS):
        part = slice(start, start + COLUMNS)
        tiles = np.concatenate([x[part] / np.float32(255), decoded[part]])
        panels.append(
            Panel(tiles, len(tiles) // 2, column_labels=labels[part], row_labels=("original", "reconstruction"))
        )
    arrays = {"x": x, "reconstruction": decoded, "c": c}
    write(args.out or record.folder / "reconstructed.png", arrays, "Test images and their reconstructions", panels)
    return 0
