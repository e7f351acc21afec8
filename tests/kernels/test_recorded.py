"""A step that is played back gives what the step gives, to the bit; what cannot be noted is not recorded."""

import copy
import operator
from math import inf, nan
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minicvae as mc
from minicvae import conditions
from minicvae.callbacks import Callback, EarlyStopping, ProgressBar
from minicvae.kernels import OneHot, load
from minicvae.kernels.cpu import AHEAD, Cpu
from minicvae.kernels.recorded import (
    Noted,
    Notes,
    NotRecordableError,
    Recorded,
    Recording,
    _Number,
    assign,
    signature,
)
from minicvae.kernels.workspace import Workspace, aligned
from minicvae.layers import Dense
from minicvae.models.adversarial import Adversary
from minicvae.models.presets import PRESETS
from minicvae.objectives import ELBO, IWAE
from minicvae.optimizers import SGD, Update
from minicvae.schedules import Linear
from minicvae.training import NonFiniteError

SHAPE = (8, 8)
SMALL = {"image_shape": SHAPE, "latent_dim": 2, "encoder_widths": (6, 5), "decoder_widths": (5, 6)}
seeds = st.integers(0, 2**32 - 1)


class Numbers(NamedTuple):
    first: object
    second: object


def noted(array):
    return Noted(array, Notes(Workspace()))


def recorded(run):
    """`run` as a loop of steps has it, the list of its calls that are no playing back, and who holds the notes."""
    ran, recording = [], Recording()

    def counted(*arguments):
        ran.append(arguments)
        return run(*arguments)

    return Recorded(recording, counted), ran, recording


# Whole trainings


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
    "two labels": (
        "mlp",
        {"condition": conditions.Parts({"a": conditions.Classes(3), "b": conditions.Classes(2)})},
        {},
    ),
    "no condition": ("mlp", {"condition": conditions.Nothing()}, {}),
    "clipped": ("mlp", {}, {"clip_norm": 0.1}),
    "black and white": ("mlp", {}, {"binarise": True}),
    "stochastic gradient": ("mlp", {}, {"optimizer": "sgd"}),
}
NOT_RECORDED = {"adversarial", "conv", "conv-strided", "conv-planes", "iwae", "iwae-conditional"} | {
    *("annealed iwae", "many samples"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_recorded_training_is_the_training_to_the_bit(case, recordings, monkeypatch):
    preset, overrides, settings = CASES[case]
    found, weights = trained(preset, overrides, **settings)
    assert [r is not None for r in recordings] == [case not in NOT_RECORDED] * 2  # of whole batches, and of the last
    monkeypatch.setattr(Cpu, "repeated", lambda self, run: run)
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
    """Forgets the gradients after each epoch, or in the middle of one."""

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
    monkeypatch.setattr(Cpu, "repeated", lambda self, run: run)
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


def test_a_shorter_batch_has_the_memory_of_a_longer_one():
    k, places = load("cpu"), []

    def run(x):
        places.append(k.empty(x.shape, x.dtype).array)
        return Numbers(x[0, 0], x[0, 0])

    repeated = k.repeated(run)
    for rows in (5, 3, 5):
        repeated(np.zeros((rows, 2)))
    assert [place.shape for place in places] == [(5, 2), (3, 2)]
    assert np.may_share_memory(*places)


# Recordings


@given(data=st.data(), seed=seeds, dtype=st.sampled_from([np.float32, np.float64]))
def test_whatever_is_noted_is_done_again(data, seed, dtype):
    """A drawn program of views, copies, element by element functions and kernels, played with other numbers."""
    rng, k = np.random.default_rng(seed), load("cpu")
    n, d = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 6))
    W, b, E = (rng.standard_normal(shape).astype(dtype) for shape in ((d, d), (d,), (4, d)))
    unary = {
        "exp": lambda x: np.exp(-(x * x)),
        "turned": lambda x: x[::-1],
        "columns": lambda x: x[:, ::-1],
        "flat": lambda x: k.contiguous(x).reshape(-1).reshape(n, d),
        "cast": lambda x: x.astype(np.float64).astype(dtype),
        "larger": lambda x: (x > 0.1).astype(dtype),
        "dense": lambda x: k.dense([x], W, b, "tanh"),
        "labels": lambda x: k.dense([x, OneHot(np.arange(n) % 4, 4)], np.concatenate([W, E]), b, "relu"),
        "scaled": lambda x: k.scale_rows(x, x[:, 0]),
        "product with W": lambda x: x @ W,
        "itself and one": lambda x: operator.iadd(x.astype(dtype), 1),
    }
    binary = {
        "sum": operator.add,
        "product": operator.mul,
        "joined": lambda x, y: k.concatenate([x, y], axis=0)[1 : n + 1],
        "larger of": np.maximum,
    }
    steps = data.draw(st.lists(st.tuples(st.sampled_from([*unary, *binary]), *[st.integers(0, 99)] * 2), max_size=8))

    def run(a, x):
        values = [x, k.empty(x.shape, x.dtype)]
        k.call(assign, values[1], a)
        for name, i, j in steps:
            y, z = values[i % len(values)], values[j % len(values)]
            values.append(unary[name](y) if name in unary else binary[name](y, z))
        ends = np.add(values[-1], values[-2])
        return Numbers(ends[0, 0], ends[-1, -1])

    played = k.repeated(run)
    for scale in (0.5, -1.5, 2.0):
        x = rng.standard_normal((n, d)).astype(dtype)
        found, truth = played(scale, x), run(scale, x)
        np.testing.assert_array_equal(found, truth)
    assert None not in played._tapes.values()


