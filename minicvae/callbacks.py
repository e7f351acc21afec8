"""What may happen beside the steps of training: watching, stopping early, keeping the best."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from minicvae.checks import not_negative, whole
from minicvae.kernels import Array
from minicvae.models.adversarial import GameLosses

if TYPE_CHECKING:
    from minicvae.models.base import Trainable
    from minicvae.objectives import Losses
    from minicvae.training import History, Plan

__all__ = ["Callback", "EarlyStopping", "ProgressBar", "as_sum"]

# What a history may hold: the losses of any model, those of the validation, and what the training was at.
LOSSES = GameLosses._fields
MONITORED = (*LOSSES, *(f"val_{name}" for name in LOSSES), "learning_rate", "beta", "seconds")


class Callback:
    """The base of all callbacks: override what you need. `logs` holds the numbers of one epoch by name."""

    def on_train_begin(self, model: Trainable, plan: Plan) -> None:
        """Before the first step; `plan` says how many epochs and steps there will be."""

    def on_step_end(self, epoch: int, step: int, losses: Losses | GameLosses) -> None:
        """After each step; epoch and step count from 0.

        The losses lie on the device, and `float` of one waits for it. On cuda, which is not waited for otherwise, steps
        may follow one whose loss is not finite: they change nothing, and the training ends with the epoch.
        """

    def on_epoch_end(self, model: Trainable, epoch: int, logs: dict[str, float]) -> bool | None:
        """After each epoch and its validation. Return True to end the training here."""

    def on_train_end(self, model: Trainable, history: History) -> None:
        """After the last step, also where the training was stopped or broke off."""

    def state(self) -> dict[str, Array]:
        """What has to be kept from epoch to epoch where a training goes on another time: arrays by name."""
        return {}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take up what `state` once gave, before `on_train_begin`."""


class EarlyStopping(Callback):
    """Stop when `monitor` has not fallen by more than `min_delta` for `patience` epochs; keep the best weights.

    monitor: a name in the history, by default the validation loss in nats.

    Raises ValueError for a patience below 1, a negative min_delta, or a name that no history has.
    """

    def __init__(self, patience: int = 3, *, monitor: str = "val_loss", min_delta: float = 0.0) -> None:
        whole("patience", patience)
        not_negative(min_delta=min_delta)
        if not isinstance(monitor, str):
            raise TypeError(f"monitor: expected a name in the history, got {monitor!r}")
        if monitor not in MONITORED:
            raise ValueError(f"monitor: expected one of {', '.join(MONITORED)}, got {monitor!r}")
        self.patience, self.monitor, self.min_delta = patience, monitor, min_delta

    def on_train_begin(self, model: Trainable, plan: Plan) -> None:
        """Forget an earlier run, unless this is where it goes on."""
        if plan.done == 0:
            self.best, self.best_epoch = math.inf, -1
            self._weights: Array = None

    def on_epoch_end(self, model: Trainable, epoch: int, logs: dict[str, float]) -> bool:
        """Keep the weights where this epoch is the best so far."""
        if self.monitor not in logs:
            raise ValueError(
                f"monitor: expected one of {', '.join(logs)}, got {self.monitor!r}"
                + ("" if any(name.startswith("val_") for name in logs) else " (give `fit` validation_data)")
            )
        if logs[self.monitor] < self.best - self.min_delta:
            self.best, self.best_epoch = logs[self.monitor], epoch
            self._weights = model.parameters.value.copy()
        return epoch - self.best_epoch >= self.patience

    def on_train_end(self, model: Trainable, history: History) -> None:
        """Put the best weights back."""
        if self._weights is not None:
            model.parameters.value[...] = model.kernels.array(self._weights)

    def state(self) -> dict[str, Array]:
        """The best loss, its epoch and its weights."""
        return {"best": np.array([self.best, self.best_epoch]), "weights": self._weights}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take them up again."""
        self.best, self.best_epoch = float(state["best"][0]), int(state["best"][1])
        self._weights = state["weights"]


class ProgressBar(Callback):
    """A bar with the loss, the KL, images per second and the time left, and a line for every epoch that is done.

    Where the output is no terminal there is no bar: only the lines, each written as soon as its epoch is done.
    """

    def on_train_begin(self, model: Trainable, plan: Plan) -> None:
        """Draw the empty bar."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._plan, self._kernels = plan, model.kernels
        self._shown = np.zeros(3)  # sums of loss, reconstruction and kl over the epoch's steps
        self._unread: list[Losses | GameLosses] = []  # which the device may not have come to yet
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),  # what the other columns leave of the line
            TextColumn("{task.fields[numbers]}", markup=False),
            TimeRemainingColumn(compact=True),
            TextColumn("left", markup=False),
            refresh_per_second=5,
            transient=True,
        )
        self._progress.disable = not (self._progress.console.is_terminal or self._progress.console.is_jupyter)
        done, total = plan.done * plan.steps, plan.epochs * plan.steps
        self._task = self._progress.add_task(self._epoch(plan.done), total=total, completed=done, numbers="")
        self._progress.start()

    def on_step_end(self, epoch: int, step: int, losses: Losses | GameLosses) -> None:
        """Move the bar; the losses shown are the mean of the epoch's steps so far."""
        if self._progress.disable:
            return
        self._unread.append(losses)
        if (step + 1) % 20 == 0 or step + 1 == self._plan.steps:
            self._shown += self._kernels.read(self._unread).sum(axis=0)[:3]
            self._unread.clear()
            loss, _, kl = self._shown / (step + 1)
            numbers = f"loss {loss:.2f}  KL {kl:.2f}"
            if speed := self._progress.tasks[0].speed:
                numbers += f"  {speed * self._plan.batch_size:,.0f} images/s"
            done = epoch * self._plan.steps + step + 1
            self._progress.update(self._task, completed=done, description=self._epoch(epoch), numbers=numbers)

    def on_epoch_end(self, model: Trainable, epoch: int, logs: dict[str, float]) -> None:
        """Print the epoch's numbers above the bar."""
        self._shown[:] = 0
        validation = f"  val {logs['val_loss']:.2f}" if "val_loss" in logs else ""
        losses = as_sum(logs["loss"], logs["reconstruction"], logs["kl"])
        print(f"{self._epoch(epoch)}  {losses}{validation}  {logs['seconds']:.1f} s", flush=True)

    def on_train_end(self, model: Trainable, history: History) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()

    def _epoch(self, epoch: int) -> str:
        return f"epoch {epoch + 1:{len(str(self._plan.epochs))}}/{self._plan.epochs}"


def as_sum(loss: float, reconstruction: float, kl: float, **apart: float) -> str:
    """The loss as the sum that it is: the KL counts in full, or what it costs comes first (beta, free bits).

    apart: losses that are no part of it, an adversary's for example; they are not shown.
    """
    cost = loss - reconstruction
    paid = f"KL {kl:.2f}" if abs(cost - kl) < 0.005 else f"{cost:.2f} (KL {kl:.2f})"
    return f"loss {loss:.2f} = {reconstruction:.2f} + {paid}".replace("+ -", "- ")  # below 0: importance weights


def active(callbacks: tuple[Any, ...], verbose: int) -> list[Callback]:
    """The callbacks of a run: the user's, and the bar where it is wanted. Raises TypeError for another thing."""
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"callbacks: expected Callback objects, got {type(callback).__name__}")
    return [*callbacks, ProgressBar()] if verbose else list(callbacks)
