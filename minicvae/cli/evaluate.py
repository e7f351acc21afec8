"""`minicvae evaluate`: the losses of a trained model."""

from __future__ import annotations

import json
from argparse import Namespace

from minicvae.cli.data import recorded
from minicvae.cli.models import open_run
from minicvae.cli.parser import Parser, data_option, device_option, run_argument
from minicvae.tables import table

__all__ = ["DESCRIPTION", "EXAMPLE", "arguments", "run"]

DESCRIPTION = """\
Measure the losses of a trained model in nats per image, lower is better:
loss = reconstruction + beta KL, as the model's objective says. Measured on the
images that it was trained on, those held out, and the test images."""

EXAMPLE = """\
minicvae evaluate runs/mlp-1
minicvae evaluate runs/mlp-1 --json"""


def arguments(parser: Parser) -> None:
    """What `evaluate` takes."""
    run_argument(parser)
    data_option(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    device_option(parser)


def run(args: Namespace) -> int:
    """Print the losses."""
    record, model = open_run(args)
    data = recorded(record.config["data"], args.data)
    splits = {"training": data.train, "held-out": data.held_out, "test": data.test}
    results = {
        name: {"images": len(split), **model.evaluate(*data.pair(split))} for name, split in splits.items() if split
    }
    if args.json:
        print(json.dumps(results, indent=2))
        return 0
    rows = [
        [name, f"{result.pop('images'):,}", *(f"{value:.2f}" for value in result.values())]
        for name, result in results.items()
    ]
    print(table([f"{record.config['preset']}", "images", "loss", "reconstruction", "KL"], rows, "<>>>>"))
    return 0
