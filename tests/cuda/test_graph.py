"""A step recorded as a CUDA graph: the same losses and weights, whatever differs from step to step.

On a GPU if there is one, and on the stand-in, which records what a stream would, refuses what a stream refuses (cuBLAS,
and whatever waits for the GPU), spoils what the recording itself has computed, and does everything again at a launch.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest
import standin
from hypothesis import given
from hypothesis import strategies as st
from standin.arrays import LAUNCHED, WAITED

import minicvae as mc
from minicvae import conditions
from minicvae.callbacks import Callback
from minicvae.kernels import load
from minicvae.kernels.cuda import GRAPHS, Cuda, graph
from minicvae.kernels.cuda.graph import Recorded
from minicvae.models.presets import PRESETS
from minicvae.objectives import ELBO, IWAE
from minicvae.optimizers import SGD, Update
from minicvae.schedules import Linear
from minicvae.training import NonFiniteError

SHAPE = (8, 8)
SMALL = {"image_shape": SHAPE, "latent_dim": 2, "encoder_widths": (6, 5), "decoder_widths": (5, 6)}


class Numbers(NamedTuple):
    total: object
    largest: object


@pytest.fixture
def graphs(kernels_of_cuda, monkeypatch):
    """The CUDA kernels, which record what is repeated."""
    monkeypatch.setattr(
        "minicvae.models.base.load", lambda device: kernels_of_cuda if device == "cuda" else load(device)
    )
    monkeypatch.setattr(kernels_of_cuda, "graphs", True)
    return kernels_of_cuda


def trained(preset, device="cuda", overrides=None, **settings):
    """(history, weights) of a training of 10 images by 4: the last batch of an epoch is a shorter one."""
    model = mc.build(preset, device=device, dtype="float64", **SMALL | (overrides or {}))
    rng = np.random.default_rng(0)
    x, c = rng.integers(0, 256, (10, *SHAPE), np.uint8), conditions.draw(model.condition, 10, rng)
    history = model.fit(x, c, epochs=4, batch_size=4, verbose=0, seed=3, **settings)
    found = {name: values for name, values in history.history.items() if name != "seconds"}
    return found, model.kernels.to_numpy(model.parameters.value)


CASES = {name: (name, {}, {}) for name in PRESETS} | {
    "iwae": ("mlp", {"objective": IWAE(3)}, {}),
    "annealed": ("mlp", {}, {"beta": Linear(0.0, 1.0), "learning_rate": Linear(1e-2, 1e-3)}),
    "annealed iwae": ("mlp", {"objective": IWAE(2)}, {"beta": Linear(0.0, 1.0)}),
    "free bits": ("mlp", {"objective": ELBO(free_bits=0.1, samples=3, decoded=2)}, {}),
    "clipped": ("mlp", {}, {"clip_norm": 0.1}),
    "black and white": ("mlp", {}, {"binarise": True}),
    "validated": ("mlp", {}, {"validation_data": (np.zeros((5, *SHAPE), np.uint8), np.arange(5))}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_recorded_training_is_the_training(graphs, name):
    preset, overrides, settings = CASES[name]
    LAUNCHED.clear()
    (found, weights), (expected, other_weights) = (trained(preset, d, overrides, **settings) for d in ("cuda", "numpy"))
    if graphs.xp.ndarray is standin.ndarray:
        assert LAUNCHED["graph"] == 4 * 3 - 2  # the first step of either size runs as it is
    assert found == {key: pytest.approx(values, rel=1e-9) for key, values in expected.items()}
    np.testing.assert_allclose(weights, other_weights, rtol=1e-6, atol=1e-9)


def test_a_recorded_step_is_one_launch_of_the_graph_and_the_host_runs_no_model(graphs, monkeypatch):
    ran, launches, gather = Counter(), [], Cuda.gather
    monkeypatch.setattr(Cuda, "gather", lambda *given: ran.update(gather=1) or gather(*given))

    class Diary(Callback):
        def on_step_end(self, epoch, step, losses):
            launches.append((standin.LAUNCHES.copy(), LAUNCHED.copy()))

    trained("mlp", callbacks=[Diary()])
    assert ran == {"gather": 4}  # of either size, the first step and the recording
    if graphs.xp.ndarray is not standin.ndarray:
        return
    (before, graphs_before), (after, graphs_after) = launches[-3:-1]
    assert graphs_after - graphs_before == {"graph": 1}
    within = {"gather_pixels", "bernoulli", "elbo", "dense", "dense_backward", "adam"}  # some of what the graph does
    assert within < set(after - before)


def test_a_loss_that_is_not_finite_is_found_in_a_recorded_step_too(graphs):
    class Breaker(Callback):
        def on_train_begin(self, model, plan):
            self.parameters = model.parameters

        def on_step_end(self, epoch, step, losses):
            if (epoch, step) == (2, 0):
                self.parameters["decoder.2.b"] = np.full(64, np.inf)

    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match=r"epoch 3, step 2: .*decoder\.2\.b"):
        trained("mlp", callbacks=[Breaker()])
    assert trained("mlp")[0] == {k: pytest.approx(v) for k, v in trained("mlp", "numpy")[0].items()}  # it goes on


def test_a_number_may_differ_from_call_to_call(kernels_of_cuda, graphs):
    ran = []

    def run(scale, a):
        ran.append(a.shape)
        return Numbers((a * scale).sum(), a.max())

    repeated = Recorded(kernels_of_cuda, run)
    for scale, size in [(1.0, 3), (2.0, 3), (3.0, 3), (3.0, 5), (3.0, 3), (4.0, 3)]:
        a = np.random.default_rng(size).random(size)
        found = repeated(scale, kernels_of_cuda.array(a))
        assert type(found) is Numbers
        np.testing.assert_allclose([float(x) for x in found], [(a * scale).sum(), a.max()], rtol=1e-15)
    assert ran == [(3,), (3,), (5,)]  # the first call, the recording, and the first call of another size


@given(data=st.data(), count=st.integers(1, 5), calls=st.integers(3, 8))
def test_a_step_finds_its_arguments_wherever_they_lie(kernels_of_cuda, data, count, calls):
    """Behind those of the step before or anywhere, of any type, in rows that lie apart; and so do the results."""
    xp, rng, given, sums = kernels_of_cuda.xp, np.random.default_rng(0), [], []
    for _ in range(count):
        size, kind = data.draw(st.integers(1, 4)), data.draw(st.sampled_from([np.uint8, np.float32, np.int64]))
        whole = rng.integers(0, 9, (2 * calls + 2, 2 * size)).astype(kind)
        rows = data.draw(st.one_of(st.just(list(range(calls))), st.lists(st.integers(0, 2 * calls), min_size=calls)))
        columns = slice(None, None, data.draw(st.sampled_from([1, 2])))
        there = xp.asarray(whole)
        given.append([there[row : row + 2, columns] for row in rows[:calls]])
        sums.append([whole[row : row + 2, columns].sum() for row in rows[:calls]])
    repeated = Recorded(
        kernels_of_cuda, lambda *a: Numbers(sum(x.sum(dtype=np.float64) for x in a), a[0].max().astype("float64"))
    )
    found = [repeated(*arguments) for arguments in zip(*given, strict=True)]
    np.testing.assert_array_equal(kernels_of_cuda.read(found)[:, 0], np.sum(sums, axis=0))


def test_a_step_whose_arguments_follow_those_before_is_one_launch_alone(kernels_of_cuda, graphs):
    xp = kernels_of_cuda.xp
    repeated, a = Recorded(kernels_of_cuda, lambda a: Numbers(a.sum(), a.max())), xp.asarray(np.arange(12.0))
    for i in range(2):
        repeated(a[3 * i : 3 * i + 3])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph._Graph, "_point", lambda self, cell, x: moved.append(self.addresses[cell] == x.data.ptr))
        moved = []
        repeated(a[6:9])
    assert moved == [True, True]


def test_results_are_not_overwritten_by_the_next_call(kernels_of_cuda, graphs):
    repeated = Recorded(kernels_of_cuda, lambda a: Numbers(a.sum(), a.max()))
    found = [repeated(kernels_of_cuda.array(np.full(3, float(i)))) for i in range(5)]
    assert [float(f.total) for f in found] == [0.0, 3.0, 6.0, 9.0, 12.0]


@pytest.mark.parametrize(
    ("forbidden", "message"),
    [
        (lambda k, a: a @ a, "cuBLAS"),
        (lambda k, a: k.xp.tensordot(a, a, 1), "cuBLAS"),
        (lambda k, a: float(a.sum()), "apture"),
    ],
)
def test_what_cannot_be_recorded_runs_as_it_is_and_says_so_once(kernels_of_cuda, graphs, forbidden, message):
    def run(a):
        forbidden(kernels_of_cuda, a)
        return Numbers(a.sum(), a.max())

    repeated, a = Recorded(kernels_of_cuda, run), kernels_of_cuda.array(np.ones(3))
    found = [repeated(a)]
    with pytest.warns(RuntimeWarning, match=f"cannot be recorded as a CUDA graph.*{message}"):
        found.append(repeated(2 * a))
    found.append(repeated(3 * a))
    assert [float(x.total) for x in found] == [3.0, 6.0, 9.0]
    assert float((a @ a).sum()) == 3.0


@pytest.mark.parametrize("breaks", [1, 2])
def test_who_is_interrupted_while_recording_can_go_on(kernels_of_cuda, graphs, breaks):
    ran = []

    def run(a):
        ran.append(a)
        if len(ran) == breaks:
            raise KeyboardInterrupt
        return Numbers(a.sum(), a.max())

    repeated, a = Recorded(kernels_of_cuda, run), kernels_of_cuda.array(np.ones(3))
    for _ in range(breaks - 1):
        repeated(a)
    with pytest.raises(KeyboardInterrupt):
        repeated(a)
    assert [float(repeated(i * a).total) for i in range(4)] == [0.0, 3.0, 6.0, 9.0]
    assert len(ran) == breaks + 2  # a first call and a recording, anew


def test_an_optimiser_of_the_users_goes_on_from_a_checkpoint(graphs, tmp_path):
    """With a state that lies on the host, and one that lies on the device."""

    class Counting(SGD):
        def start(self, parameters, kernels):
            update, count = super().start(parameters, kernels), np.zeros(1, np.int64)

            def step(rate):
                count[0] += 1
                update(rate / count[0])

            return Update(step, {**update.state, "count": count})

    Counting.__module__ = "somebody.elses"
    settings = {"optimizer": Counting(momentum=0.5), "overrides": {}}
    whole, weights = trained("mlp", **settings)
    trained("mlp", **settings, checkpoint=tmp_path / "half.safetensors", until=2)
    found, found_weights = trained("mlp", **settings, checkpoint=tmp_path / "half.safetensors")
    assert found == whole
    np.testing.assert_array_equal(found_weights, weights)


def test_an_optimiser_of_the_users_is_not_recorded(graphs):
    rates = []

    class Own(SGD):
        def start(self, parameters, kernels):
            update = super().start(parameters, kernels)
            return Update(lambda rate: (rates.append(rate), update(rate)), update.state)

    Own.__module__ = "somebody.elses"
    (found, weights), (expected, other_weights) = (trained("mlp", d, optimizer=Own()) for d in ("cuda", "numpy"))
    assert rates == [1e-3] * 2 * 4 * 3
    assert found == {key: pytest.approx(values, rel=1e-9) for key, values in expected.items()}
    np.testing.assert_allclose(weights, other_weights, rtol=1e-6, atol=1e-9)


def test_what_follows_is_recorded_with_its_rate_and_the_numbers_are_watched_before(kernels_of_cuda, graphs):
    """`then` finds `stop` set from the first number on that is not finite."""
    xp, seen = kernels_of_cuda.xp, []
    total = xp.zeros(1, np.float64)

    def then(rate):
        seen.append(rate)
        total[...] = total + rate * (1 - kernels_of_cuda.stop)

    repeated = Recorded(kernels_of_cuda, lambda a: Numbers(a.sum(), a.max()), then)
    for rate, x in [(1.0, 1.0), (2.0, 1.0), (4.0, 1.0), (8.0, 1.0), (16.0, np.inf), (32.0, 1.0)]:
        repeated(rate, xp.asarray(np.full(3, x)))
    assert len(seen) == 2  # the first call, and the recording
    assert float(total[0]) == 15.0
    kernels_of_cuda.end_steps()


def test_results_lie_in_rows_that_are_read_in_one_go(kernels_of_cuda, graphs, monkeypatch):
    monkeypatch.setattr(graph, "ROWS", 4)
    repeated = Recorded(kernels_of_cuda, lambda a: Numbers(a.sum(), a.max()))
    found = [repeated(kernels_of_cuda.array(np.array([float(i), 1.0]))) for i in range(6)]
    with standin.crossings() as crossed:
        np.testing.assert_array_equal(kernels_of_cuda.read(found), [(i + 1, max(i, 1)) for i in range(6)])
    if kernels_of_cuda.xp.ndarray is standin.ndarray:
        assert crossed == {"to the host": 2}  # four rows, and then two


def test_a_stream_of_the_callers_waits_and_is_waited_for(kernels_of_cuda, graphs):
    repeated, xp = Recorded(kernels_of_cuda, lambda a: Numbers(a.sum(), a.max())), kernels_of_cuda.xp
    own, mine = xp.cuda.Stream(), kernels_of_cuda.stream
    WAITED.clear()
    with own:
        found = [repeated(kernels_of_cuda.array(np.full(3, float(i)))) for i in range(4)]
        assert [float(x.total) for x in found] == [0.0, 3.0, 6.0, 9.0]
    if xp.ndarray is standin.ndarray:
        assert 4 * [(mine.ptr, own.ptr), (own.ptr, mine.ptr)] == WAITED


@pytest.mark.parametrize(("value", "expected"), [(None, True), ("0", False), ("1", True)])
def test_the_switch_is_an_environment_variable(kernels_of_cuda, monkeypatch, value, expected):
    monkeypatch.setattr("minicvae.kernels.cuda._cupy", lambda: kernels_of_cuda.xp)
    monkeypatch.delenv(GRAPHS, raising=False)
    if value is not None:
        monkeypatch.setenv(GRAPHS, value)
    assert isinstance(Cuda().repeated(lambda: None, lambda rate: None, True), Recorded) == expected