def test_a_function_runs_once_for_each_signature_and_is_played_from_then_on():
    k, ran = load("cpu"), []

    def run(a, x):
        ran.append(x)
        scale = k.empty(x.shape, x.dtype)
        k.call(assign, scale, a)
        return Numbers((scale * x)[0], (scale + x)[1])

    repeated = k.repeated(run)
    for dtype in (np.float32, np.float64):
        for size in (2, 3):
            for step in range(4):
                assert repeated(2.0, np.arange(step, step + size, dtype=dtype)) == (2 * step, step + 3)
    assert len(ran) == 4


def test_a_number_times_an_array_is_as_python_has_it():
    """In NumPy's arithmetic a float32 array times a number in an array is float64, times one of Python's float32."""
    kinds = []

    def run(a, x):
        y = a * x
        kinds.append(y.dtype)
        return Numbers(y[0], y[0])

    repeated, _, _ = recorded(run)
    assert repeated(0.1, np.ones(1, np.float32)).first == np.float32(0.1)
    assert kinds == [np.float32]


def test_what_is_handed_out_and_what_is_given_stays_as_it_was():
    repeated, _, _ = recorded(lambda x: Numbers(x[0], np.add(x, x, out=x)[1]))
    given, found = [np.array([i, i + 1.0]) for i in range(3)], []
    for x in given:
        found.append(repeated(x))
    assert found == [(2 * i, 2 * i + 2) for i in range(3)]  # the first result is read at the end, as the second is
    assert [x.tolist() for x in given] == [[i, i + 1] for i in range(3)]
    assert all(type(number) is float for numbers in found for number in numbers)


def test_memory_of_a_recording_is_its_own_and_begins_at_a_line():
    k, places = Cpu(), []
    x = np.zeros((2, 3))

    def run(x):
        places.extend([x, k.empty((2, 3), np.float32), x + 1, k.concatenate([x, x], axis=0)])
        return Numbers(x[0, 0], x[0, 0])

    repeated = k.repeated(run)
    k.begin_step()
    repeated(x)
    assert all(place.array.ctypes.data % 64 == 0 for place in places)
    others = [k.empty((2, 3), np.float32), k.empty((4, 3), np.float64), x]
    assert not any(np.may_share_memory(place.array, other) for place in places for other in others)
    assert all(isinstance(a, np.ndarray) for a in others)  # nothing is noted any more


@pytest.mark.parametrize("bad", [nan, inf, -inf])
def test_a_result_that_is_not_finite_has_the_function_run_as_it_is(bad):
    def run(x):
        if isinstance(x, np.ndarray) and not np.isfinite(x).all():
            raise NonFiniteError("so it is")
        return Numbers(x[0], x[1])

    repeated, ran, _ = recorded(run)
    for place in (0, 1):
        x = np.zeros(2)
        assert repeated(x) == (0, 0)
        x[place] = bad
        with pytest.raises(NonFiniteError, match="so it is"):
            repeated(x)
    assert len(ran) == 3
    fresh, _, _ = recorded(run)
    with pytest.raises(NonFiniteError, match="so it is"):  # at the first step too
        fresh(x)


