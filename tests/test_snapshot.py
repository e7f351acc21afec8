"""A training that is stopped, anywhere and in any way, and goes on to the same bits as one that is not."""

import os

import numpy as np
import pytest

import minicvae as mc
from minicvae import checkpoint
from minicvae.callbacks import Callback, EarlyStopping
from minicvae.conditions import Classes
from minicvae.objectives import ELBO, IWAE
from minicvae.optimizers import SGD, Adam, AdamW
from minicvae.schedules import Cosine, Cyclical, Tripling
from minicvae.training import History, NonFiniteError

SIDE, EPOCHS = 4, 5
SETTINGS = {"epochs": EPOCHS, "batch_size": 7, "verbose": 0, "learning_rate": 0.05}
VARIETIES = {
    "adam": {},
    "sgd": {"optimizer": SGD(momentum=0.9, nesterov=True)},
    "adamw": {"optimizer": AdamW(epsilon=1e-4), "clip_norm": 1.0},
    "schedules": {"learning_rate": Tripling(0.05, 3), "beta": Cyclical()},
    "dynamic pixels": {"binarise": True, "learning_rate": Cosine(0.1)},
}


def digits(n=24, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, SIDE, SIDE), np.uint8), rng.integers(0, 10, n)


def small(device="cpu", preset="mlp", **overrides):
    sizes = {"image_shape": (SIDE, SIDE), "encoder_widths": (8,), "decoder_widths": (8,), "latent_dim": 2}
    return mc.build(preset, device=device, **sizes | overrides)


def bits(model):
    return model.kernels.to_numpy(model.parameters.value).tobytes()


def numbers(history):
    return {name: column for name, column in history.history.items() if name != "seconds"}


class At(Callback):
    """Does something once a step is done."""

    def __init__(self, place, action):
        self.place, self.action = place, action

    def on_step_end(self, epoch, step, losses):
        if (epoch, step) == self.place:
            self.action()


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("variety", VARIETIES)
def test_it_goes_on_to_the_same_bits(device, tmp_path, variety):
    settings = SETTINGS | VARIETIES[variety]
    whole = small(device)
    expected = whole.fit(*digits(), **settings)
    stops = []
    for until in (1, 3, EPOCHS):
        model = small(device, seed=until)  # what it starts with does not matter: all is in the file
        if until == 1:
            model = small(device)
        history = model.fit(*digits(), **settings, checkpoint=tmp_path / "file", until=until)
        stops.append((history.stopped, history.epochs))
    assert stops == [("until", 1), ("until", 3), ("epochs", EPOCHS)]
    assert bits(model) == bits(whole)
    assert numbers(history) == numbers(expected)


@pytest.mark.parametrize(
    "overrides",
    [
        {"preset": "adversarial"},
        {"preset": "iwae-conditional", "objective": IWAE(4)},
        {"preset": "iwae", "objective": ELBO(samples=3)},
        {"preset": "conv", "encoder_widths": (3,), "decoder_widths": (2,)},
        {"condition": Classes(10, 3), "dtype": "float64"},
    ],
)
def test_every_kind_of_model_goes_on(tmp_path, overrides):
    whole, model = small(**overrides), small(**overrides)
    whole.fit(*digits(), **SETTINGS)
    model.fit(*digits(), **SETTINGS, checkpoint=tmp_path / "file", until=2)
    model = small(**overrides)
    model.fit(*digits(), **SETTINGS, checkpoint=tmp_path / "file")
    assert bits(model) == bits(whole)


@pytest.mark.parametrize("place", [(0, 1), (2, 0), (3, 3)])
def test_what_breaks_off_within_an_epoch_repeats_that_epoch(tmp_path, place):
    whole, model = small(), small()
    expected = whole.fit(*digits(), **SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*digits(), **SETTINGS, checkpoint=tmp_path / "file", callbacks=[At(place, interrupt)])
    assert (tmp_path / "file").exists() == (place[0] > 0)
    model = small()
    history = model.fit(*digits(), **SETTINGS, checkpoint=tmp_path / "file", callbacks=[Callback()])
    assert bits(model) == bits(whole)
    assert numbers(history) == numbers(expected)


