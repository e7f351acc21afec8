"""Training that does not end as planned: losses that are no numbers, Ctrl-C, threads, and wrong arguments."""

import signal
import threading

import numpy as np
import pytest

import minicvae as mc
from minicvae.callbacks import Callback, EarlyStopping
from minicvae.runs import Recorder, Run
from minicvae.schedules import Linear
from minicvae.training import History, NonFiniteError

SIDE = 4


def small(device="cpu"):
    return mc.build(
        "mlp", device=device, image_shape=(SIDE, SIDE), encoder_widths=(8,), decoder_widths=(8,), latent_dim=2
    )


def digits(n=24):
    rng = np.random.default_rng(0)
    return rng.integers(0, 221, (n, SIDE, SIDE), np.uint8), rng.integers(0, 10, n)


def weights(model):
    return model.kernels.to_numpy(model.parameters.value)


def run(model, data=None, **settings):
    x, c = data or digits()
    return model.fit(x, c, **{"epochs": 2, "batch_size": 8, "verbose": 0} | settings)


class Diary(Callback):
    """Writes down the steps and the end; `at` maps (epoch, step) to something to do there."""

    def __init__(self, at=None):
        self.at, self.steps, self.losses, self.ends = at or {}, [], [], []

    def on_train_begin(self, model, plan):
        self.model = model

    def on_step_end(self, epoch, step, losses):
        self.steps.append((epoch, step))
        self.losses.append(losses)
        if (epoch, step) in self.at:
            self.at[epoch, step](self.model)

    def on_train_end(self, model, history):
        self.ends.append(history.stopped)


# What goes wrong


def test_a_planted_nan_is_found_where_it_is(device):
    model = small(device)
    W = model.kernels.to_numpy(model.parameters["decoder.0.W"])
    W[0, 1] = np.nan
    model.parameters["decoder.0.W"] = W
    message = (
        r"^epoch 1, step 1: the loss is nan; the first tensor that is not finite is the parameter decoder\.0\.W; try"
    )
    with pytest.raises(NonFiniteError, match=message), np.errstate(all="ignore"):
        run(model)


def test_a_nan_that_comes_later_is_named_with_its_epoch_and_step(device):
    def plant(model):
        model.parameters["encoder.1.b"] = np.full(4, np.inf)

    before = []
    diary = Diary({(1, 0): lambda model: (plant(model), before.append(weights(model)))})
    model, history = small(device), History()
    with (
        pytest.raises(NonFiniteError, match=r"^epoch 2, step 2: .* the parameter encoder\.1\.b"),
        np.errstate(all="ignore"),
    ):
        run(model, epochs=3, callbacks=[diary], history=history)
    np.testing.assert_array_equal(weights(model), before[0])  # no step was made with that gradient
    assert diary.ends == ["error"]
    assert history.stopped == "error"
    assert history.epochs == 1


def test_an_output_that_overflows_is_named_with_the_size_of_its_inputs(device):
    model = small(device)
    model.parameters["encoder.0.W"] = np.full((SIDE * SIDE + 10, 8), 3e38, np.float32)
    message = (
        r"epoch 1, step 1: the loss is (nan|inf); the first tensor that is not finite is the output of encoder\.0 "
        r"\(Dense; its inputs reach 0\.8"
    )
    with pytest.raises(NonFiniteError, match=message), np.errstate(all="ignore"):
        run(model)


def test_a_latent_that_overflows_is_named_before_what_it_breaks(device):
    model = small(device)
    model.parameters["encoder.1.b"] = np.array([0, 0, 200, 200], np.float32)  # exp(100) times a number is infinite
    message = r"the first tensor that is not finite is the input of decoder\.0, z = mean \+ exp\(log_var / 2\) eps; try"
    with pytest.raises(NonFiniteError, match=message), np.errstate(all="ignore"):
        run(model)


def test_a_loss_that_overflows_by_itself_is_told_apart(device):
    model = small(device)
    for name in ("encoder.1.W", "decoder.0.W"):
        model.parameters[name] = np.zeros_like(model.kernels.to_numpy(model.parameters[name]))
    model.parameters["encoder.1.b"] = np.array(
        [0, 0, 170, 170], np.float32
    )  # exp(170) is beyond float32, exp(85) is not
    message = "though every layer's output is finite.*the loss itself overflows"
    with pytest.raises(NonFiniteError, match=message), np.errstate(all="ignore"):
        run(model)


