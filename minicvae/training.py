"""The training loop: gather a batch, run the straight line forward and back, update; then validate.

Steps are a pure function of (data, settings, seed): the shuffle comes from (seed, epoch), the noise from (seed, epoch,
step). So the same seed gives the same weights, bit for bit on one device.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from math import isfinite
from numbers import Real
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

from minicvae import callbacks as cb
from minicvae import conditions, optimizers
from minicvae.checks import whole
from minicvae.description import describe
from minicvae.evaluate import evaluate, weighted_mean
from minicvae.kernels import Array, OneHot
from minicvae.kernels.reference import Part
from minicvae.kernels.steps import in_turn
from minicvae.layers import trace
from minicvae.models.adversarial import GameLosses
from minicvae.models.base import Trainable, of_the_library
from minicvae.objectives import Losses
from minicvae.randomness import Purpose, check_seed, generator
from minicvae.schedules import Schedule, as_schedule
from minicvae.snapshot import Snapshot

__all__ = ["History", "NonFiniteError", "Plan", "fit"]


class Plan(NamedTuple):
    """How long a training will be: epochs, steps in each, images in a step; and how many epochs are done already."""

    epochs: int
    steps: int
    batch_size: int
    done: int = 0


@dataclass
class History:
    """What happened in a training.

    history: name -> one number an epoch. loss, reconstruction, kl (means over the epoch's steps, nats per example),
    the same with `val_` where there is validation data, learning_rate and beta (of the last step), seconds.
    stopped: why it ended: "epochs" (all done), "until" (as many as were asked for, to go on another time), "early" (a
    callback's wish), "interrupted" (Ctrl-C) or "error".
    """

    history: dict[str, list[float]] = field(default_factory=dict)
    stopped: str = "error"

    def append(self, logs: dict[str, float]) -> None:
        """Add an epoch's numbers."""
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)

    @property
    def epochs(self) -> int:
        """How many epochs are complete."""
        return len(self.history.get("loss", []))


class NonFiniteError(ArithmeticError):
    """The loss became NaN or infinite; the message names the epoch, the step and the first tensor that went wrong."""


def fit(
    model: Trainable,
    x: Any,
    c: Any,
    *,
    validation_data: tuple[Any, Any] | None = None,
    epochs: int = 10,
    batch_size: int = 128,
    learning_rate: float | Schedule = 1e-3,
    optimizer: str | optimizers.Optimizer = "adam",
    beta: float | Schedule | None = None,
    binarise: bool = False,
    clip_norm: float | None = None,
    early_stopping: int | cb.EarlyStopping | None = None,
    callbacks: Sequence[cb.Callback] = (),
    seed: int = 0,
    verbose: int = 1,
    history: History | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    until: int | None = None,
) -> History:
    """Train `model` on images x and conditions c, in place.

    x: (n, d), (n, h, w) or (n, h, w, 1), uint8 in 0..255 or floats in [0, 1]; uint8 stays uint8 until its batch.
    c: one condition for each image, as the model's condition takes them.
    validation_data: (x, c), evaluated after every epoch.
    learning_rate, beta: a number, or a schedule over the training (`minicvae.schedules`); beta anneals the KL's
    weight, None leaves it to the objective.
    binarise: draw every pixel of x black or white, anew at each epoch, white with its grey level as the probability.
    validation_data is left as it is: `datasets.binarise` draws it once.
    clip_norm: rescale the gradient where its global norm is above this.
    early_stopping: patience in epochs on the validation loss, or an `EarlyStopping`; puts the best weights back.
    history: an empty `History` to fill, for who wants to read it although the training broke off.
    checkpoint: a file that is brought up to date after every epoch, whole or not at all; where it is there already, the
    training goes on from it, with the same arguments as before, to the same bits as if it had never been stopped.
    until: stop after so many of the epochs; with a checkpoint the same call goes on another time.

    Ctrl-C ends after the step or the validation at hand: the callbacks' `on_train_end` runs, the weights are those of
    that step (with early stopping those of the best epoch), and KeyboardInterrupt goes on to the caller.

    Raises
    ------
    ValueError, TypeError
        For a wrong argument, before anything is trained.
    NonFiniteError
        When the loss stops being a number; the weights are those that gave it, no step is made from there.
    KeyboardInterrupt
        After Ctrl-C, as above.
    """
    images, parts = model.check_data(x, c)
    epochs, batch_size = whole("epochs", epochs), whole("batch_size", batch_size)
    seed = check_seed(seed)
    rate = as_schedule("learning_rate", learning_rate)
    weight = as_schedule("beta", model.objective.beta if beta is None else beta)
    if clip_norm is not None and (isinstance(clip_norm, bool) or not (isinstance(clip_norm, Real) and clip_norm > 0)):
        raise ValueError(f"clip_norm: expected a positive number or None, got {clip_norm!r}")
    if not isinstance(binarise, bool):
        raise TypeError(f"binarise: expected True or False, got {binarise!r}")
    if validation_data is not None:
        model.check_data(*_check_pair(validation_data), "validation_data[0]", "validation_data[1]")
    watchers = _watchers(callbacks, early_stopping, validation_data is not None, verbose)
    until = epochs if until is None else min(whole("until", until), epochs)

    kernels, parameters = model.kernels, model.parameters
    n, steps = len(images), -(-len(images) // batch_size)
    images, sizes = kernels.array(images), [min(batch_size, n - start) for start in range(0, n, batch_size)]
    optimizer = optimizers.get(optimizer)
    update = model.start(optimizer)
    history = History() if history is None else history
    if not isinstance(history, History):
        raise TypeError(f"history: expected an empty History, got {history!r}")
    snapshot, ended = None, "error"
    if checkpoint is not None:
        settings = {
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": rate,
            "optimizer": optimizer,
            "objective": model.objective,
            "beta": weight,
            "binarise": binarise,
            "clip_norm": clip_norm,
            "seed": seed,
            "images": n,
            "parameters": {name: value.shape for name, value in parameters.items()},
        }
        snapshot = Snapshot(checkpoint, describe(settings), model, update, watchers)
        ended = snapshot.restore(history) or ended
    done = history.epochs if snapshot else 0
    for watcher in watchers:
        watcher.on_train_begin(model, Plan(epochs, steps, batch_size, done))

    def losses_of_step(weight: float | Array, *drawn: Array) -> Losses | GameLosses:
        """Forward and backward on what was drawn for a step; the gradients are then in the parameters."""
        batch = _batch(model, images, parts, *drawn)
        parameters.zero_grad()
        losses, backward = model.loss_and_backward(*batch, weight)
        if not kernels.goes_on(losses):
            raise NonFiniteError(_first_non_finite(model, *batch, epoch, step, losses))
        backward()
        parameters.settle()
        return losses

    def descend(rate: float | Array) -> None:
        """A step of the optimiser by the gradients that are in the parameters."""
        parameters.mark_settled()  # a step that is played back has not run the layers, which say so
        if clip_norm is not None:
            optimizers.clip_by_global_norm(parameters, kernels, clip_norm)
        update(rate)

    repeated = _Repeated(model, losses_of_step, descend, of_the_library(optimizer))
    foreign = not all(map(of_the_library, watchers))  # a callback of the user's may change the model after any step
    try:
        with _interruptible() as interrupted:
            for epoch in range(done, done if ended == "early" else until):
                begin, record = time.perf_counter(), []
                for step, drawn in enumerate(_draws(model, sizes, seed, epoch, binarise)):
                    progress = (epoch * steps + step) / (epochs * steps)
                    if step == 0 or foreign:
                        make_step = repeated.by_now()
                    kernels.begin_step()
                    losses = make_step(float(rate(progress)), float(weight(progress)), *drawn)
                    parameters.mark_settled()  # and one that is a graph has not even run `descend`
                    record.append(losses)
                    for watcher in watchers:
                        watcher.on_step_end(epoch, step, losses)
                    if interrupted.is_set():
                        history.stopped = "interrupted"
                        raise KeyboardInterrupt
                found = kernels.read(record)  # waits for a device that has not come to the last step yet
                if not np.isfinite(found).all():
                    step = int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])
                    drawn = next(islice(_draws(model, sizes, seed, epoch, binarise), step, None))
                    batch = _batch(model, images, parts, *drawn)
                    raise NonFiniteError(_first_non_finite(model, *batch, epoch, step, type(losses)(*found[step])))
                kernels.end_steps()
                logs = dict(zip(losses._fields, weighted_mean(found, sizes), strict=True))
                if validation_data is not None:
                    values = evaluate(model, *validation_data)
                    logs |= {f"val_{name}": value for name, value in values.items()}
                for name, value in logs.items():
                    if not isfinite(value):  # what the last update has done shows only now
                        raise NonFiniteError(f"epoch {epoch + 1}: {name} is {value} after the last step")
                logs |= {
                    "learning_rate": rate(progress),
                    "beta": weight(progress),
                    "seconds": time.perf_counter() - begin,
                }
                history.append(logs)
                wishes = [watcher.on_epoch_end(model, epoch, logs) for watcher in watchers]
                ended = "early" if any(wishes) else "epochs" if epoch + 1 == epochs else "until"
                if snapshot:
                    snapshot.save(history, ended)
                if interrupted.is_set():  # while validating
                    history.stopped = "interrupted"
                    raise KeyboardInterrupt
                if ended == "early":
                    break
        history.stopped = ended
    finally:
        kernels.end_steps()
        for watcher in watchers:
            watcher.on_train_end(model, history)
    return history


