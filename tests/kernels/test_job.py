"""Jobs: a kernel gets its arguments as they are, whatever they are, whenever it is run."""

import gc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numba import config, njit

from minicvae.kernels.job import Job
from minicvae.kernels.spread import Helpers, alone, take

DTYPES = [np.float32, np.float64, np.int64, np.int32, np.uint8, np.bool_]


@njit(nogil=True)
def double(queue, x, y):
    """y = 2 x, row by row."""
    i = take(queue, len(x))
    while i < len(x):
        y[i] = x[i] + x[i]
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
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=6))
    numbers = st.integers(0, 1 if dtype.kind == "b" else 100)
    x = draw(hnp.arrays(dtype, [2 * n for n in shape], elements=numbers.map(dtype.type)))
    x = x[tuple(slice(None, None, draw(st.sampled_from([1, 2, -1]))) for _ in shape)]
    x.flags.writeable = draw(st.booleans())
    return x


@given(x=arrays(), times=st.integers(1, 3), size=st.integers(1, 3))
def test_a_kernel_reads_and_writes_arrays_of_any_layout(x, times, size):
    if x.size and not config.DISABLE_JIT and x.dtype.kind == "b":
        x = x.astype(np.uint8)  # two flags make a number
    y = np.zeros(x.shape, x.dtype)
    job, helpers = Job(double, (x, y)), Helpers(size)
    for _ in range(times):
        y[...] = 0
        job.run(helpers.state)
        np.testing.assert_array_equal(y, x + x)


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
    first, count = Job(double, (x, y)), len(double.signatures)
    second = Job(double, (y[:2], x[1:]))
    assert (second.code, len(double.signatures)) == (first.code, count)
    assert Job(double, (x, y[:, :3])).code != first.code


@pytest.mark.skipif(config.DISABLE_JIT, reason="plain Python takes anything")
@pytest.mark.parametrize("wrong", [None, "1", np.float32(1), np.int64(1), [1.0], 1j])
def test_what_cannot_be_written_down_is_refused(wrong):
    with pytest.raises(TypeError, match=f"arguments: expected arrays, bool.* got .*{type(wrong).__name__}"):
        Job(double, (np.zeros(2), wrong))