LOOKED_AT = {
    "a number": lambda x: float(x[0]),
    "an integer": lambda x: [1, 2, 3][x.astype(np.int64)[0]],
    "a truth": lambda x: 1 if x[0] else 0,
    "a comparison": lambda x: 1 if x[0] > 2 else 0,
    "an array of NumPy's": lambda x: np.asarray(x)[0],
    "a list": lambda x: list(x.tolist()),
    "a sum": lambda x: x.sum(),
    "a sum of NumPy's": lambda x: np.add.reduce(x),
    "a choice": lambda x: np.where(x > 1, x, 0)[0],
    "some of it": lambda x: x[[1, 0]][0],
    "those that are large": lambda x: x[x > 1][0],
    "a copy of another shape": lambda x: x.reshape(2, 2)[:, ::-1].reshape(4)[0],
    "two results": lambda x: np.modf(x)[0][0],
    "a function with settings": lambda x: np.add(x, x, dtype=np.float64)[0],
    "a number written": lambda x: operator.setitem(x, 0, 1.0),
    "a number put into another array": lambda x: operator.setitem(np.zeros(4), 0, x[0]),
    "a sum that begins unseen": lambda x: operator.iadd(np.zeros(4), x),
    "an iteration": lambda x: max(x),
}
REFUSED = (TypeError, ValueError, AttributeError, IndexError)


@pytest.mark.parametrize("what", LOOKED_AT)
def test_whoever_looks_at_numbers_is_not_recorded(what):
    LOOKED_AT[what](np.arange(4.0))
    with pytest.raises(REFUSED):
        LOOKED_AT[what](noted(np.arange(4.0)))


@pytest.mark.parametrize("function", [operator.mul, lambda x, number: number * x, np.add])
def test_a_number_is_not_combined_with_arrays(function):
    x = noted(np.arange(4.0))
    with pytest.raises(TypeError):
        function(x, _Number(np.zeros(()), x.notes))


def test_what_cannot_be_recorded_runs_as_it_is_at_every_step_and_in_no_part_twice_afterwards():
    repeated, ran, recording = recorded(lambda x: Numbers((x + 0).sum(), 1.0))
    assert [repeated(np.full(2, float(i))) for i in range(4)] == [(2 * i, 1) for i in range(4)]
    assert len(ran) == 5  # the first of them was an attempt
    assert repeated._memory._arrays == []
    assert recording.notes is None
    constant, ran, _ = recorded(lambda x: Numbers(x[0], 1.0))  # a number that is none of the recording's
    assert [constant(np.full(2, float(i))) for i in range(3)] == [(i, 1) for i in range(3)]
    assert len(ran) == 4


def test_an_error_comes_through_and_nothing_is_noted_afterwards():
    def run(x):
        raise ZeroDivisionError("mine")

    repeated, _, recording = recorded(run)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="mine"):
            repeated(np.zeros(2))
        assert recording.notes is None


def test_an_interruption_ends_the_recording():
    def run(x):
        raise KeyboardInterrupt

    repeated, ran, recording = recorded(run)
    with pytest.raises(KeyboardInterrupt):
        repeated(np.zeros(2))
    assert (recording.notes, len(ran)) == (None, 1)


def test_what_is_not_done_again_is_refused():
    k = Cpu()
    k.recording.notes = Notes(Workspace())
    with pytest.raises(NotRecordableError, match="a team"):
        k.share(lambda start, stop: None, 4, 4)
    with pytest.raises(NotRecordableError, match="zero again"):
        k.zeros((2,), np.float32)


def test_a_noted_array_knows_its_layout():
    array = aligned((2, 3), np.float32)
    x = noted(array)
    assert (x.shape, x.dtype, x.ndim, x.size, len(x), x.flags.c_contiguous) == ((2, 3), np.float32, 2, 6, 2, True)
    assert not x[:, 1:].flags.c_contiguous
    assert (x[1].shape, x[1, 2].shape, x[None].shape, x[:0].shape) == ((3,), (), (1, 2, 3), (0, 3))
    assert np.shares_memory(x[1].array, array)
    assert (x.reshape(3, 2).shape, x.reshape((6,)).shape) == ((3, 2), (6,))
    larger = noted(np.arange(24).reshape(2, 3, 4))
    assert larger[1, 2].array.tolist() == [20, 21, 22, 23]


def test_a_signature_is_the_shapes_and_types():
    one = signature((1.0, np.zeros((2, 3)), np.zeros(2, np.int64)))
    assert one == signature((5.0, np.ones((2, 3)), np.ones(2, np.int64)))
    for other in ((1, np.zeros((2, 3)), np.zeros(2, np.int64)), (1.0, np.zeros((3, 2)), np.zeros(2, np.int64))):
        assert signature(other) != one
    assert signature((1.0, np.zeros((2, 3), np.float32), np.zeros(2, np.int64))) != one
    assert len({one: 0, signature((2.0, np.zeros((2, 3)), np.zeros(2, np.int64))): 1}) == 1


def test_noise_is_drawn_some_steps_ahead_and_no_more():
    drawn, size = [], AHEAD // 4
    fed = Cpu().feed(drawn.append(i) or np.full(size, i, np.uint8) for i in range(9))
    assert [next(fed)[0], len(drawn)] == [0, 4]
    assert [a[0] for a in fed] == list(range(1, 9))