def _watchers(
    callbacks: Sequence[cb.Callback], early_stopping: int | cb.EarlyStopping | None, validated: bool, verbose: int
) -> list[cb.Callback]:
    """The callbacks of a training, early stopping and the progress shown among them."""
    if isinstance(early_stopping, int) and not isinstance(early_stopping, bool):
        early_stopping = cb.EarlyStopping(early_stopping)
    if not (early_stopping is None or isinstance(early_stopping, cb.EarlyStopping)):
        raise TypeError(f"early_stopping: expected epochs or an EarlyStopping, got {early_stopping!r}")
    if early_stopping and not validated and early_stopping.monitor.startswith("val_"):
        raise ValueError(
            f"early_stopping: expected validation_data, without which there is no {early_stopping.monitor}"
        )
    if not isinstance(callbacks, (list, tuple)):
        raise TypeError(f"callbacks: expected a list of Callback objects, got {callbacks!r}")
    return cb.active((*callbacks, *([early_stopping] if early_stopping else [])), verbose)


class _Repeated:
    """A step on the model, `run` and `then`, as the device repeats it: anew where the model is another than before.

    then_too: whether the device may record `then`.
    """

    def __init__(self, model: Trainable, run: Callable[..., Any], then: Callable[[Any], None], then_too: bool) -> None:
        self._model, self._step, self._then_too = model, (run, then), then_too
        self._held: list[Any] = []
        self._repeated = in_turn(run, then)

    def by_now(self) -> Callable[..., Any]:
        """What repeats the steps of the model as it is."""
        held = self._model.at_work()
        if len(held) != len(self._held) or any(one is not other for one, other in zip(held, self._held, strict=True)):
            self._held = held
            repeated = self._model.kernels.repeated
            self._repeated = repeated(*self._step, self._then_too) if self._model.recordable else in_turn(*self._step)
        return self._repeated


