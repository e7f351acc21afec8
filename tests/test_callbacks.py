"""Early stopping and the progress bar by themselves: when it stops, what it keeps, and what is shown."""

import io
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from minicvae.callbacks import Callback, EarlyStopping, ProgressBar, active, as_sum
from minicvae.kernels import load
from minicvae.models.adversarial import GameLosses
from minicvae.objectives import Losses
from minicvae.parameters import Parameter, Parameters
from minicvae.training import Plan

PLAN = Plan(epochs=12, steps=1, batch_size=1)


class Model:
    """As much of a model as a callback touches: one weight, which says in which epoch it was."""

    def __init__(self):
        self.kernels = load("numpy")
        self.parameters = Parameters([("w", Parameter((1,), "zeros"))], self.kernels, "float64")


def follow(stopping, losses, name="val_loss"):
    """(epochs that ran, the weight in the end) of a training with these losses."""
    model = Model()
    stopping.on_train_begin(model, PLAN)
    for epoch, loss in enumerate(losses):
        model.parameters["w"] = np.array([float(epoch)])
        if stopping.on_epoch_end(model, epoch, {name: loss}):
            break
    stopping.on_train_end(model, None)
    return epoch + 1, model.parameters["w"].item()


@given(losses=st.lists(st.integers(0, 5).map(float), min_size=1, max_size=12), patience=st.integers(1, 4))
def test_it_stops_when_patience_epochs_have_passed_since_the_best_and_keeps_that_one(losses, patience):
    epochs, weight = follow(EarlyStopping(patience), losses)
    seen = losses[:epochs]
    best = int(np.argmin(seen))  # the first of equals: no fall is no progress
    assert weight == best
    assert epochs == min(len(losses), best + 1 + patience) or epochs == len(losses)
    for earlier in range(1, epochs):
        assert earlier - 1 - int(np.argmin(losses[:earlier])) < patience


def test_a_fall_of_less_than_min_delta_is_no_progress():
    losses = [10.0, 9.95, 9.85, 9.82, 9.0]
    assert follow(EarlyStopping(2, min_delta=0.1), losses) == (5, 4)
    assert follow(EarlyStopping(1, min_delta=0.1), losses) == (2, 0)


def test_another_number_can_be_watched():
    assert follow(EarlyStopping(1, monitor="kl"), [3.0, 1.0, 2.0], "kl") == (3, 1)


def test_losses_that_are_no_numbers_are_never_the_best():
    assert follow(EarlyStopping(2), [5.0, math.nan, math.nan, 1.0]) == (3, 0)
    assert follow(EarlyStopping(2), [math.nan, math.nan, math.nan, 1.0]) == (2, 1)


def test_a_second_training_starts_afresh():
    stopping = EarlyStopping(1)
    assert follow(stopping, [1.0, 2.0]) == (2, 0)
    assert follow(stopping, [9.0, 8.0, 7.0]) == (3, 2)


def test_the_weights_that_are_kept_are_a_copy():
    model, stopping = Model(), EarlyStopping()
    stopping.on_train_begin(model, PLAN)
    stopping.on_epoch_end(model, 0, {"val_loss": 1.0})
    model.parameters.value[...] = 7
    stopping.on_train_end(model, None)
    assert model.parameters["w"] == 0


def test_before_the_first_epoch_there_is_nothing_to_put_back():
    model, stopping = Model(), EarlyStopping()
    stopping.on_train_begin(model, PLAN)
    model.parameters.value[...] = 7
    stopping.on_train_end(model, None)
    assert model.parameters["w"] == 7


@pytest.mark.parametrize("done", [0, 1, 2, 5])
def test_a_training_that_goes_on_takes_up_the_best_and_one_that_begins_forgets_it(done):
    model, before, after = Model(), EarlyStopping(3), EarlyStopping(3)
    before.on_train_begin(model, PLAN)
    for epoch, loss in enumerate([9.0, 5.5, 7.0]):
        model.parameters["w"] = np.array([float(epoch)])
        before.on_epoch_end(model, epoch, {"val_loss": loss})
    after.restore(before.state())
    after.on_train_begin(model, PLAN._replace(done=done))
    assert (after.best, after.best_epoch) == ((5.5, 1) if done else (math.inf, -1))
    model.parameters.value[...] = 7
    after.on_train_end(model, None)
    assert model.parameters["w"] == (1 if done else 7)


def test_a_number_that_is_not_there_is_asked_for():
    stopping = EarlyStopping()
    stopping.on_train_begin(Model(), PLAN)
    with pytest.raises(ValueError, match=r"^monitor: expected one of loss, kl, got 'val_loss' .*validation_data"):
        stopping.on_epoch_end(Model(), 0, {"loss": 1.0, "kl": 2.0})


@pytest.mark.parametrize("patience", [0, -1])
def test_a_patience_below_one_epoch_is_refused(patience):
    with pytest.raises(ValueError, match=f"^patience: expected a whole number of at least 1, got {patience}"):
        EarlyStopping(patience)