def test_a_huge_learning_rate_is_caught(device):
    model, diary = small(device), Diary()
    message = r"^epoch \d+, step \d+: the loss is .*try a lower learning_rate"
    with pytest.raises(NonFiniteError, match=message), np.errstate(all="ignore"):
        run(model, epochs=20, learning_rate=1e30, optimizer="sgd", callbacks=[diary])
    assert len(diary.steps) < 60
    if device != "cuda":  # which is not waited for: what was launched after the loss is told too
        assert all(np.isfinite(losses.loss) for losses in diary.losses)


def test_an_epoch_whose_last_step_ruins_the_model_is_not_recorded_as_done(device, tmp_path):
    x, c = digits()
    record, rate = Run.create(tmp_path / "run", preset="mlp", data={}), Linear(0.0, 1e35)  # zero in the first epoch
    message = r"^epoch 2: val_loss is (nan|inf) after the last step$"
    history = History()
    with pytest.raises(NonFiniteError, match=message), np.errstate(all="ignore"):
        run(
            small(device),
            batch_size=len(x),
            validation_data=(x, c),
            learning_rate=rate,
            callbacks=[Recorder(record)],
            history=history,
        )
    assert history.epochs == len(record.history()["val_loss"]) == 1
    assert np.isfinite(record.model(device).evaluate(x, c)["loss"])


def test_after_an_error_the_model_is_usable_and_the_kernels_hand_out_fresh_memory(device):
    def fail(model):
        raise ZeroDivisionError

    model, diary = small(device), Diary({(0, 1): fail})
    with pytest.raises(ZeroDivisionError):
        run(model, callbacks=[diary])
    assert diary.ends == ["error"]
    k = model.kernels
    rows, scale = k.array(np.ones((2, 2))), k.array(np.ones(2))
    first, second = k.scale_rows(rows, scale), k.scale_rows(rows, 2 * scale)
    np.testing.assert_array_equal(k.to_numpy(first), np.ones((2, 2)))
    np.testing.assert_array_equal(k.to_numpy(second), 2 * np.ones((2, 2)))


def test_two_trainings_in_two_threads_do_not_disturb_each_other():
    """A server may draw digits while a model trains: kernels must not share their scratch memory."""
    data = digits(200)
    alone = small()
    run(alone, data, epochs=3)
    models = [small() for _ in range(4)]
    threads = [threading.Thread(target=run, args=(model, data), kwargs={"epochs": 3}) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for model in models:
        np.testing.assert_array_equal(weights(model), weights(alone))


# Ctrl-C


def test_ctrl_c_ends_after_the_step_with_its_weights(device):
    kept, handler = [], signal.getsignal(signal.SIGINT)
    diary = Diary({(1, 1): lambda model: signal.raise_signal(signal.SIGINT)})
    keeper = Diary({(1, 1): lambda model: kept.append(weights(model))})
    model, history = small(device), History()
    with pytest.raises(KeyboardInterrupt):
        run(model, epochs=4, callbacks=[diary, keeper], history=history)
    np.testing.assert_array_equal(weights(model), kept[0])
    assert keeper.steps[-1] == (1, 1)
    assert keeper.ends == ["interrupted"]
    assert history.stopped == "interrupted"
    assert history.epochs == 1
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_while_the_last_epoch_is_validated_is_not_lost(device):
    class Press(Callback):
        def on_epoch_end(self, model, epoch, logs):
            if epoch == 1:
                signal.raise_signal(signal.SIGINT)

    history = History()
    with pytest.raises(KeyboardInterrupt):
        run(small(device), epochs=2, callbacks=[Press()], history=history)
    assert (history.stopped, history.epochs) == ("interrupted", 2)


def test_a_second_ctrl_c_ends_at_once():
    def impatient(model):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the second one came through")

    diary = Diary({(0, 0): impatient})
    with pytest.raises(KeyboardInterrupt):
        run(small(), callbacks=[diary])
    assert len(diary.ends) == 1


def test_training_runs_in_a_thread_where_signals_cannot_be_caught():
    model, main = small(), small()
    thread = threading.Thread(target=run, args=(model,))
    thread.start()
    thread.join()
    run(main)
    np.testing.assert_array_equal(weights(model), weights(main))


# Wrong arguments

GOOD = digits(4)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs: expected a whole number of at least 1, got 0"),
        ({"epochs": 1.5}, ValueError, "epochs: expected a whole number of at least 1, got 1.5"),
        ({"epochs": True}, ValueError, "epochs: "),
        ({"epochs": "3"}, ValueError, "epochs: "),
        ({"batch_size": 0}, ValueError, "batch_size: expected a whole number of at least 1, got 0"),
        ({"batch_size": -8}, ValueError, "batch_size: "),
        ({"learning_rate": -1e-3}, ValueError, "learning_rate: expected a finite number of at least 0"),
        ({"learning_rate": float("nan")}, ValueError, "learning_rate: "),
        ({"learning_rate": "fast"}, ValueError, "learning_rate: "),
        ({"beta": -1}, ValueError, "beta: expected a finite number of at least 0 or a schedule, got -1"),
        ({"optimizer": "rmsprop"}, ValueError, "optimizer: expected one of sgd, adam, adamw"),
        ({"clip_norm": 0}, ValueError, "clip_norm: expected a positive number or None, got 0"),
        ({"clip_norm": -1.0}, ValueError, "clip_norm: "),
        ({"clip_norm": float("nan")}, ValueError, "clip_norm: "),
        ({"early_stopping": 0}, ValueError, "patience: expected a whole number of at least 1, got 0"),
        ({"binarise": "static"}, TypeError, "binarise: expected True or False, got 'static'"),
        ({"callbacks": ["print"]}, TypeError, "callbacks: expected Callback objects, got str"),
        ({"callbacks": [Callback]}, TypeError, "callbacks: expected Callback objects, got type"),
        ({"seed": -1}, ValueError, "seed: expected 0 <= seed"),
        ({"seed": 0.5}, TypeError, "seed: expected an integer, got float"),
        ({"validation_data": GOOD[0]}, TypeError, r"validation_data: expected a pair \(x, c\), got ndarray"),
        ({"validation_data": (*GOOD, 1)}, TypeError, "validation_data: expected a pair"),
        ({"validation_data": (GOOD[0], GOOD[1] + 10)}, ValueError, r"validation_data\[1\]: expected labels 0 to 9"),
        ({"validation_data": (GOOD[0][:, 1:], GOOD[1])}, ValueError, r"validation_data\[0\]: expected images of shape"),
        ({"validation_data": (GOOD[0], GOOD[1][1:])}, ValueError, r"validation_data\[1\]: expected one entry for each"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_trained(settings, error, message):
    model = small()
    before = weights(model)
    with pytest.raises(error, match=f"^{message}"):
        run(model, **settings)
    np.testing.assert_array_equal(weights(model), before)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"callbacks": EarlyStopping()}, TypeError),
        ({"callbacks": 3}, TypeError),
        ({"clip_norm": "a"}, (TypeError, ValueError)),
        ({"early_stopping": "yes"}, (TypeError, ValueError)),
    ],
)
def test_settings_of_a_wrong_type_are_refused_by_their_name(settings, error):
    (name,) = settings
    with pytest.raises(error, match=f"^{name}: expected"):
        run(small(), validation_data=GOOD, **settings)