def test_a_write_that_fails_leaves_the_file_of_the_epoch_before(tmp_path, monkeypatch):
    whole, model = small(), small()
    whole.fit(*digits(), **SETTINGS)
    model.fit(*digits(), **SETTINGS, checkpoint=tmp_path / "file", until=2)
    before = (tmp_path / "file").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", lambda *paths: interrupt())
        with pytest.raises(KeyboardInterrupt):
            model.fit(*digits(), **SETTINGS, checkpoint=tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    model.fit(*digits(), **SETTINGS, checkpoint=tmp_path / "file")
    assert bits(model) == bits(whole)


class Rising(Callback):
    """Says that the validation loss was least in the second epoch."""

    def on_epoch_end(self, model, epoch, logs):
        logs["val_loss"] = abs(epoch - 1) + 1.0


@pytest.mark.parametrize("until", [1, 2, 3, 4])
def test_early_stopping_goes_on_with_its_patience_and_its_best_weights(tmp_path, until):
    settings = SETTINGS | {"epochs": 9, "validation_data": digits(10, 1), "callbacks": [Rising()]}
    whole = small()
    expected = whole.fit(*digits(), **settings, early_stopping=2)
    assert (expected.stopped, expected.epochs) == ("early", 4)
    small().fit(*digits(), **settings, early_stopping=2, checkpoint=tmp_path / "file", until=until)
    for _ in range(2):  # where it has stopped early it stays so
        model, stopping = small(seed=3), EarlyStopping(2)
        history = model.fit(*digits(), **settings, early_stopping=stopping, checkpoint=tmp_path / "file")
        assert (history.stopped, history.epochs, stopping.best_epoch) == ("early", 4, 1)
        assert bits(model) == bits(whole)


def test_callbacks_that_remember_nothing_may_come_and_go_but_not_one_that_does(tmp_path):
    whole, model = small(), small()
    settings = SETTINGS | {"validation_data": digits(10, 1)}
    whole.fit(*digits(), **settings)
    model.fit(*digits(), **settings | {"verbose": 1}, callbacks=[Callback()], checkpoint=tmp_path / "file", until=2)
    with pytest.raises(ValueError, match=r"other settings: callbacks \[\], not \['EarlyStopping'\]"):
        model.fit(*digits(), **settings, early_stopping=2, checkpoint=tmp_path / "file")
    model.fit(*digits(), **settings, checkpoint=tmp_path / "file")
    assert bits(model) == bits(whole)


def test_the_same_early_stopping_starts_anew_without_a_file(tmp_path):
    stopping, settings = EarlyStopping(2), SETTINGS | {"validation_data": digits(10, 1)}
    small().fit(*digits(), **settings, early_stopping=stopping)
    stopping.best = -1e9
    small().fit(*digits(), **settings, early_stopping=stopping)
    assert stopping.best > 0


def test_nothing_is_left_to_do_for_what_is_finished(tmp_path):
    model = small()
    first = model.fit(*digits(), **SETTINGS, checkpoint=tmp_path / "file")
    before = bits(model), (tmp_path / "file").stat().st_mtime_ns
    again = model.fit(*digits(), **SETTINGS, checkpoint=tmp_path / "file")
    assert (bits(model), (tmp_path / "file").stat().st_mtime_ns) == before
    assert (again.stopped, again.history) == ("epochs", first.history)


def test_a_loss_that_is_no_number_ends_as_an_error_though_epochs_were_good(tmp_path):
    model, history = small(), History()

    def poison():
        model.parameters.value[...] = np.nan

    with pytest.raises(NonFiniteError):
        model.fit(*digits(), **SETTINGS, checkpoint=tmp_path / "file", history=history, callbacks=[At((2, 1), poison)])
    assert (history.stopped, history.epochs) == ("error", 2)


def test_without_a_file_a_history_that_is_handed_in_is_no_beginning():
    history = History({"loss": [1.0, 2.0]})
    assert small().fit(*digits(), **SETTINGS, history=history).epochs == 2 + EPOCHS


def test_the_bar_goes_on_where_the_training_does(tmp_path, capsys):
    model, settings = small(), SETTINGS | {"verbose": 1}
    model.fit(*digits(), **settings, checkpoint=tmp_path / "file", until=3)
    capsys.readouterr()
    model.fit(*digits(), **settings, checkpoint=tmp_path / "file")
    lines = capsys.readouterr().out.splitlines()
    assert [line[:9] for line in lines if line.startswith("epoch")] == ["epoch 4/5", "epoch 5/5"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 6}, "epochs 5, not 6"),
        ({"batch_size": 8}, "batch_size 7, not 8"),
        ({"learning_rate": 0.1}, r"learning_rate \{'type': 'Constant', 'value': 0.05\}, not .*0.1"),
        ({"optimizer": Adam(epsilon=1e-4)}, "optimizer .*, not .*0.0001"),
        ({"beta": 2.0}, "beta .*, not .*2.0"),
        ({"binarise": True}, "binarise False, not True"),
        ({"clip_norm": 2.0}, "clip_norm None, not 2.0"),
        ({"seed": 4}, "seed 0, not 4"),
        ({"epochs": 6, "seed": 4}, "epochs 5, not 6; seed 0, not 4"),
    ],
)
def test_other_settings_are_refused_and_nothing_is_changed(tmp_path, changes, message):
    model = small()
    model.fit(*digits(), **SETTINGS, checkpoint=tmp_path / "file", until=1)
    fresh = small(seed=1)
    before = bits(fresh)
    with pytest.raises(ValueError, match=f"is of a training with other settings: {message}"):
        fresh.fit(*digits(), **SETTINGS | changes, checkpoint=tmp_path / "file")
    assert bits(fresh) == before