def test_the_base_does_nothing():
    callback = Callback()
    callback.on_train_begin(None, None)
    callback.on_step_end(0, 0, None)
    assert callback.on_epoch_end(None, 0, {}) is None
    callback.on_train_end(None, None)


def test_the_bar_is_the_last_of_the_callbacks_and_only_where_it_is_wanted():
    mine = Callback()
    assert active((mine,), verbose=0) == [mine]
    first, bar = active((mine,), verbose=1)
    assert first is mine
    assert isinstance(bar, ProgressBar)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patience": 2.5}, "patience: expected a whole number"),
        ({"min_delta": math.nan}, "min_delta: expected a number"),
        ({"monitor": None}, "monitor: expected a name"),
        ({"monitor": "val_los"}, r"^monitor: expected one of loss, .*val_loss, .*, got 'val_los'$"),
    ],
)
def test_early_stopping_refuses_what_it_cannot_use(settings, message):
    with pytest.raises((TypeError, ValueError), match=message):
        EarlyStopping(**settings)


@pytest.fixture
def bar(monkeypatch):
    """A bar, on a terminal or not, where `done` of three epochs of 45 steps are done; and what it writes."""

    def begin(terminal, done=1):
        written = io.StringIO()
        console = Console(file=written, force_terminal=terminal, width=100)
        monkeypatch.setattr("rich.progress.get_console", lambda: console)
        progress = ProgressBar()
        progress.on_train_begin(Model(), Plan(epochs=3, steps=45, batch_size=10, done=done))
        begun.append(progress)
        return progress, written

    begun = []
    yield begin
    for progress in begun:
        progress.on_train_end(None, None)


def plain(written):
    """The lines, without what moves the cursor and gives them colours."""
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.getvalue()))


def test_the_bar_moves_after_every_twenty_steps_and_the_last_and_shows_the_means_of_the_epoch_so_far(bar, monkeypatch):
    progress, written = bar(terminal=True)
    monkeypatch.setattr("rich.progress.Task.speed", 123.0)  # steps a second
    (task,) = progress._progress.tasks
    assert progress._progress.live.refresh_per_second == 5
    assert (task.completed, task.total, task.description, task.fields["numbers"]) == (45, 135, "epoch 2/3", "")
    for epoch, name in ((1, "epoch 2/3"), (2, "epoch 3/3")):
        for step in range(45):
            loss = float(100 * epoch + step)
            progress.on_step_end(epoch, step, GameLosses(loss, -1.0, 2 * loss, 7.0, 8.0))
            last = max(n for n in (0, 20, 40, 45) if n <= step + 1)
            assert task.completed == 45 * epoch + last
            if last:
                mean = 100 * epoch + (last - 1) / 2
                assert task.description == name
                assert task.fields["numbers"] == f"loss {mean:.2f}  KL {2 * mean:.2f}  1,230 images/s"
        numbers = {"loss": 3.5, "reconstruction": 3.0, "kl": 0.5, "seconds": 1.25}
        progress.on_epoch_end(None, epoch, numbers | ({"val_loss": 9.0} if epoch == 2 else {}))
    lines = [line.strip() for line in plain(written) if "=" in line]
    assert lines == [
        "epoch 2/3  loss 3.50 = 3.00 + KL 0.50  1.2 s",
        "epoch 3/3  loss 3.50 = 3.00 + KL 0.50  val 9.00  1.2 s",
    ]


@pytest.mark.parametrize("done", [0, 1, 2])
def test_the_bar_begins_where_the_training_does(bar, done):
    progress, _ = bar(terminal=True, done=done)
    (task,) = progress._progress.tasks
    assert (task.completed, task.total, task.description) == (45 * done, 135, f"epoch {done + 1}/3")


def test_a_loss_is_the_sum_that_it_is():
    assert as_sum(3.5, 3.0, 0.5) == as_sum(3.504, 3.0, 0.5) == "loss 3.50 = 3.00 + KL 0.50"
    assert as_sum(3.25, 3.0, 0.5) == "loss 3.25 = 3.00 + 0.25 (KL 0.50)"
    assert as_sum(3.75, 3.0, 0.5, fooling=0.7) == "loss 3.75 = 3.00 + 0.75 (KL 0.50)"


def test_a_bound_that_lies_below_the_reconstruction_is_a_difference():
    assert as_sum(2.25, 3.0, 0.5) == "loss 2.25 = 3.00 - 0.75 (KL 0.50)"


def test_the_bar_takes_what_its_numbers_leave_of_the_line(bar):
    progress, written = bar(terminal=True)
    progress.on_train_end(None, None)
    (drawn,) = {line for line in plain(written) if "left" in line}
    assert re.fullmatch(r"epoch 2/3 ━+[╸╺]?━+  +--:-- left", drawn)
    assert len(drawn) == 100


def test_where_there_is_no_terminal_there_is_no_bar(bar):
    progress, written = bar(terminal=False)
    for step in range(45):
        progress.on_step_end(1, step, Losses(1.0, 1.0, 0.0))
    assert progress._progress.tasks[0].completed == 45
    progress.on_train_end(None, None)
    assert written.getvalue() == ""
