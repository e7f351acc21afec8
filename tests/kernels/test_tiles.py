"""Register tiles: every shape, stride and edge against NumPy in float64, and nothing touched outside C."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minicvae.kernels import tiles

seeds = st.integers(0, 2**32 - 1)
# Around the edges of a tile and of its panels (16, 32, 48, 64 columns), of a block of k, and of packing.
rows = st.one_of(st.integers(1, 20), st.sampled_from([63, 64, 65, 127, 128, 129, 140]))
columns = st.one_of(st.integers(1, 70), st.sampled_from([95, 96, 97, 112, 784]))
depths = st.one_of(st.integers(1, 20), st.sampled_from([127, 128, 129, 257, 300]))
dtypes = st.sampled_from([np.float32, np.float64])


def inside(rng, shape, dtype, transposed=False):
    """A matrix that is a view into a larger one: offset, with room after each row; `transposed` swaps its strides."""
    m, n = shape[::-1] if transposed else shape
    before, after = rng.integers(0, 4, 2)
    outer = rng.standard_normal((m + 2, n + before + after)).astype(dtype)
    view = outer[1:-1, before : before + n]
    return (view.T if transposed else view), outer


def tolerance(A, B, dtype):
    """What rounding may do: a few ulp for each of the terms of a sum, by their absolute values."""
    return 4 * np.finfo(dtype).eps * np.sqrt(A.shape[1] + 4) * (np.abs(A) @ np.abs(B) + 1)


@given(rows, columns, depths, seeds, dtypes, st.booleans(), st.booleans())
@example(1, 1, 1, 0, np.float32, False, False)
@example(64, 784, 32, 0, np.float32, False, False)
@example(784, 26, 64, 0, np.float32, True, True)
def test_a_product_is_numpys_product_and_touches_nothing_else(m, n, depth, seed, dtype, transposed, add):
    rng = np.random.default_rng(seed)
    A, _ = inside(rng, (m, depth), dtype, transposed)
    B, _ = inside(rng, (depth, n), dtype)
    C, around = inside(rng, (m, n), dtype)
    before = around.copy()
    tiles.product(A, B, C, add)
    A64, B64 = A.astype(np.float64), B.astype(np.float64)
    offset = before[1:-1, (start := offset_of(C, around)) : start + n].astype(np.float64) if add else 0
    assert np.all(np.abs(C - (A64 @ B64 + offset)) <= tolerance(A64, B64, dtype))
    C[...] = before[1:-1, start : start + n] if add else before[1:-1, offset_of(C, around) :][:, :n]
    np.testing.assert_array_equal(around, before)


def offset_of(view, outer):
    """The column of `outer` at which `view` begins."""
    distance = view.__array_interface__["data"][0] - outer[1:].__array_interface__["data"][0]
    return distance // outer.itemsize


@given(rows, columns, depths, seeds, st.integers(0, 100))
def test_a_product_has_the_same_bits_however_its_columns_and_rows_are_split(m, n, depth, seed, where):
    rng = np.random.default_rng(seed)
    A, _ = inside(rng, (m, depth), np.float32)
    B, _ = inside(rng, (depth, n), np.float32)
    whole, split = np.empty((m, n), np.float32), np.empty((m, n), np.float32)
    tiles.product(A, B, whole, False)
    j, i = where % n, where % m
    for columns_ in (slice(0, j), slice(j, n)):
        for rows_ in (slice(0, i), slice(i, m)):
            tiles.product(A[rows_], B[:, columns_], split[rows_, columns_], False)
    np.testing.assert_array_equal(whole, split)


@given(st.integers(1, 40), st.integers(1, 70), st.integers(1, 40), seeds, st.sampled_from([np.nan, np.inf, -np.inf]))
def test_a_number_that_is_not_finite_reaches_its_whole_row_and_no_other(m, n, depth, seed, wrong):
    rng = np.random.default_rng(seed)
    A, B = rng.standard_normal((m, depth)).astype(np.float32), rng.standard_normal((depth, n)).astype(np.float32)
    i = rng.integers(m)
    A[i, rng.integers(depth)] = wrong
    C = np.empty((m, n), np.float32)
    tiles.product(A, B, C, False)
    np.testing.assert_array_equal(np.isfinite(C), np.broadcast_to(np.arange(m)[:, None] != i, (m, n)))


def test_a_product_over_no_terms_is_zero():
    C = np.full((3, 5), 7, np.float32)
    tiles.product(np.empty((3, 0), np.float32), np.empty((0, 5), np.float32), C, True)
    assert (C == 7).all()
    tiles.product(np.empty((3, 0), np.float32), np.empty((0, 5), np.float32), C, False)
    assert (C == 0).all()


@given(st.integers(1, 50), st.integers(1, 50), seeds, dtypes)
def test_a_transpose_is_numpys(m, n, seed, dtype):
    rng = np.random.default_rng(seed)
    a, _ = inside(rng, (m, n), dtype)
    aT, around = inside(rng, (n, m), dtype)
    before, start = around.copy(), offset_of(aT, around)
    tiles.transpose(a, aT)
    np.testing.assert_array_equal(aT, a.T)
    before[1:-1, start : start + m] = a.T
    np.testing.assert_array_equal(around, before)


SMALL = """
import numpy as np
from minicvae.kernels import tiles
for m, depth, n in ((1, 1, 1), (9, 130, 50), (64, 33, 85)):
    A, B, C = np.ones((m, depth), np.float32), np.full((depth, n), 2, np.float32), np.ones((m, n), np.float32)
    tiles.product(A, B, C, True)
    assert (C == 2 * depth + 1).all()
print(tiles.VECTOR_BYTES)
"""


@pytest.mark.parametrize(
    ("settings", "vector_bytes"),
    [
        ({"NUMBA_CPU_NAME": "generic"}, 16),
        ({"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma"}, 32),
        ({"NUMBA_DISABLE_JIT": "1"}, None),
    ],
)
def test_the_vectors_follow_the_processor_that_numba_compiles_for(tmp_path, settings, vector_bytes):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)} | settings
    done = subprocess.run([sys.executable, "-c", SMALL], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert vector_bytes is None or int(done.stdout) == vector_bytes
