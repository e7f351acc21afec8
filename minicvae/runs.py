"""The run folder: everything that a training leaves behind, written as it goes and read again later.

    config.json         how the run was made, with which versions, and how it ended
    metrics.csv         the losses and the like, one row an epoch
    model.safetensors   the model, enough to use it without the rest
    checkpoint.safetensors  the training itself, to go on with after its last whole epoch
    evaluation.json     what `minicvae evaluate` found, where it was asked to
    figures/            pictures

`minicvae generate` and `reconstruct` add a picture each. `config.json` always has `format`, `status` (one of
`STATUSES`), `preset` and `data`; what else is in it is up to who makes the run. All of it is brought up to date after
every epoch, so that a run which breaks off leaves its last whole epoch.
"""

from __future__ import annotations

import csv
import json
import os
import re
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from minicvae.callbacks import Callback
from minicvae.checkpoint import whole_file
from minicvae.model import CVAE, load

__all__ = ["STATUSES", "Recorder", "Run", "check_free", "next_free"]

FORMAT = "minicvae run 1"
REQUIRED = ("status", "preset", "data")
STATUSES = {
    "epochs": "finished",
    "until": "paused",
    "early": "stopped early",
    "interrupted": "interrupted",
    "error": "failed",
}
"""`History.stopped` -> what `config.json` calls it; before that it is "running"."""
OURS = re.compile(
    r"config\.json|metrics\.csv|(model|checkpoint)\.safetensors|evaluation\.json|(generated|reconstructed)\.png|"
    r"figures/(losses|generated|one_latent|many_latents|reconstructions|relabelled|walks|dimensions|neighbours|"
    r"posterior_means(_of_one)?|manifold(_\d+)?)\.png"
)
"""The files of a run, and no others: what a new run in the same folder may delete."""


class Run:
    """A run folder and the places in it. `create` makes a new one, `open` finds one that is there."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.config_file = self.folder / "config.json"
        self.metrics_file = self.folder / "metrics.csv"
        self.model_file = self.folder / "model.safetensors"
        self.checkpoint_file = self.folder / "checkpoint.safetensors"
        self.evaluation_file = self.folder / "evaluation.json"
        self.figures = self.folder / "figures"

    @classmethod
    def create(cls, folder: str | os.PathLike[str], *, overwrite: bool = False, **config: Any) -> Run:
        """A new run, with its folder and `config.json`. overwrite: take the place of an earlier run, and delete it.

        Raises FileExistsError as `check_free` does, OSError where the folder cannot be written.
        """
        check_free(folder, overwrite=overwrite)
        run = cls(folder)
        for file in [*run.folder.glob("*"), *run.figures.glob("*")]:
            if OURS.fullmatch(file.relative_to(run.folder).as_posix()):
                file.unlink()
        run.figures.mkdir(parents=True, exist_ok=True)
        run.config = {"format": FORMAT, "status": "running"}
        run.update(**config)
        return run

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Run:
        """The run in `folder`.

        Raises FileNotFoundError if there is no such folder, ValueError if it is no run's, or its `config.json` is
        damaged.
        """
        run = cls(folder)
        if not run.folder.exists():
            near = get_close_matches(run.folder.name, _names_in(run.folder.parent), n=1)
            hint = f"; did you mean {run.folder.parent / near[0]}?" if near else ""
            raise FileNotFoundError(f"there is no run folder {run.folder}{hint}")
        if not run.config_file.is_file():
            raise ValueError(f"{run.folder} is no run folder: it has no {run.config_file.name}")
        missing = [name for name in REQUIRED if name not in run.config]
        if run.config.get("format") != FORMAT or missing:
            lacks = f" with {', '.join(missing)}" if missing else ""
            raise ValueError(
                f"{run.config_file}: expected format {FORMAT!r}{lacks}, got {run.config.get('format')!r} "
                f"with {', '.join(run.config) or 'nothing'}"
            )
        return run

    @cached_property
    def config(self) -> dict[str, Any]:
        """What `config.json` says. Raises ValueError if it is no JSON object."""
        try:
            config = json.loads(self.config_file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{self.config_file} is damaged: {error}") from error
        if not isinstance(config, dict):
            raise ValueError(f"{self.config_file}: expected an object, got {type(config).__name__}")
        return config

    def update(self, **changes: Any) -> None:
        """Change or add entries of `config.json`, which is written anew, whole or not at all."""
        self.config |= changes
        with whole_file(self.config_file) as temporary:
            temporary.write_text(_as_json(self.config), encoding="utf-8")

    def history(self) -> dict[str, list[float]]:
        """The columns of `metrics.csv`, one number an epoch; empty where no epoch was finished.

        Raises ValueError if the file is damaged.
        """
        if not self.metrics_file.exists():
            return {}
        with self.metrics_file.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, strict=True))
        try:
            return {name: [float(row[name]) for row in rows] for name in (rows[0] if rows else ()) if name != "epoch"}
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.metrics_file} is damaged: {error}") from error

    def model(self, device: str = "cpu") -> CVAE:
        """The model, on `device`. Raises as `minicvae.load` does, and FileNotFoundError where none was saved yet."""
        if not self.model_file.exists():
            raise FileNotFoundError(f"{self.folder} holds no model; status of its training: {self.config['status']}")
        return load(self.model_file, device=device)


class Recorder(Callback):
    """Keeps a run folder up to date: after every epoch the model, a row in `metrics.csv`, and how far the run is.

    In this order, so that a row never speaks of a model that could not be written.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_epoch_end(self, model: Any, epoch: int, logs: dict[str, float]) -> None:
        """Put the model in the place of the last epoch's, add the row, and count the epoch and its seconds.

        Rows of this epoch or later ones, of a training that broke off and now goes on from earlier, make way.
        """
        run, row = self.run, {"epoch": epoch + 1, **logs}
        model.save(run.model_file)
        lines = run.metrics_file.read_bytes().splitlines(keepends=True) if run.metrics_file.exists() else []
        before = b"".join(lines[: epoch + 1])
        with whole_file(run.metrics_file) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            file.write(before.decode())
            writer = csv.DictWriter(file, row)
            if not before:
                writer.writeheader()
            writer.writerow(row)
        run.update(epochs_done=epoch + 1, seconds=run.config.get("seconds", 0.0) + logs.get("seconds", 0.0))


