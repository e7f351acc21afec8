"""`minicvae generate`: images drawn on demand."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from minicvae.cli.data import class_numbers, in_brackets, standardisation_in
from minicvae.cli.models import open_run, write
from minicvae.cli.parser import Parser, UsageError, at_least, device_option, out_option, run_argument, suggestion
from minicvae.conditions import Nothing
from minicvae.datasets import ATTRIBUTES, Standardisation

if TYPE_CHECKING:
    from minicvae.plots.figures import Panel

__all__ = ["DESCRIPTION", "EXAMPLE", "arguments", "run"]

DESCRIPTION = f"""\
Draw images on demand: z from N(0, I) for each, decoded under the condition
asked for. Without --classes or --condition ten of each class are drawn, or, for
a model of attributes, each attribute from low to high. Written as a picture, or
with --out NAME.npz as the arrays x (n, h, w) in 0..1 and c, their conditions.

A model of measured attributes (`vector`) takes --condition with any of
{", ".join(ATTRIBUTES)}, in pixels (slant: pixels to the
right per pixel upwards); what is not said is as on average."""

EXAMPLE = """\
minicvae generate runs/mlp-1
minicvae generate runs/mlp-1 --classes 2 0 2 6 --out year.png
minicvae generate runs/vector-1 --condition "slant=0.5, thickness=3" --count 5"""

COLUMNS = 10
ROWS = 10  # where nothing is asked for, shared out among the attributes
SWEEP = np.linspace(-2, 2, 9)  # standard deviations


@dataclass(frozen=True)
class Wanted:
    """Columns of a picture: what each is called, and its condition; c (k,) labels or (k, 5) attributes, as measured."""

    labels: Sequence[str]
    c: np.ndarray
    title: str = ""


def arguments(parser: Parser) -> None:
    """What `generate` takes."""
    run_argument(parser)
    parser.add_argument("--classes", metavar="CLASS", nargs="+", help="one image of each, by name or number, in order")
    parser.add_argument(
        "--condition",
        metavar="WHAT",
        type=measures,
        action="append",
        help='attributes, as "slant=0.5, thickness=3"; once more for each further image',
    )
    parser.add_argument(
        "--count",
        metavar="N",
        type=at_least(1),
        help="images of each (default: 1, or where nothing is asked for, 10 of each class)",
    )
    parser.add_argument(
        "--seed", metavar="N", type=at_least(0), default=0, help="another seed, other images (default: 0)"
    )
    out_option(parser, "generated.png")
    device_option(parser)


def run(args: Namespace) -> int:
    """Write the picture or the arrays. Raises UsageError for a condition that is not the model's."""
    record, model = open_run(args)
    entry = record.config["data"]
    standardisation = standardisation_in(entry)
    if isinstance(model.condition, Nothing):
        wanted = _anything(args)
    else:
        wanted = _classes(args, entry) if standardisation is None else _attributes(args, standardisation)
    count = args.count or (1 if args.classes or args.condition else ROWS // len(wanted))

    c = np.tile(np.concatenate([part.c for part in wanted]), (count, 1) if standardisation else count)
    images = model.generate(standardisation.apply(c) if standardisation else c, seed=args.seed)
    rows = images.reshape(count, -1, *model.image_shape)
    write(args.out or record.folder / "generated.png", {"x": images, "c": c}, "Generated images", _panels(wanted, rows))
    return 0


def measures(text: str) -> dict[str, float]:
    """The attributes in "slant=0.5, thickness=3", by name; the type of --condition."""
    values = {}
    for item in filter(None, map(str.strip, text.split(","))):
        key, _, value = (part.strip() for part in item.partition("="))
        name = key.casefold().replace("-", " ").replace("_", " ")
        if name not in ATTRIBUTES:
            near = suggestion(name, ATTRIBUTES)
            raise ArgumentTypeError(f"expected NAME=NUMBER with a name of {', '.join(ATTRIBUTES)}, got {item!r}{near}")
        try:
            values[name] = float(value)
        except ValueError:
            raise ArgumentTypeError(f"expected a number for {name}, got {value!r}") from None
        if not np.isfinite(values[name]):
            raise ArgumentTypeError(f"expected a finite number for {name}, got {value!r}")
    return values


def _anything(args: Namespace) -> list[Wanted]:
    """A column of images, from a model that has no condition."""
    if args.classes or args.condition:
        raise UsageError(f"argument --{'classes' if args.classes else 'condition'}: the model of {args.run} has none")
    return [Wanted([""], np.zeros(1, np.int64))]


def _classes(args: Namespace, entry: Mapping[str, Any]) -> list[Wanted]:
    """The classes asked for, or all that the model was trained on; says on stderr which others are among them."""
    if args.condition:
        raise UsageError(f"argument --condition: the model of {args.run} knows classes; use --classes")
    numbers = class_numbers(args.classes, entry["class_names"]) if args.classes else entry["classes"]
    names = in_brackets(entry["class_names"], entry["classes"])
    if untrained := dict.fromkeys(entry["class_names"][k] for k in numbers if k not in entry["classes"]):
        print(f"the model was not trained on these, what it draws is a guess: {', '.join(untrained)}", file=sys.stderr)
    return [Wanted([names[k] for k in numbers], np.array(numbers))]


def _attributes(args: Namespace, standardisation: Standardisation) -> list[Wanted]:
    """The attributes asked for, or for each of them a sweep; the others as on average."""
    if args.classes:
        raise UsageError(f"argument --classes: the model of {args.run} knows attributes; use --condition")
    average = dict(zip(ATTRIBUTES, standardisation.mean, strict=True))
    if args.condition:
        labels = [
            ", ".join(f"{name} {value:g}" for name, value in asked.items()) or "average" for asked in args.condition
        ]
        return [Wanted(labels, np.array([list((average | asked).values()) for asked in args.condition]))]
    wanted = []
    for name, mean, scale in zip(ATTRIBUTES, standardisation.mean, standardisation.scale, strict=True):
        values = mean + scale * SWEEP
        c = np.array([list((average | {name: value}).values()) for value in values])
        wanted.append(Wanted([f"{value:.3g}" for value in values], c, name))
    return wanted


def _panels(wanted: Sequence[Wanted], rows: np.ndarray) -> list[Panel]:
    """rows (count, k, h, w) with the k columns of all `wanted`, as panels of at most COLUMNS."""
    from minicvae.plots.figures import Panel

    count, k, h, w = rows.shape
    if k == 1:
        return [Panel(rows[:, 0], min(count, COLUMNS), column_title=wanted[0].labels[0])]
    panels, first = [], 0
    for part in wanted:
        for start in range(0, len(part.c), COLUMNS):
            labels = part.labels[start : start + COLUMNS]
            columns = slice(first + start, first + start + len(labels))
            tiles = rows[:, columns].reshape(-1, h, w)
            panels.append(Panel(tiles, len(labels), column_labels=labels, column_title=part.title))
        first += len(part.c)
    return panels