def _draws(
    model: Trainable, sizes: Sequence[int], seed: int, epoch: int, binarise: bool
) -> Iterator[tuple[Array, ...]]:
    """What is drawn for each step of an epoch: places of images, (n,); noise eps (S, n, l); with `binarise`, (n, d).

    All a function of (seed, epoch), drawn on the host, and on the device ahead of the steps.
    """
    kernels, steps = model.kernels, list(enumerate(sizes))
    order, start = kernels.array(generator(seed, Purpose.SHUFFLE, epoch).permutation(sum(sizes))), 0
    noise = kernels.feed(model.noise(size, seed, Purpose.TRAIN, epoch, step) for step, size in steps)
    # Epochs from 1 on, for `datasets.binarise` has the stream of epoch 0.
    rngs = (generator(seed, Purpose.SAMPLE_PIXELS, epoch + 1, step) for step, _ in steps)
    uniform = kernels.feed(rng.random((size, model.data_dim)) for rng, size in zip(rngs, sizes, strict=True))
    for size, eps in zip(sizes, noise, strict=True):
        yield (order[start : start + size], eps, *([next(uniform)] if binarise else []))
        start += size


def _batch(
    model: Trainable, images: Array, parts: tuple[Part, ...], index: Array, eps: Array, u: Array | None = None
) -> tuple[Array, tuple[Part, ...], Array]:
    """x (n, d), the condition and the noise of a step; with u (n, d) in [0, 1), pixels are white where u is below."""
    x = model.kernels.gather(images, index, model.dtype)
    if u is not None:
        x = (u < x).astype(model.dtype)
    return x, conditions.gather(model.kernels, parts, index), eps


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, so that a step is never torn apart; a second Ctrl-C interrupts at once."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return
    before = signal.getsignal(signal.SIGINT)

    def press(number: int, frame: FrameType | None) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _first_non_finite(
    model: Trainable,
    x: Array,
    c: tuple[Part, ...],
    eps: Array,
    epoch: int,
    step: int,
    losses: Losses | GameLosses,
) -> str:
    """Run the forward once more with every layer recorded, and name the first tensor that holds NaN or infinity."""

    def broken(values: Array) -> bool:
        return not bool(model.kernels.xp.isfinite(values).all())

    where = f"epoch {epoch + 1}, step {step + 1}: the loss is {losses.loss}"
    hint = "try a lower learning_rate, clip_norm=, or dtype='float64'"
    with trace(*model.networks) as record:
        model.loss_and_backward(x, c, eps)
    for entry in record:
        # What goes in is what came out of the layer before, but for z, which is drawn between the networks.
        if any(broken(values) for values in entry.inputs if not isinstance(values, OneHot)):
            drawn = ", z = mean + exp(log_var / 2) eps" if entry.name.startswith(("decoder", "generation")) else ""
            return f"{where}; the first tensor that is not finite is the input of {entry.name}{drawn}; {hint}"
        for name, parameter in entry.layer.named_parameters(entry.name):
            if broken(parameter.value):
                return f"{where}; the first tensor that is not finite is the parameter {name}; {hint}"
        if broken(entry.output):
            size = float(np.nanmax(np.abs(model.kernels.to_numpy(entry.inputs[0])))) if entry.inputs else 0.0
            return (
                f"{where}; the first tensor that is not finite is the output of {entry.name} "
                f"({type(entry.layer).__name__}; its inputs reach {size:.3g}); {hint}"
            )
    reach = max(float(abs(entry.output).max()) for entry in record)
    terms = f"reconstruction {losses.reconstruction} + KL {losses.kl}"
    return f"{where} = {terms}, though every layer's output is finite ({reach:.3g}): the loss itself overflows; {hint}"


def _check_pair(validation_data: Any) -> tuple[Any, Any]:
    if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
        raise TypeError(f"validation_data: expected a pair (x, c), got {type(validation_data).__name__}")
    return validation_data[0], validation_data[1]