def check_free(folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Refuse a folder that a new run must not be written into: nobody's files are lost by mistake.

    A folder that is not there or is empty will do; one with a run, as `config.json` says, only with `overwrite`; one
    with anything else never.

    Raises
    ------
    FileExistsError
        Where the folder is not free.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file, not a folder for a run")
    holds = _names_in(folder)
    if holds and not _is_run(Run(folder)):
        raise FileExistsError(f"{folder} holds {sorted(holds)[0]} and no run; choose another folder")
    if holds and not overwrite:
        raise FileExistsError(
            f"{folder} already holds a run; choose another folder, or --overwrite it (in Python, overwrite=True)"
        )


def _is_run(run: Run) -> bool:
    try:
        return run.config_file.is_file() and run.config.get("format") == FORMAT
    except ValueError:
        return False


def last(parent: str | os.PathLike[str], name: str) -> Path | None:
    """parent/name-N with the highest number that is there; None for none."""
    numbers = [int(match[1]) for other in _names_in(parent) if (match := re.fullmatch(rf"{name}-(\d+)", other))]
    return Path(parent) / f"{name}-{max(numbers)}" if numbers else None


def next_free(parent: str | os.PathLike[str], name: str) -> Path:
    """parent/name-1, or the number after the highest that is there."""
    latest = last(parent, name)
    return Path(parent) / f"{name}-{int(latest.name.rpartition('-')[2]) + 1 if latest else 1}"


def _as_json(config: dict[str, Any]) -> str:
    """Indented JSON, but lists of plain values are on one line."""

    def on_one_line(items: re.Match[str]) -> str:
        return "[" + re.sub(r"\n *", " ", items[1]) + "]"

    text = json.dumps(config, indent=2, ensure_ascii=False)
    return re.sub(r"\[\n *([^][{}]*?)\n *\]", on_one_line, text) + "\n"


def _names_in(folder: str | os.PathLike[str]) -> list[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []
