"""`minicvae evaluate`: what a trained model is worth, and what is wrong with it."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from typing import Any

import numpy as np

from minicvae.checkpoint import whole_file
from minicvae.classifier import Classifier, trained_on
from minicvae.cli.data import Data, labelled, recorded
from minicvae.cli.models import open_run
from minicvae.cli.parser import Parser, at_least, data_option, device_option, run_argument
from minicvae.conditions import Classes
from minicvae.diagnostics import diagnose
from minicvae.model import CVAE
from minicvae.tables import table

__all__ = ["DESCRIPTION", "EXAMPLE", "arguments", "run"]

DESCRIPTION = """\
Measure a trained model, and say in words what the numbers mean. Printed as
tables and written to RUN/evaluation.json:

losses       in nats per image, lower is better: reconstruction + beta KL,
             as the model's objective says, on the images that it was trained
             on, those held out, and the test images
latent       on the test images, for each dimension of z: its KL, what it tells
             about the image once the class is known, whether it is active
pictures     one generated for each test image's condition: can the label be
             read off z, how varied are they, are they copies of training
             images; and does a classifier see the class that was asked for
             in 1,000 more of each class

The classifier is trained on the data set the first time, which takes a minute
or two, and kept in the user's cache folder. With --data nothing is written."""

EXAMPLE = """\
minicvae evaluate runs/mlp-1
minicvae evaluate runs/mlp-1 --log-likelihood 100 --no-classifier
minicvae evaluate runs/mlp-1 --json"""


def arguments(parser: Parser) -> None:
    """What `evaluate` takes."""
    run_argument(parser)
    data_option(parser)
    parser.add_argument(
        "--log-likelihood",
        metavar="N",
        type=at_least(1),
        help="also estimate log p(x|c) of the first N test images by importance sampling",
    )
    parser.add_argument(
        "--samples", metavar="S", type=at_least(1), default=5000, help="how many z for each of them (default: 5000)"
    )
    parser.add_argument("--no-classifier", action="store_true", help="train no classifier and ask none")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    device_option(parser)


def run(args: Namespace) -> int:
    """Print the tables, and write them as JSON into the run's folder."""
    record, model = open_run(args)
    data = recorded(record.config["data"], args.data)
    losses = _losses(model, data)
    likelihood = _log_likelihood(model, data, args.log_likelihood, args.samples) if args.log_likelihood else None
    diagnosis = diagnose(
        model,
        *data.pair(data.test),
        training=data.pair(data.train)[0],
        classifier=None if args.no_classifier else _classifier(model, args.data or data.source, args.device),
    )
    results = {"losses": losses, "log_likelihood": likelihood, "diagnosis": diagnosis.as_dict()}
    text = json.dumps(results, indent=2) + "\n"
    if args.data is None:
        with whole_file(record.evaluation_file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if args.json:
        print(text, end="")
        return 0
    _, *terms = losses["test"]
    rows = [[name, f"{entry['images']:,}", *(f"{entry[term]:.2f}" for term in terms)] for name, entry in losses.items()]
    header = [record.config["preset"], "images", *("KL" if term == "kl" else term for term in terms)]
    print(table(header, rows, "<" + ">" * (len(header) - 1)))
    if likelihood:
        print(
            f"\nlog p(x|c) of {likelihood['images']:,} test images, {likelihood['samples']:,} importance samples each: "
            f"{likelihood['mean']:.2f} nats per image, standard error {likelihood['standard_error']:.2f}"
        )
    print(f"\n{diagnosis}")
    return 0


def _losses(model: CVAE, data: Data) -> dict[str, dict[str, float]]:
    """By split: how many images, and the losses."""
    splits = {"training": data.train, "held-out": data.held_out, "test": data.test}
    return {
        name: {"images": len(split), **model.evaluate(*data.pair(split))} for name, split in splits.items() if split
    }


def _log_likelihood(model: CVAE, data: Data, images: int, samples: int) -> dict[str, Any]:
    """The mean log-likelihood of the first so many test images, and its standard error over images."""
    x, c = (part[:images] for part in data.pair(data.test))
    values = model.log_likelihood(x, c, samples)
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return {"images": len(x), "samples": samples, "mean": float(values.mean()), "standard_error": error}


def _classifier(model: CVAE, source: str, device: str) -> Classifier | None:
    """The classifier of the whole data set, where the model is conditioned on its classes."""
    if not isinstance(model.condition, Classes):
        return None

    def announce() -> None:
        print("training a classifier of these images, the first time only ...", file=sys.stderr, flush=True)

    whole = labelled(source)
    return trained_on(whole.x, whole.y, device=device, announce=announce)
