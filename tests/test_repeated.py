"""A training whose steps are recorded is the training to the bit, whatever happens between the steps."""

import copy

import numpy as np
import pytest

import minicvae as mc
from minicvae import conditions
from minicvae.callbacks import Callback, EarlyStopping, ProgressBar
from minicvae.kernels import load
from minicvae.kernels.cpu import Cpu
from minicvae.kernels.recorded import Recorded
from minicvae.kernels.steps import in_turn
from minicvae.layers import Dense
from minicvae.models.adversarial import Adversary
from minicvae.models.presets import PRESETS
from minicvae.objectives import ELBO, IWAE
from minicvae.optimizers import SGD, Update
from minicvae.schedules import Linear
from minicvae.training import NonFiniteError

SHAPE = (8, 8)
SMALL = {"image_shape": SHAPE, "latent_dim": 2, "encoder_widths": (6, 5), "decoder_widths": (5, 6)}


def trained(preset, overrides=None, dtype="float32", images=np.uint8, **settings):
    """(history, weights) of a training of 10 images by 4: the last batch of an epoch is a shorter one."""
    model = mc.build(preset, dtype=dtype, **SMALL | (overrides or {}))
    rng = np.random.default_rng(0)
    x, c = rng.integers(0, 256, (10, *SHAPE), np.uint8), conditions.draw(model.condition, 10, rng)
    x = x if images is np.uint8 else (x / 255).astype(images)
    history = model.fit(x, c, **{"epochs": 3, "batch_size": 4, "verbose": 0, "seed": 3} | settings)
    return {name: values for name, values in history.history.items() if name != "seconds"}, model.parameters.value


@pytest.fixture
def recordings(monkeypatch):
    """What is recorded, or None where that could not be done."""
    made, record = [], Recorded._record

    def watched(self, arguments):
        made.append(record(self, arguments))
        return made[-1]

    monkeypatch.setattr(Recorded, "_record", watched)
    return made


