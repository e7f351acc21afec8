"""The images of a run and what they are conditioned on: from `--data` and its companions, or from the run's config."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minicvae.cli.parser import suggestion
from minicvae.datasets import ATTRIBUTES, NAMES, Dataset, Standardisation, attributes, binarise, load
from minicvae.runs import Run

__all__ = [
    "HELD_OUT",
    "PIXELS",
    "Data",
    "Split",
    "check_entry",
    "class_numbers",
    "in_brackets",
    "labelled",
    "prepare",
    "recorded",
    "rows",
    "standardisation_in",
]

HELD_OUT = 6  # one in so many of the training images, from the end: the last 10,000 of MNIST's 60,000
MOST_CLASSES = 1000  # a label above that is taken for a mistake in the data
ENTRY = {"source": str, "training_images": int, "held_out_images": int, "class_names": list, "classes": list}
PIXELS = ("grey", "static", "dynamic")


@dataclasses.dataclass(frozen=True, eq=False)
class Split(Dataset):
    """Images of a data set, which are measured when that is first asked for.

    binary: the same in black and white, where a model is to see them so.
    """

    binary: NDArray[np.uint8] | None = None

    @cached_property
    def measures(self) -> np.ndarray:
        """`minicvae.datasets.attributes` of the images, (n, 5)."""
        return attributes(self.x)


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set as a run uses it.

    held_out: training images kept back for validation. pixels: "grey"; "static", black or white, drawn once; "dynamic",
    drawn anew at each epoch of the training, and once for all else. class_names: what the labels 0, 1, ... are called;
    shown: those labels that are in use. standardisation: of the attributes, where they are the condition.
    """

    source: str
    train: Split
    held_out: Split | None
    test: Split
    pixels: str
    shown: tuple[int, ...]
    class_names: tuple[str, ...]
    standardisation: Standardisation | None

    def condition(self, split: Split) -> np.ndarray:
        """What a model of this run is given beside the images: labels (n,), or attributes (n, 5), standardised."""
        return split.y if self.standardisation is None else self.standardisation.apply(split.measures)

    def pair(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """(x, c), as the methods of a model take them."""
        return (split.x if split.binary is None else split.binary), self.condition(split)

    def training_pair(self) -> tuple[np.ndarray, np.ndarray]:
        """(x, c) for `fit`, which itself draws pixels that are dynamic."""
        return (self.train.x, self.condition(self.train)) if self.pixels == "dynamic" else self.pair(self.train)

    @property
    def names(self) -> tuple[str, ...]:
        """What pictures call the classes, in brackets where they are not in use; or the numbers of the condition."""
        if self.standardisation is not None:
            return ATTRIBUTES
        return in_brackets(self.class_names, self.shown)

    def describe(self) -> dict[str, Any]:
        """The entry `data` of a run's config, from which `recorded` makes the same again."""
        entry: dict[str, Any] = {
            "source": self.source,
            "training_images": len(self.train),
            "held_out_images": len(self.held_out) if self.held_out else 0,
            "test_images": len(self.test),
            "pixels": self.pixels,
            "class_names": self.class_names,
            "classes": self.shown,
        }
        if self.standardisation is not None:
            entry["attributes"] = {"names": ATTRIBUTES, **dataclasses.asdict(self.standardisation)}
        return entry


def prepare(
    source: str,
    *,
    only_classes: Sequence[str] = (),
    limit: int | None = None,
    held_out: bool = False,
    measured: bool = False,
    pixels: str = "grey",
) -> Data:
    """The data of a new run.

    source: a data set's name, a folder of IDX files or an .npz file. only_classes: the names or numbers of the classes
    to use, in training and test alike; none for all that there are training images of: which others there would be is
    said on stderr. held_out: keep one in `HELD_OUT` training images back. limit:
    train on the first so many of the others. measured: the condition is the images' attributes, standardised on those
    that are trained on. pixels: as in `Data`.

    Raises FileNotFoundError, ValueError or OSError as `minicvae.datasets.load` does, and ValueError for classes that
    there are not, labels that are none, or where too few images are left.
    """
    place, (train, test) = _load(source)
    names = _names(train, test)
    shown = tuple(sorted(set(class_numbers(only_classes, names)))) if only_classes else tuple(range(len(names)))
    kept = int(np.isin(train.y, shown).sum()) // HELD_OUT if held_out else None
    data = _split(place, train, test, pixels, shown, names, kept, limit)
    if not measured:
        return _trained(data)
    return dataclasses.replace(data, standardisation=Standardisation.fit(data.train.measures))


def recorded(entry: Mapping[str, Any], source: str | None = None) -> Data:
    """The data of an earlier run, from the entry `data` of its config; or other data, as that run's model takes them.

    Raises what `prepare` raises.
    """
    place, (train, test) = _load(source or entry["source"])
    names, shown = tuple(entry["class_names"]), tuple(entry["classes"])
    kept, limit = entry["held_out_images"] or None, entry["training_images"]
    standardisation = standardisation_in(entry)
    if source is not None:
        names = names if standardisation is None else _names(train, test)
        shown, kept, limit = tuple(range(len(names))), None, None
    data = _split(place, train, test, entry.get("pixels", "grey"), shown, names, kept, limit)
    return dataclasses.replace(data, standardisation=standardisation)


def check_entry(run: Run) -> None:
    """Raise ValueError unless the entry `data` of the run's config has all that `Data.describe` writes."""
    entry = run.config["data"] if isinstance(run.config["data"], dict) else {}
    wrong = [name for name, kind in ENTRY.items() if not isinstance(entry.get(name), kind)]
    if not wrong and any(k not in range(len(entry["class_names"])) for k in entry["classes"]):
        wrong = ["classes"]
    if entry.get("pixels", "grey") not in PIXELS:
        wrong.append("pixels")
    if "attributes" in entry and not _is_standardisation(entry["attributes"]):
        wrong.append("attributes")
    if wrong:
        raise ValueError(f"{run.config_file}: data: missing or not as `minicvae train` writes it: {', '.join(wrong)}")


def _is_standardisation(measured: Any) -> bool:
    columns = [measured.get(name) if isinstance(measured, dict) else None for name in ("mean", "scale")]
    return all(
        isinstance(column, list)
        and len(column) == len(ATTRIBUTES)
        and all(isinstance(value, (int, float)) for value in column)
        for column in columns
    )


def standardisation_in(entry: Mapping[str, Any]) -> Standardisation | None:
    """That of the attributes, from the entry `data` of a run's config; None for a model of classes."""
    measured = entry.get("attributes")
    return measured and Standardisation(tuple(measured["mean"]), tuple(measured["scale"]))


def in_brackets(names: Sequence[str], shown: Sequence[int]) -> tuple[str, ...]:
    """The names of all classes, in brackets where they are not among those that are `shown`."""
    return tuple(name if k in shown else f"({name})" for k, name in enumerate(names))


def labelled(source: str) -> Dataset:
    """All training images of a data set, with their labels. Raises as `prepare` does."""
    return _load(source)[1][0]


def class_numbers(words: Sequence[str], names: Sequence[str]) -> list[int]:
    """The labels that are meant, each by its class's name (in any case) or its number. Raises ValueError for others."""
    known = {str(k): k for k in range(len(names))} | {name.casefold(): k for k, name in enumerate(names)}
    for word in words:
        if word.casefold() not in known:
            near = "" if word.lstrip("-").isdigit() else suggestion(word.casefold(), known)
            raise ValueError(f"classes: there is no class {word!r}; expected {', '.join(names)}{near}")
    return [known[word.casefold()] for word in words]


def _load(source: str) -> tuple[str, tuple[Dataset, Dataset]]:
    """The data set's name or the whole path of its files, and (train, test)."""
    if source in NAMES:
        return source, load(source)
    place = Path(source)
    if not place.exists():
        raise FileNotFoundError(
            f"data: there is no {source!r}; expected {', '.join(NAMES)}, a folder of four IDX files or an .npz file"
            f"{suggestion(source, NAMES)}"
        )
    return str(place.resolve()), load(folder=place)


def _names(train: Dataset, test: Dataset) -> tuple[str, ...]:
    """What the labels 0, 1, ... are called: their numbers, up to the highest, where the data set has no names."""
    if train.class_names:
        return train.class_names
    ends = [int(end) for y in (train.y, test.y) for end in (y.min(), y.max())]
    for label in ends:
        if not 0 <= label < MOST_CLASSES:
            raise ValueError(f"data: expected labels 0 to {MOST_CLASSES - 1}, got {label}")
    return tuple(map(str, range(1 + max(ends))))


def _trained(data: Data) -> Data:
    """Without the classes that no training image is of; says on stderr which these are."""
    trained = set(data.train.y.tolist())
    without = [data.class_names[k] for k in data.shown if k not in trained]
    if not without:
        return data
    listed = shorten(", ".join(without), 60, placeholder=" ...")
    print(
        f"left out {len(without)} of {len(data.shown)} classes, for want of training images: {listed}",
        file=sys.stderr,
    )
    shown = tuple(k for k in data.shown if k in trained)
    held_out, test = data.held_out, data.test
    return dataclasses.replace(
        data,
        held_out=held_out and _seen(_only(held_out, shown), data.pixels),
        test=_seen(_only(test, shown), data.pixels),
        shown=shown,
    )


def _split(
    place: str,
    train: Dataset,
    test: Dataset,
    pixels: str,
    shown: tuple[int, ...],
    names: tuple[str, ...],
    held_out: int | None,
    limit: int | None,
) -> Data:
    """Only the classes that are shown; the last `held_out` training images apart; the first `limit` of the rest."""
    if len(shown) < len(names):
        train, test = _only(train, shown), _only(test, shown)
    kept = None
    if held_out is not None:
        train, kept = train.hold_out(held_out)
    return Data(
        source=place,
        train=_seen(train, pixels, limit),
        held_out=_seen(kept, pixels) if kept else None,
        test=_seen(test, pixels),
        pixels=pixels,
        shown=shown,
        class_names=names,
        standardisation=None,
    )


def _only(part: Dataset, shown: Sequence[int]) -> Dataset:
    """The examples of the classes that are shown. Raises ValueError where there are none."""
    used = np.isin(part.y, shown)
    if not used.any():
        raise ValueError("data: expected training and test images of the classes in use, got none of one or the other")
    return Dataset(part.x[used], part.y[used], part.class_names)


def _seen(part: Dataset, pixels: str, limit: int | None = None) -> Split:
    """The first `limit` examples, with their pixels as a model is to see them."""
    x = part.x[:limit]
    return Split(x, part.y[:limit], part.class_names, None if pixels == "grey" else binarise(x))


def rows(split: Split, rows: Any) -> Split:
    """The examples split[rows]."""
    binary = None if split.binary is None else split.binary[rows]
    return Split(split.x[rows], split.y[rows], split.class_names, binary)
