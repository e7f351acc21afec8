"""What is recorded is played back to the bit; what cannot be noted is not recorded."""

import operator
from math import inf, nan
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.kernels import OneHot, load
from minicvae.kernels.cpu import AHEAD, Cpu
from minicvae.kernels.recorded import Noted, Notes, NotRecordableError, Recorded, Recording, _Number, assign
from minicvae.kernels.workspace import Workspace, aligned
from minicvae.training import NonFiniteError

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


def test_a_shorter_batch_has_the_memory_of_a_longer_one():
    k, places = load("cpu"), []

    def run(x):
        places.append(k.empty(x.shape, x.dtype).array)
        return Numbers(x[0, 0], x[0, 0])

    repeated = Recorded(k.recording, run)
    for rows in (5, 3, 5):
        repeated(np.zeros((rows, 2)))
    assert [place.shape for place in places] == [(5, 2), (3, 2)]
    assert np.may_share_memory(*places)


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

    played = Recorded(k.recording, run)
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

    repeated = Recorded(k.recording, run)
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

    repeated = Recorded(k.recording, run)
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
    with pytest.raises(NotRecordableError, match="zero again"):
        k.zeros((2,), np.float32)


def test_a_noted_array_knows_its_layout():
    array = aligned((2, 3), np.float32)
    x = noted(array)
    assert (x.shape, x.dtype, x.ndim, x.size, len(x), x.flags.c_contiguous) == ((2, 3), np.float32, 2, 6, 2, True)
    assert not x[:, 1:].flags.c_contiguous
    assert (x[1].shape, x[1, 2].shape, x[None].shape, x[:0].shape) == ((3,), (), (1, 2, 3), (0, 3))
    assert x.transpose(1, 0).shape == (3, 2)
    assert np.shares_memory(x.transpose(1, 0).array, array)
    with pytest.raises(NotRecordableError, match="not a view"):
        x.transpose(1, 0).reshape(6)
    assert np.shares_memory(x[1].array, array)
    assert (x.reshape(3, 2).shape, x.reshape((6,)).shape) == ((3, 2), (6,))
    larger = noted(np.arange(24).reshape(2, 3, 4))
    assert larger[1, 2].array.tolist() == [20, 21, 22, 23]


def test_noise_is_drawn_some_steps_ahead_and_no_more():
    drawn, size = [], AHEAD // 4
    fed = Cpu().feed(drawn.append(i) or np.full(size, i, np.uint8) for i in range(9))
    assert [next(fed)[0], len(drawn)] == [0, 4]
    assert [a[0] for a in fed] == list(range(1, 9))