def test_another_model_another_number_of_images_or_another_objective_is_refused(tmp_path):
    small().fit(*digits(), **SETTINGS, checkpoint=tmp_path / "file", until=1)
    with pytest.raises(ValueError, match=r"other settings: parameters .*decoder"):
        small(latent_dim=3).fit(*digits(), **SETTINGS, checkpoint=tmp_path / "file")
    with pytest.raises(ValueError, match=r"other settings: images 24, not 20$"):
        small().fit(*digits(20), **SETTINGS, checkpoint=tmp_path / "file")
    with pytest.raises(ValueError, match=r"other settings: objective .*IWAE"):
        small(objective=IWAE(1)).fit(*digits(), **SETTINGS, checkpoint=tmp_path / "file")


@pytest.mark.parametrize("name", ["weights", "optimizer.m", "optimizer.v"])
def test_a_buffer_of_another_layout_is_refused_and_nothing_is_changed(tmp_path, name):
    """One that was written with its parameters packed."""
    path, fresh = tmp_path / "file", small(seed=1)
    small().fit(*digits(), **SETTINGS, checkpoint=path, until=1)
    config, tensors = checkpoint.read(path)
    size, before = len(tensors[name]), bits(fresh)
    checkpoint.write(path, config, (tensors | {name: tensors[name][:-1]}).items())
    with pytest.raises(ValueError, match=rf"file: expected {name} of shape \({size},\), got \({size - 1},\)$"):
        fresh.fit(*digits(), **SETTINGS, checkpoint=path)
    assert bits(fresh) == before


def test_a_file_that_is_no_trainings_is_refused(tmp_path):
    model = small()
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="holds a model, not a training to go on with"):
        model.fit(*digits(), **SETTINGS, checkpoint=tmp_path / "model")
    (tmp_path / "damaged").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is not a model file, or is damaged"):
        model.fit(*digits(), **SETTINGS, checkpoint=tmp_path / "damaged")
    model.fit(*digits(), **SETTINGS, checkpoint=tmp_path / "training", until=1)
    with pytest.raises(ValueError, match="holds a training, not a model"):
        mc.load(tmp_path / "training")


@pytest.mark.parametrize("until", [0, -1, 1.5, True])
def test_epochs_to_stop_after_that_are_no_number_are_refused(until):
    with pytest.raises(ValueError, match=r"^until: expected a whole number of at least 1"):
        small().fit(*digits(), **SETTINGS, until=until)


def test_there_is_no_more_to_stop_after_than_the_epochs(tmp_path):
    assert small().fit(*digits(), **SETTINGS, until=99).epochs == EPOCHS


def test_a_folder_is_no_file_for_a_training(tmp_path):
    with pytest.raises(ValueError, match=r"^checkpoint: expected a file, got the folder "):
        small().fit(*digits(), **SETTINGS, checkpoint=tmp_path)
