"""Jobs: a kernel gets its arguments as they are, whatever they are, whenever it is run."""

import gc
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numba import config, njit
from numba.core.errors import TypingError

from minicvae.kernels.job import Job
from minicvae.kernels.spread import LINE, Helpers, alone, take

DTYPES = [np.float32, np.float64, np.int64, np.int32, np.uint8, np.bool_]


@njit(nogil=True)
def double(queue, x, y):
    """y = 2 x, row by row."""
    i = take(queue, len(x))
    while i < len(x):
        y[i] = x[i] + x[i]
        i = take(queue, len(x))


@njit(nogil=True)
def copy(queue, x, y):
    """y = x, row by row."""
    i = take(queue, len(x))
    while i < len(x):
        y[i] = x[i]
        i = take(queue, len(x))


@njit(nogil=True)
def tell(queue, flag, number, real, nested, out):
    """What the arguments are, in an array."""
    if take(queue, 1) == 0:
        (first, second), x = nested
        out[0], out[1], out[2], out[3], out[4] = flag, number, real, first, second
        out[5], out[6] = x.shape[1], x[1, -1]


@st.composite
def arrays(draw):
    """Of one or two axes, contiguous or not, also read-only ones and ones without numbers."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6))
    numbers = st.integers(0, 1 if dtype.kind == "b" else 100)
    x = draw(hnp.arrays(dtype, [2 * n for n in shape], elements=numbers.map(dtype.type)))
    x = x[tuple(slice(None, None, draw(st.sampled_from([1, 2, -1]))) for _ in shape)]
    x.flags.writeable = draw(st.booleans())
    return x


@given(x=arrays(), apart=st.integers(1, 3), times=st.integers(1, 3), size=st.integers(1, 3))
def test_a_kernel_reads_and_writes_arrays_of_any_layout(x, apart, times, size):
    room = np.zeros([apart * n for n in x.shape], x.dtype)
    y = room[tuple(slice(None, None, apart) for _ in x.shape)]
    job, helpers = Job(copy, (x, y)), Helpers(size)
    for _ in range(times):
        room[...] = 0
        job.run(helpers.state)
        np.testing.assert_array_equal(y, x)
        assert np.count_nonzero(room) == np.count_nonzero(x)  # and nothing between


@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")
def test_what_is_read_only_is_not_written():
    y = np.zeros((3, 4))
    y.flags.writeable = False
    with pytest.raises(TypingError, match="readonly"):
        Job(copy, (np.ones((3, 4)), y)).run(alone())


@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")
def test_threads_may_be_the_first_to_want_a_kernel_all_at_once():
    wrong, meeting = [], threading.Barrier(4)

    @njit(nogil=True)
    def triple(queue, x, y):
        i = take(queue, len(x))
        while i < len(x):
            y[i] = 3 * x[i]
            i = take(queue, len(x))

    def first():
        x, y = np.arange(9.0), np.zeros(9)
        meeting.wait(timeout=60)
        Job(triple, (x, y)).run(alone())
        wrong.extend([] if (y == 3 * x).all() else [y])

    threads = [threading.Thread(target=first) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@njit(nogil=True)
def refuse(queue):
    raise ValueError("never mind what")


@pytest.mark.skipif(config.DISABLE_JIT, reason="plain Python raises what is raised")
def test_a_kernel_that_fails_is_named():
    with pytest.raises(MemoryError, match=r"^refuse: a kernel failed"):
        Job(refuse, ()).run(alone())


@given(
    flag=st.booleans(),
    number=st.integers(-(2**53), 2**53),
    real=st.floats(allow_nan=False),
    pair=st.tuples(st.integers(-9, 9), st.floats(-9, 9)),
    columns=st.integers(1, 5),
)
def test_numbers_and_tuples_come_as_they_are(flag, number, real, pair, columns):
    x, out = np.arange(2.0 * columns).reshape(2, columns), np.full(7, np.nan)
    Job(tell, (flag, number, real, (pair, x), out)).run(alone())
    np.testing.assert_array_equal(out, [flag, number, real, *pair, columns, 2 * columns - 1])


def test_what_is_in_the_arrays_counts_when_the_job_is_run_and_the_arrays_are_kept():
    y, jobs = np.zeros(1000), []
    for i in range(50):
        jobs.append(Job(double, (np.full(1000, float(i)), y)))
    gc.collect()
    for i, job in enumerate(jobs):
        job.run(alone())
        assert (y == 2 * i).all()
        job.arguments[0][...] = -1
        job.run(alone())
        assert (y == -2).all()


@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")
def test_for_arguments_of_the_same_kind_nothing_is_compiled_again():
    x, y = np.zeros((3, 4), np.float32), np.zeros((3, 4), np.float32)
    code, count = Job(double, (x, y)).code, len(double.signatures)
    assert Job(double, (y[:2], x[1:])).code == code
    assert len(double.signatures) == count
    assert Job(double, (x, y[:, :3])).code != code


@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")
@given(x=arrays())
def test_the_signature_is_what_the_kernel_is_compiled_for(x):
    job = Job(copy, (x, np.zeros(x.shape, x.dtype)))
    copy.compile(job.signature)
    count = len(copy.overloads)
    job.run(alone())
    assert job.signature in copy.overloads
    assert len(copy.overloads) == count


@pytest.mark.skipif(config.DISABLE_JIT, reason="plain Python takes anything")
@pytest.mark.parametrize("wrong", [None, "1", np.float32(1), np.int64(1), [1.0], 1j])
def test_what_cannot_be_written_down_is_refused(wrong):
    with pytest.raises(TypeError, match=f"double: arguments: expected arrays, bool.* got .*{type(wrong).__name__}"):
        Job(double, (np.zeros(2), wrong))


def test_without_the_compiler_a_kernel_is_called_as_it_stands_by_one_thread(monkeypatch):
    calls = []
    monkeypatch.setattr("minicvae.kernels.job.config", SimpleNamespace(DISABLE_JIT=1))
    Job(lambda *given: calls.append(given), (1, None, "anything")).run(alone())
    ((counts, number), *others), *more = calls
    assert (number, others, more) == (0, [1, None, "anything"], [])
    assert (counts.shape, counts.dtype, counts.any()) == ((LINE,), np.int64, False)
