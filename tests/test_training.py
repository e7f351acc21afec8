"""The training loop: repeatable, interruptible, and plain about what went wrong."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minicvae as mc
from minicvae.callbacks import Callback, EarlyStopping
from minicvae.conditions import Classes, Vector
from minicvae.layers import Dense
from minicvae.objectives import ELBO
from minicvae.optimizers import SGD, AdamW
from minicvae.randomness import Purpose, generator
from minicvae.schedules import Constant, Cyclical, Linear
from minicvae.training import Plan, fit

SIDE = 4


def small(device="cpu", **overrides):
    sizes = {"image_shape": (SIDE, SIDE), "encoder_widths": (8,), "decoder_widths": (8,), "latent_dim": 2}
    return mc.build("mlp", device=device, **sizes | overrides)


def digits(n=24, seed=0):
    """(x uint8, c): stripes whose place is the class, with noise, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    c = rng.integers(0, 10, n)
    x = rng.integers(0, 60, (n, SIDE, SIDE), np.uint8)
    x[np.arange(n), c % SIDE] = 220
    return x, c


def weights(model):
    return model.kernels.to_numpy(model.parameters.value)


def run(model, data=None, **settings):
    x, c = data or digits()
    return model.fit(x, c, **{"epochs": 2, "batch_size": 8, "verbose": 0} | settings)


class Diary(Callback):
    """Writes down everything that it is told, in order; `at` maps (epoch, step) to something to do there."""

    def __init__(self, at=None):
        self.at = at or {}
        self.entries, self.losses = [], []

    def on_train_begin(self, model, plan):
        self.entries.append(("begin", plan))
        self.model = model

    def on_step_end(self, epoch, step, losses):
        self.entries.append(("step", epoch, step))
        self.losses.append(losses)
        if (epoch, step) in self.at:
            self.at[epoch, step](self.model)

    def on_epoch_end(self, model, epoch, logs):
        self.entries.append(("epoch", epoch, sorted(logs)))

    def on_train_end(self, model, history):
        self.entries.append(("end", history.stopped))


# The same seed is the same run


def test_the_same_seed_gives_the_same_weights_bit_for_bit(device):
    first, second, third = (small(device) for _ in range(3))
    histories = [run(first, seed=5), run(second, seed=5), run(third, seed=6)]
    np.testing.assert_array_equal(weights(first).view(np.uint8), weights(second).view(np.uint8))
    assert not np.array_equal(weights(first), weights(third))
    for name in ("loss", "reconstruction", "kl"):
        assert histories[0].history[name] == histories[1].history[name]


@pytest.mark.parametrize("seed", [0, 1, 3])
@pytest.mark.parametrize(("dtype", "each", "mean"), [("float64", 1e-9, 1e-9), ("float32", 3e-3, 1e-4)])
def test_numpy_and_cpu_have_the_same_losses_through_a_hundred_steps(dtype, each, mean, seed):
    """On MNIST, as everybody trains. In float32 a difference in the last place may grow from step to step.

    Adam divides by the size of the gradient: where a gradient cancels to nothing, what is left of it is rounding, and
    the step is not small. Single losses come to differ by some 1e-4 that way; their mean does not.
    """
    train, _ = mc.datasets.load("mnist")
    losses = []
    for device in ("numpy", "cpu"):
        diary = Diary()
        model = mc.build("mlp-small", device=device, dtype=dtype, seed=seed)
        x, c = train.x[:6400], train.y[:6400]
        model.fit(x, c, epochs=1, batch_size=64, seed=seed, callbacks=[diary], verbose=0)
        losses.append(np.array([loss.loss for loss in diary.losses]))
    assert len(losses[0]) == 100
    np.testing.assert_allclose(losses[1], losses[0], rtol=each)
    np.testing.assert_allclose(losses[1].mean(), losses[0].mean(), rtol=mean)


def test_bytes_and_floats_are_the_same_run(device):
    x, c = digits()
    by_type = []
    for images in (x, x.astype(np.float32) / 255, x / 255, x.reshape(-1, SIDE * SIDE), x[..., None]):
        model = small(device, dtype="float64")
        run(model, (images, c), epochs=3)
        by_type.append(weights(model))
    for other, rtol in zip(by_type[1:], (1e-4, 1e-9, 0, 0), strict=True):  # float32 pixels are rounded
        np.testing.assert_allclose(other, by_type[0], rtol=rtol, atol=rtol)


def test_the_order_of_a_dict_of_conditions_and_the_layout_of_arrays_do_not_matter():
    x, c = digits()
    c64 = np.repeat(c, 2)[::2]
    turned = np.ascontiguousarray(x.transpose(2, 1, 0)).transpose(2, 1, 0)
    one, other = small(), small()
    run(one, (x, c.astype(np.uint8)))
    run(other, (turned, c64.tolist()))
    np.testing.assert_array_equal(weights(one), weights(other))