TWO_LABELS = conditions.Parts({"a": conditions.Classes(3), "b": conditions.Classes(2)})
CASES = {name: (name, {}, {}) for name in PRESETS} | {
    "float64": ("mlp", {}, {"dtype": "float64"}),
    "images in floats": ("mlp", {}, {"images": np.float32}),
    "images in other floats": ("mlp", {}, {"images": np.float64}),
    "annealed": ("mlp", {}, {"beta": Linear(0.0, 1.0), "learning_rate": Linear(1e-2, 1e-3)}),
    "annealed iwae": ("mlp", {"objective": IWAE(2)}, {"beta": Linear(0.0, 1.0)}),
    "free bits": ("mlp", {"objective": ELBO(free_bits=0.1)}, {}),
    "many samples": ("mlp", {"objective": ELBO(samples=3, decoded=2)}, {}),
    "one of them decoded": ("mlp", {"objective": ELBO(samples=3, decoded=1, kl="monte_carlo")}, {}),
    "a prior of its own": ("mlp", {"conditional_prior": True}, {}),
    "two labels": ("mlp", {"condition": TWO_LABELS}, {}),
    "no condition": ("mlp", {"condition": conditions.Nothing()}, {}),
    "clipped": ("mlp", {}, {"clip_norm": 0.1}),
    "black and white": ("mlp", {}, {"binarise": True}),
    "stochastic gradient": ("mlp", {}, {"optimizer": "sgd"}),
}
NOT_RECORDED = {"adversarial", "conv-planes", "iwae", "iwae-conditional"} | {
    *("annealed iwae", "many samples"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_recorded_training_is_the_training_to_the_bit(case, recordings, monkeypatch):
    preset, overrides, settings = CASES[case]
    found, weights = trained(preset, overrides, **settings)
    assert [r is not None for r in recordings] == [case not in NOT_RECORDED] * 2  # of whole batches, and of the last
    monkeypatch.setattr(Cpu, "repeated", lambda self, run, then, then_too: in_turn(run, then))
    truth, true_weights = trained(preset, overrides, **settings)
    assert found == truth
    np.testing.assert_array_equal(weights, true_weights)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, where kernels run as they are written
def test_the_loss_that_is_not_finite_is_told_as_ever(recordings):
    model = mc.build("mlp", **SMALL)
    x, c = np.random.default_rng(0).random((8, *SHAPE)), np.zeros(8, np.int64)
    with pytest.raises(NonFiniteError, match=r"epoch 2, step 1: .* first tensor that is not finite"):
        model.fit(x, c, epochs=3, batch_size=8, learning_rate=1e30, verbose=0)
    assert len(recordings) == 1


class Own(Dense):
    """A layer of somebody else's, which computes with its weights by itself."""

    def forward(self, *parts):
        size = np.sqrt((self.W.value**2).sum())
        y, backward = super().forward(*parts)
        return y * (1 / size), lambda dy, need_dx=True: backward(dy * (1 / size), need_dx)


class OwnModel(mc.CVAE):
    """A model of somebody else's."""


class OwnLikelihood(mc.distributions.Bernoulli):
    """A likelihood of somebody else's."""


class OwnAdversary(Adversary):
    """An adversary of somebody else's."""


def replaced(layer):
    """The layer with a forward of somebody else's."""
    layer.forward = layer.forward
    return layer


PARTS_OF_OTHERS = {
    "nobody": (mc.CVAE, {}),
    "model": (OwnModel, {}),
    "layer": (mc.CVAE, {"decoder": Own(2 + 3, 64)}),
    "layer within": (mc.CVAE, {"decoder": mc.layers.Chain([Dense(2 + 3, 4), Own(4, 64)])}),
    "method": (mc.CVAE, {"decoder": replaced(Dense(2 + 3, 64))}),
    "likelihood": (mc.CVAE, {"likelihood": OwnLikelihood()}),
    "adversary": (mc.CVAE, {"adversary": OwnAdversary(Dense(2 + 3, 1))}),
}


@pytest.mark.parametrize("whose", PARTS_OF_OTHERS)
def test_what_others_wrote_is_run_at_every_step(whose, recordings):
    kind, others = PARTS_OF_OTHERS[whose]
    networks = {"encoder": mc.layers.Chain([Dense(64 + 3, 5, "tanh"), Dense(5, 4)]), "decoder": Dense(2 + 3, 64)}
    made = copy.deepcopy(networks | others)  # a layer can stand in one model only
    model = kind(condition=conditions.Classes(3), latent_dim=2, image_shape=SHAPE, **made)
    model.fit(np.zeros((6, *SHAPE)), np.zeros(6, np.int64), epochs=1, batch_size=3, verbose=0)
    assert model.recordable == (whose == "nobody")
    assert [r is not None for r in recordings] == [True] * (whose == "nobody")


def test_a_model_on_somebody_elses_baseline_is_not_recordable():
    for layer in (Dense, Own):
        baseline = mc.BaselineNet(layer(64, 64), image_shape=SHAPE)
        assert mc.ImageCVAE.build(baseline, (4,), latent_dim=2).recordable == (layer is Dense)


# What may happen between the steps


class Forgetful(Callback):
    """Forgets the gradients after each epoch."""

    def on_epoch_end(self, model, epoch, logs):
        model.parameters.zero_grad()


class OwnSGD(SGD):
    """An optimiser of somebody else's, who forgets the gradients after each step."""

    def start(self, parameters, kernels):
        def update(learning_rate):
            parameters.value[...] -= learning_rate * parameters.grad
            parameters.zero_grad()

        return Update(update, {})


class Sharpening(Callback):
    """Changes the model between epochs."""

    def on_epoch_end(self, model, epoch, logs):
        model.likelihood = mc.distributions.Gaussian(sigma=1 / (epoch + 2))


class Busy(Callback):
    """A callback that wants to know something of the model after each step, and may change it."""

    def on_train_begin(self, model, plan):
        self.model = model

    def on_step_end(self, epoch, step, losses):
        self.model.losses(np.zeros((2, *SHAPE)), np.zeros(2, np.int64))
        self.model.objective = ELBO(free_bits=0.1 * (epoch + step))


BETWEEN = {  # and how often a step is recorded then
    "gradients forgotten by a callback": ({"callbacks": [Forgetful()]}, 2),
    "gradients forgotten by an optimiser": ({"optimizer": OwnSGD()}, 2),
    "another likelihood": ({"callbacks": [Sharpening()]}, 6),
    "another objective at each step": ({"callbacks": [Busy()]}, 9),
    "the best weights put back": ({"early_stopping": EarlyStopping(1, monitor="loss"), "learning_rate": 0.3}, 2),
}


@pytest.mark.parametrize("what", BETWEEN)
def test_whatever_happens_between_the_steps_happens_with_recordings_too(what, recordings, monkeypatch):
    settings, times = BETWEEN[what]
    found, weights = trained("mlp", **copy.deepcopy(settings))
    assert [r is not None for r in recordings] == [True] * times
    monkeypatch.setattr(Cpu, "repeated", lambda self, run, then, then_too: in_turn(run, then))
    truth, true_weights = trained("mlp", **copy.deepcopy(settings))
    assert found == truth
    np.testing.assert_array_equal(weights, true_weights)


def test_kernels_of_a_callback_take_no_more_memory_from_step_to_step(monkeypatch):
    sizes, k = [], load("cpu")

    def on_step_end(self, epoch, step, losses):
        k.empty((3, 3), np.float32)
        sizes.append(len(k.workspace._arrays))

    monkeypatch.setattr(ProgressBar, "on_step_end", on_step_end)  # one of the library's: the steps are recorded
    trained("mlp", verbose=1)
    assert sizes == [1] * 9
