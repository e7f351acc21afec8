"""What may happen beside the steps of training: watching, stopping early, keeping the best."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from minicvae.kernels import Array
from minicvae.objectives import Losses

if TYPE_CHECKING:
    from minicvae.models.cvae import ConditionalVAE
    from minicvae.training import History, Plan

__all__ = ["Callback", "EarlyStopping", "ProgressBar"]


class Callback:
    """The base of all callbacks: override what you need. `logs` holds the numbers of one epoch by name."""

    def on_train_begin(self, model: ConditionalVAE, plan: Plan) -> None:
        """Before the first step; `plan` says how many epochs and steps there will be."""

    def on_step_end(self, epoch: int, step: int, losses: Losses) -> None:
        """After each step; epoch and step count from 0."""

    def on_epoch_end(self, model: ConditionalVAE, epoch: int, logs: dict[str, float]) -> bool | None:
        """After each epoch and its validation. Return True to end the training here."""

    def on_train_end(self, model: ConditionalVAE, history: History) -> None:
        """After the last step, also where the training was stopped or broke off."""


class EarlyStopping(Callback):
    """Stop when `monitor` has not fallen by more than `min_delta` for `patience` epochs; keep the best weights.

    monitor: a name in the history, by default the validation loss in nats.
    """

    def __init__(self, patience: int = 3, *, monitor: str = "val_loss", min_delta: float = 0.0) -> None:
        if patience < 1:
            raise ValueError(f"patience: expected at least 1 epoch, got {patience!r}")
        self.patience, self.monitor, self.min_delta = patience, monitor, min_delta

    def on_train_begin(self, model: ConditionalVAE, plan: Plan) -> None:
        """Forget an earlier run."""
        self.best, self.best_epoch = math.inf, -1
        self._weights: Array = None

    def on_epoch_end(self, model: ConditionalVAE, epoch: int, logs: dict[str, float]) -> bool:
        """Keep the weights where this epoch is the best so far."""
        if self.monitor not in logs:
            raise ValueError(
                f"monitor: expected one of {', '.join(logs)}, got {self.monitor!r}"
                + (" (give `fit` validation_data)" if self.monitor.startswith("val_") else "")
            )
        if logs[self.monitor] < self.best - self.min_delta:
            self.best, self.best_epoch = logs[self.monitor], epoch
            self._weights = model.parameters.value.copy()
        return epoch - self.best_epoch >= self.patience

    def on_train_end(self, model: ConditionalVAE, history: History) -> None:
        """Put the best weights back."""
        if self._weights is not None:
            model.parameters.value[...] = self._weights


class ProgressBar(Callback):
    """A bar with the losses, images per second and the time left, and a line for every epoch that is done."""

    def on_train_begin(self, model: ConditionalVAE, plan: Plan) -> None:
        """Draw the empty bar."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._plan = plan
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[losses]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            refresh_per_second=5,
        )
        self._task = self._progress.add_task(
            "", total=plan.epochs * plan.steps, epoch=1, epochs=plan.epochs, losses="", rate=""
        )
        self._sums = [0.0, 0.0, 0.0]
        self._progress.start()

    def on_step_end(self, epoch: int, step: int, losses: Losses) -> None:
        """Move the bar; the losses shown are the epoch's mean so far."""
        self._sums = [total + value for total, value in zip(self._sums, losses, strict=True)]
        if (step + 1) % 20 == 0 or step + 1 == self._plan.steps:
            loss, reconstruction, kl = (total / (step + 1) for total in self._sums)
            speed = self._progress.tasks[0].speed
            self._progress.update(
                self._task,
                completed=epoch * self._plan.steps + step + 1,
                epoch=epoch + 1,
                losses=f"loss {loss:.2f} = {reconstruction:.2f} + KL {kl:.2f}",
                rate=f"{speed * self._plan.batch_size:,.0f} images/s" if speed else "",
            )

    def on_epoch_end(self, model: ConditionalVAE, epoch: int, logs: dict[str, float]) -> None:
        """Print the epoch's numbers above the bar."""
        self._sums = [0.0, 0.0, 0.0]
        names = ("loss", "reconstruction", "kl", "val_loss", "val_reconstruction", "val_kl")
        numbers = "  ".join(f"{name} {logs[name]:.2f}" for name in names if name in logs)
        digits = len(str(self._plan.epochs))
        self._progress.console.print(
            f"epoch {epoch + 1:{digits}}/{self._plan.epochs}  {numbers}  {logs['seconds']:.1f} s", highlight=False
        )

    def on_train_end(self, model: ConditionalVAE, history: History) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()


def active(callbacks: tuple[Any, ...], verbose: int) -> list[Callback]:
    """The callbacks of a run: the user's, and the bar where it is wanted. Raises TypeError for another thing."""
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"callbacks: expected Callback objects, got {type(callback).__name__}")
    return [*callbacks, ProgressBar()] if verbose else list(callbacks)