def test_every_epoch_takes_every_example_once_and_in_an_order_of_its_own(monkeypatch):
    model, seen = small("numpy"), []
    gather = model.kernels.gather

    def noted(images, index, dtype):
        seen.append(np.array(index))
        return gather(images, index, dtype)

    monkeypatch.setattr(model.kernels, "gather", noted)
    run(model, digits(10), epochs=3, batch_size=4)
    assert [len(index) for index in seen] == [4, 4, 2] * 3
    epochs = [np.concatenate(seen[i : i + 3]) for i in (0, 3, 6)]
    for order in epochs:
        np.testing.assert_array_equal(np.sort(order), np.arange(10))
    assert len({order.tobytes() for order in epochs}) == 3


def test_training_learns(device):
    model = small(device)
    history = run(model, digits(200), epochs=15, batch_size=20, learning_rate=1e-2).history
    assert history["loss"][-1] < 0.85 * history["loss"][0]


@pytest.mark.parametrize("batch_size", [1, 7, 24, 1000])
def test_any_batch_size_does(device, batch_size):
    diary = Diary()
    run(small(device), epochs=1, batch_size=batch_size, callbacks=[diary])
    steps = -(-24 // batch_size)
    assert diary.entries[0] == ("begin", Plan(1, steps, batch_size))
    assert [entry for entry in diary.entries if entry[0] == "step"] == [("step", 0, i) for i in range(steps)]


def test_training_continues_where_it_stopped():
    model = small()
    run(model, epochs=1, optimizer="sgd")
    between = weights(model)
    run(model, epochs=1, optimizer="sgd", seed=1)
    assert not np.array_equal(weights(model), between)


# History


def test_the_history_has_a_number_an_epoch_for_every_name():
    history = run(small(), epochs=3, validation_data=digits(10, seed=1), learning_rate=0.01)
    names = {"loss", "reconstruction", "kl"}
    assert set(history.history) == names | {f"val_{n}" for n in names} | {"learning_rate", "beta", "seconds"}
    assert all(len(values) == 3 for values in history.history.values())
    assert all(type(v) is float for values in history.history.values() for v in values)
    assert history.epochs == 3
    assert history.stopped == "epochs"
    assert history.history["learning_rate"] == [0.01] * 3
    assert all(seconds > 0 for seconds in history.history["seconds"])
    assert not any(name.startswith("val_") for name in run(small()).history)


@settings(max_examples=10)
@given(n=st.integers(1, 12), batch_size=st.integers(1, 5), beta=st.sampled_from([0.0, 0.5, 1.0]))
def test_an_epochs_loss_is_the_mean_over_its_examples(n, batch_size, beta):
    """The last batch may be smaller, and counts for less."""
    diary = Diary()
    history = run(small(beta=beta), digits(n), epochs=1, batch_size=batch_size, callbacks=[diary]).history
    sizes = [len(rows) for rows in np.split(np.arange(n), range(batch_size, n, batch_size))]
    expected = np.average(np.array(diary.losses), axis=0, weights=sizes)
    found = [history[name][0] for name in ("loss", "reconstruction", "kl")]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found[0] == pytest.approx(found[1] + beta * found[2], rel=1e-6)


def test_validation_is_what_evaluate_says_after_the_epoch(device):
    model, validation = small(device), digits(10, seed=1)
    history = run(model, validation_data=validation).history
    for name, value in model.evaluate(*validation).items():
        assert history[f"val_{name}"][-1] == value


def test_validation_does_not_disturb_the_training():
    with_it, without = small(), small()
    run(with_it, validation_data=digits(10, seed=1))
    run(without)
    np.testing.assert_array_equal(weights(with_it), weights(without))


# Schedules, optimisers, clipping


def test_beta_follows_its_schedule(device):
    schedule, diary = Cyclical(0.0, 2.0, cycles=2), Diary()
    history = run(small(device), epochs=4, beta=schedule, callbacks=[diary]).history
    betas = [schedule(step / 12) for step in range(12)]
    for losses, beta in zip(diary.losses, betas, strict=True):
        loss, reconstruction, kl = map(float, losses)
        assert loss == pytest.approx(reconstruction + beta * kl, rel=1e-5)
    assert history["beta"] == betas[2::3]


def test_a_fixed_beta_takes_the_place_of_the_objectives():
    one, other = small(beta=3.0), small()
    run(one)
    run(other, beta=3.0)
    np.testing.assert_array_equal(weights(one), weights(other))


def test_the_learning_rate_follows_its_schedule():
    history = run(small(), epochs=3, learning_rate=Linear(0.1, 0.0)).history
    assert history["learning_rate"] == pytest.approx([0.1 * (1 - step / 9) for step in (2, 5, 8)])


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", SGD(0.9, nesterov=True), AdamW(weight_decay=0.1)])
def test_a_rate_of_zero_moves_nothing(optimizer):
    model = small()
    before = weights(model)
    run(model, learning_rate=0, optimizer=optimizer)
    np.testing.assert_array_equal(weights(model), before)


def test_a_training_is_its_steps_by_hand(device):
    """Two epochs of two steps, each with the examples and the noise that the seed gives it, the last batch smaller."""
    x, c = digits(5)
    model, twin = small(device, dtype="float64"), small(device, dtype="float64")
    run(model, (x, c), epochs=2, batch_size=3, optimizer="sgd", learning_rate=0.1, seed=3)
    for epoch in range(2):
        order = generator(3, Purpose.SHUFFLE, epoch).permutation(5)
        for step, rows in enumerate((order[:3], order[3:])):
            eps = twin.noise(len(rows), 3, Purpose.TRAIN, epoch, step)
            _, grads = twin.loss_and_gradients(x[rows], c[rows], eps=eps)
            for name, gradient in grads.items():
                twin.parameters[name] = twin.kernels.to_numpy(twin.parameters[name]) - 0.1 * gradient
    np.testing.assert_allclose(weights(model), weights(twin), rtol=1e-9, atol=1e-12)


def test_no_step_is_longer_than_the_clipped_gradient_allows(device):
    model, limit = small(device, dtype="float64"), 0.01
    steps = [weights(model)]
    diary = Diary({(0, i): lambda model: steps.append(weights(model)) for i in range(3)})
    run(model, epochs=1, optimizer="sgd", learning_rate=1.0, clip_norm=limit, callbacks=[diary])
    lengths = np.linalg.norm(np.diff(steps, axis=0), axis=1)
    np.testing.assert_allclose(lengths, limit, rtol=1e-9)  # the gradients are longer than the limit


# Callbacks


def test_callbacks_are_told_everything_in_order():
    diary, second = Diary(), Diary()
    run(small(), digits(10), callbacks=[diary, second], validation_data=digits(3), batch_size=4)
    logs = sorted(
        ["beta", "kl", "learning_rate", "loss", "reconstruction", "seconds", "val_kl", "val_loss", "val_reconstruction"]
    )
    expected = [("begin", Plan(2, 3, 4))]
    for epoch in range(2):
        expected += [("step", epoch, step) for step in range(3)] + [("epoch", epoch, logs)]
    assert diary.entries == second.entries == [*expected, ("end", "epochs")]


def test_a_callback_may_end_the_training_and_all_others_still_hear_of_the_epoch():
    class Enough(Callback):
        def on_epoch_end(self, model, epoch, logs):
            return epoch == 1

    before, after = Diary(), Diary()
    history = run(small(), epochs=5, callbacks=[before, Enough(), after])
    assert history.epochs == 2
    assert history.stopped == "early"
    assert before.entries == after.entries
    assert before.entries[-1] == ("end", "early")


def test_a_callback_may_use_the_model_without_disturbing_its_training(device):
    def look(model):
        model.generate([1, 2])
        model.evaluate(*digits(5))
        model.loss_and_gradients(*digits(3), seed=1)

    watched, alone = small(device), small(device)
    run(watched, callbacks=[Diary({(0, 0): look, (1, 1): look})])
    run(alone)
    np.testing.assert_array_equal(weights(watched), weights(alone))


def test_early_stopping_puts_the_best_weights_back(device):
    model, validation = small(device), digits(12, seed=1)
    rate = Linear(0.0, 5.0)  # ever larger steps, so that the best epoch is not the last
    history = run(
        model,
        epochs=12,
        learning_rate=rate,
        optimizer="sgd",
        clip_norm=1.0,
        validation_data=validation,
        early_stopping=3,
    )
    losses = history.history["val_loss"]
    best = int(np.argmin(losses))
    assert history.stopped == "early"
    assert len(losses) == best + 1 + 3
    assert model.evaluate(*validation)["loss"] == losses[best]


def test_early_stopping_puts_the_best_weights_back_though_all_epochs_are_done():
    model, validation = small(), digits(12, seed=1)
    stopping = EarlyStopping(100)
    history = run(
        model,
        epochs=6,
        learning_rate=Linear(0.0, 5.0),
        optimizer="sgd",
        clip_norm=1.0,
        validation_data=validation,
        early_stopping=stopping,
    )
    losses = history.history["val_loss"]
    assert history.stopped == "epochs"
    assert stopping.best_epoch == np.argmin(losses) < 5
    assert model.evaluate(*validation)["loss"] == min(losses) == stopping.best


def test_early_stopping_that_cannot_see_its_number_is_refused_before_anything_is_trained():
    model = small()
    before = weights(model)
    with pytest.raises(ValueError, match="validation_data"):
        run(model, early_stopping=2)
    np.testing.assert_array_equal(weights(model), before)


@pytest.mark.parametrize("overrides", [{}, {"discriminator_widths": (4,)}])
def test_early_stopping_takes_every_name_that_a_history_has(overrides):
    history = run(small(**overrides), epochs=1, validation_data=digits(8)).history
    assert {"loss", "val_kl", "beta"} < set(history)
    for name in history:
        assert EarlyStopping(monitor=name).monitor == name


def test_the_progress_bar_prints_a_line_for_every_epoch(capsys):
    run(small(), epochs=2, verbose=1, validation_data=digits(5))
    lines = capsys.readouterr().out.strip().split("\n")
    assert len(lines) == 2
    for i, line in enumerate(lines, start=1):
        assert f"epoch {i}/2" in line
        assert "loss" in line
    run(small(), epochs=2, verbose=0)
    assert capsys.readouterr().out == ""


# Memory


def test_the_training_set_is_never_held_as_floats(device):
    if device == "cuda":
        pytest.skip("tracemalloc does not see the GPU's memory")
    x = np.zeros((40_000, 28, 28), np.uint8)
    c = np.zeros(len(x), np.int64)
    model = mc.build("mlp", device=device, encoder_widths=(4,), decoder_widths=(4,), latent_dim=2)
    tracemalloc.start()
    try:
        model.fit(x, c, epochs=1, batch_size=500, verbose=0, validation_data=(x[:5000], c[:5000]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    as_floats = 4 * x.size
    assert peak < 0.4 * as_floats  # a dozen arrays of the evaluation's 1,000 images


# Other models


@pytest.mark.parametrize(
    "settings",
    [
        {"condition": Vector(2)},
        {"condition": Classes(10, 3)},
        {"objective": ELBO(kl="monte_carlo", samples=3, decoded=1)},
        {"objective": ELBO(samples=2, free_bits=0.1)},
        {"likelihood": mc.distributions.LearnedGaussian()},
    ],
)
def test_every_kind_of_model_trains(device, settings):
    x, c = digits()
    model = small(device, **settings)
    before = weights(model)
    c = np.stack([c, -c], axis=1) / 10 if isinstance(model.condition, Vector) else c
    history = run(model, (x, c), validation_data=(x, c))
    assert np.isfinite(history.history["val_loss"]).all()
    assert not np.array_equal(weights(model), before)


def test_a_model_of_ones_own_layers_trains():
    model = mc.CVAE(Dense(16 + 10, 4), Dense(2 + 10, 16), Classes(10), latent_dim=2, image_shape=(4, 4))
    assert fit(model, *digits(), epochs=2, batch_size=8, learning_rate=Constant(0.01), verbose=0).epochs == 2


def test_pixels_that_are_binarised_are_drawn_anew_at_every_epoch(device, monkeypatch):
    """What reaches the model: black and white, with the grey levels as means, never the same twice."""
    model, (x, c), seen = small(device), digits(16), []
    plain = model.loss_and_backward

    def watch(batch, *rest):
        seen.append(model.kernels.to_numpy(batch))
        return plain(batch, *rest)

    monkeypatch.setattr(model, "loss_and_backward", watch)
    run(model, (x, c), epochs=300, batch_size=16, binarise=True, seed=4)
    for epoch in range(300):  # back into the order of x
        seen[epoch] = seen[epoch][np.argsort(generator(4, Purpose.SHUFFLE, epoch).permutation(16))]
    seen = np.array(seen)
    assert set(np.unique(seen)) == {0, 1}
    assert seen.dtype == np.float32
    assert len(np.unique(seen.reshape(300, -1), axis=0)) == 300
    p = x.reshape(16, -1) / 255
    np.testing.assert_array_less(np.abs(seen.mean(axis=0) - p), 6 * np.sqrt((p * (1 - p) + 1e-3) / 300))


def test_binarised_training_is_repeatable_and_leaves_white_and_black_alone(device):
    one, same, other = small(device), small(device), small(device)
    run(one, binarise=True, seed=1)
    run(same, binarise=True, seed=1)
    run(other, binarise=False, seed=1)
    np.testing.assert_array_equal(weights(one), weights(same))
    assert not np.array_equal(weights(one), weights(other))
    x, c = digits()
    black_and_white = np.where(x > 100, np.uint8(255), np.uint8(0)), c
    drawn, plain = small(device), small(device)
    run(drawn, black_and_white, binarise=True)
    run(plain, black_and_white)
    np.testing.assert_array_equal(weights(drawn), weights(plain))
