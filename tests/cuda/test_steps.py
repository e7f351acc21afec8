"""What crosses between host and device while a model is trained: all ahead of the steps, nothing within them."""

import numpy as np
import pytest
import standin
from hypothesis import given
from hypothesis import strategies as st

import minicvae as mc
from minicvae import conditions
from minicvae.callbacks import Callback, ProgressBar
from minicvae.kernels import cuda as cuda_kernels
from minicvae.kernels import load
from minicvae.models.presets import PRESETS
from minicvae.objectives import ELBO, IWAE
from minicvae.training import NonFiniteError

SHAPE = (8, 8)
SMALL = {"image_shape": SHAPE, "latent_dim": 2, "encoder_widths": (6, 5), "decoder_widths": (5, 6)}


@pytest.fixture(autouse=True)
def gpu(compiled, monkeypatch):
    """The CUDA kernels, run by the host, for every model of the device cuda."""
    monkeypatch.setattr("minicvae.models.base.load", lambda device: compiled if device == "cuda" else load(device))


def model_and_data(preset="mlp", n=24, **settings):
    model, rng = mc.build(preset, **{"device": "cuda"} | SMALL | settings), np.random.default_rng(0)
    return model, rng.integers(0, 256, (n, *SHAPE), np.uint8), conditions.draw(model.condition, n, rng)


class Crossings(Callback):
    """What has crossed since the training began: at the end of every step, and of every epoch."""

    def on_train_begin(self, model, plan):
        self.begin, self.steps, self.epochs = standin.CROSSINGS.copy(), [], []

    def on_step_end(self, epoch, step, losses):
        self.steps.append(standin.CROSSINGS - self.begin)

    def on_epoch_end(self, model, epoch, logs):
        self.epochs.append(standin.CROSSINGS - self.begin)


CASES = {name: (name, {}, {}) for name in PRESETS} | {
    "iwae": ("mlp", {"objective": IWAE(3)}, {}),
    "free bits": ("mlp", {"objective": ELBO(free_bits=0.1, samples=2)}, {}),
    "clipped": ("mlp", {}, {"clip_norm": 0.1}),
    "sgd": ("mlp", {}, {"optimizer": "sgd"}),
    "black and white": ("mlp", {}, {"binarise": True}),
}


@pytest.mark.parametrize("name", CASES)
def test_nothing_crosses_within_a_step_and_an_epoch_is_read_once(name):
    preset, overrides, settings = CASES[name]
    (model, x, c), diary = model_and_data(preset, **overrides), Crossings()
    model.fit(x, c, epochs=3, batch_size=4, verbose=0, callbacks=[diary], **settings)
    uploads = 3 if "binarise" in settings else 2  # the permutation and the noise
    assert len(diary.steps) == 18
    for epoch in range(3):
        assert diary.steps[6 * epoch : 6 * epoch + 6] == 6 * [diary.steps[6 * epoch]]
        before = diary.epochs[epoch - 1] if epoch else {}
        assert diary.epochs[epoch] - (before or type(diary.epochs[0])()) == {
            "to the device": uploads,
            "to the host": 1,
        }


def test_a_callback_may_read_the_losses_of_a_step():
    (model, x, c), read = model_and_data(), []

    class Reader(Callback):
        def on_step_end(self, epoch, step, losses):
            read.append(float(losses.loss))

    history = model.fit(x, c, epochs=1, batch_size=8, verbose=0, callbacks=[Reader()])
    assert history.history["loss"] == [pytest.approx(np.mean(read), rel=1e-12)]


@pytest.mark.parametrize("terminal", [False, True])
def test_the_bar_reads_the_losses_only_where_it_is_seen_and_every_twenty_steps(monkeypatch, terminal):
    begin = ProgressBar.on_train_begin

    def on_train_begin(bar, *given):
        begin(bar, *given)
        bar._progress.disable = not terminal

    monkeypatch.setattr(ProgressBar, "on_train_begin", on_train_begin)
    model, x, c = model_and_data(n=100)
    with standin.crossings() as crossed:
        model.fit(x, c, epochs=1, batch_size=2, verbose=1)
    assert crossed["to the host"] == 1 + 3 * terminal


@pytest.mark.parametrize(("optimizer", "broken"), [("sgd", 3), ("adam", 7)])
def test_from_a_loss_that_is_not_finite_on_nothing_changes_and_it_is_named(optimizer, broken):
    """The device is not waited for, and yet the weights are those that gave the loss, as on the host."""
    found = {}
    for where in ("numpy", "cuda"):
        model, x, c = model_and_data(device=where, dtype="float64")

        class Breaker(Callback):
            """Makes a bias infinite at one step, so that the loss of the next is not finite."""

            def on_step_end(self, epoch, step, losses):
                self.steps = getattr(self, "steps", 0) + 1
                if self.steps == broken:
                    self.model.parameters["decoder.2.b"] = np.full(64, np.inf)

            def on_train_begin(self, model, plan):
                self.model = model

        with pytest.raises(NonFiniteError) as error, np.errstate(all="ignore"):
            model.fit(x, c, epochs=3, batch_size=4, optimizer=optimizer, verbose=0, callbacks=[Breaker()])
        found[where] = str(error.value), model.kernels.to_numpy(model.parameters.value)
    (message, weights), (other_message, other_weights) = found.values()
    assert f"epoch {broken // 6 + 1}, step {broken % 6 + 1}: the loss is" in message == other_message
    assert "the parameter decoder.2.b" in message
    np.testing.assert_allclose(weights, other_weights, rtol=1e-6)
    model.parameters["decoder.2.b"] = np.zeros(64)
    before = model.kernels.to_numpy(model.parameters.value)
    model.fit(x, c, epochs=1, batch_size=8, optimizer=optimizer, verbose=0)
    assert not np.array_equal(before, model.kernels.to_numpy(model.parameters.value))


@given(
    shapes=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=3), max_size=12),
    ahead=st.sampled_from([1, 100, 10_000]),
)
def test_what_is_fed_comes_in_order_and_in_few_uploads(compiled, shapes, ahead):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    with pytest.MonkeyPatch.context() as patch, standin.crossings() as crossed:
        patch.setattr(cuda_kernels, "AHEAD", (ahead, 0))
        fed = list(compiled.feed(iter(arrays)))
    assert crossed["to the device"] <= 1 + sum(a.nbytes for a in arrays) / ahead
    assert len(fed) == len(arrays)
    for a, b in zip(arrays, fed, strict=True):
        np.testing.assert_array_equal(b.get(), a)


def test_only_a_part_of_a_long_epoch_waits_on_the_host(compiled, monkeypatch):
    """The noise of all steps may be more than the host's memory holds."""
    monkeypatch.setattr(cuda_kernels, "AHEAD", (4000, 0))
    drawn = []

    def arrays():
        for i in range(100):
            drawn.append(i)
            yield np.zeros(250, np.float32)

    fed = compiled.feed(arrays())
    next(fed)
    fed.close()
    assert len(drawn) in (4, 8)  # the first portion, and maybe the next, which another thread draws meanwhile
