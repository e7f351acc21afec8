"""What several commands do: open the model of a run, say when one is compiled, draw pictures, write what was asked."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minicvae.checkpoint import whole_file
from minicvae.cli.data import Data, check_entry
from minicvae.kernels import load
from minicvae.model import CVAE
from minicvae.runs import Run

if TYPE_CHECKING:
    from minicvae.plots.figures import Panel

__all__ = ["announce_compilation", "draw", "open_run", "write"]


def open_run(args: Namespace) -> tuple[Run, CVAE]:
    """The run that `args.run` names, and its model on `args.device`.

    Raises FileNotFoundError or ValueError if there is none, RuntimeError if the device is not there.
    """
    run = Run.open(args.run)
    check_entry(run)
    announce_compilation(args.device)
    return run, run.model(args.device)


def draw(run: Run, model: CVAE, data: Data, seed: int = 0) -> list[Path]:
    """Every picture that suits the model, into the run's folder for figures."""
    from minicvae.plots import draw_all

    return draw_all(
        model,
        *data.pair(data.test),
        run.figures,
        history=run.history() or None,
        validation="held-out images" if data.held_out else "test images",
        training=data.pair(data.train)[0],
        label=data.shown[0] if data.standardisation is None else None,
        names=data.names,
        seed=seed,
    )


def write(file: Path, arrays: Mapping[str, Any], title: str, panels: Sequence[Panel]) -> None:
    """The arrays where the file's name ends in .npz, else a picture of the panels; and print where it is."""
    from minicvae.plots.figures import save, sheet

    if file.suffix == ".npz":
        with whole_file(file) as temporary:
            np.savez_compressed(temporary, **arrays)
    else:
        save(sheet(title, panels), file)
    print(file)


@cache
def announce_compilation(device: str) -> None:
    """Have a line on stderr when kernels are compiled, on cuda before, so that nobody takes the wait for a hang."""
    if device == "cuda":
        load(device)  # or say that it is not there
        sentence = "kernels that CuPy has not kept from before are compiled first, up to half a minute ..."
        print(sentence, file=sys.stderr, flush=True)
    if device != "cpu":
        return
    from numba.core import event

    class Announcement(event.Listener):
        said = False

        def on_start(self, event: object) -> None:
            if not self.said:
                sentence = "compiling kernels that this machine has not needed before, up to half a minute ..."
                print(sentence, file=sys.stderr, flush=True)
            self.said = True

        def on_end(self, event: object) -> None:
            pass

    event.register("numba:compile", Announcement())