def test_an_unknown_setting_is_refused():
    with pytest.raises(TypeError, match="epoch"):
        run(small(), epoch=3)


@pytest.mark.parametrize(
    ("x", "c", "error", "message"),
    [
        (GOOD[0], [0, 1, 2, 10], ValueError, "c: expected labels 0 to 9, got 10 at index 3"),
        (
            np.full((4, SIDE, SIDE), np.nan),
            GOOD[1],
            ValueError,
            r"x: expected floats in \[0, 1\], got numbers not finite",
        ),
        (np.zeros((4, SIDE - 1, SIDE)), GOOD[1], ValueError, "x: expected images of shape"),
        (GOOD[0][:0], GOOD[1][:0], ValueError, "x: expected at least one image, got none"),
        (GOOD[0], GOOD[1][:3], ValueError, "c: expected one entry for each of the 4 examples of x, got 3"),
        (GOOD[0].astype(int), GOOD[1], TypeError, "x: expected uint8 in 0..255 or floats"),
        (GOOD[0].astype(float), GOOD[1], ValueError, r"x: expected floats in \[0, 1\], got .*255 is for uint8"),
        (GOOD[0], GOOD[1].astype(float), TypeError, "c: expected integer labels"),
    ],
)
def test_wrong_data_is_refused_before_anything_is_trained(x, c, error, message):
    model = small()
    before = weights(model)
    with pytest.raises(error, match=f"^{message}"):
        run(model, (x, c))
    np.testing.assert_array_equal(weights(model), before)


@pytest.mark.parametrize(
    ("argument", "kind", "message"),
    [
        ({"clip_norm": True}, ValueError, "^clip_norm: expected a positive number or None, got True"),
        ({"history": {}}, TypeError, "^history: expected an empty History, got {}"),
    ],
)
def test_another_thing_where_a_number_or_a_history_is_expected_is_refused(argument, kind, message):
    with pytest.raises(kind, match=message):
        run(small(), **argument)
