"""Register tiles and their transposition: what is compiled does what the plain Python beside it says."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from minicvae.kernels import tiles
from minicvae.kernels.tiles import ROWS, VECTOR_BYTES, VECTORS, tile, transpose

GUARD = 7.0  # around what may be written


@njit
def compiled_tile(*arguments):
    tile(*arguments)


@njit
def compiled_transpose(a, at, row, b, b_at, b_row):
    transpose(a, at, row, b, b_at, b_row)


@given(
    rows=st.sampled_from([1, ROWS]),
    filled=st.one_of(st.just(1.0), st.floats(0, 1)),
    terms=st.integers(1, 20),
    places=st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)),
    along=st.booleans(),
    more=st.booleans(),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_tile_is_the_product_and_nothing_beside_it_changes(rows, filled, terms, places, along, more, dtype, seed):
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    columns = 1 + int(filled * (lanes * VECTORS - 1))
    rng, (a_at, b_at, c_at) = np.random.default_rng(seed), places
    a_row, a_step = (terms + 3, 1) if along else (1, rows + 2)
    a = rng.standard_normal(a_at + (rows + 2) * (terms + 3)).astype(dtype)
    b = rng.standard_normal(b_at + terms * (columns + 5)).astype(dtype)
    listed = np.sort(rng.permutation(terms)[: rng.integers(0, terms + 1)]).astype(np.int32)
    c = np.full(c_at + rows * (columns + 4), GUARD, dtype)
    terms = np.append([1_000_000] * 3, listed).astype(np.int32), 3, len(listed)
    arguments = (a, a_at, a_row, a_step, b, b_at, columns + 5, *terms)
    expected, found = c.copy(), c.copy()
    tile(rows, columns, *arguments, expected, c_at, columns + 4, more)
    compiled_tile(rows, columns, *arguments, found, c_at, columns + 4, more)
    np.testing.assert_allclose(found, expected, rtol=0, atol=20 * len(b) * np.finfo(dtype).eps)
    beside = np.ones(len(c), bool)
    for i in range(rows):
        beside[c_at + i * (columns + 4) :][:columns] = False
    assert np.all(found[beside] == GUARD)


@given(
    places=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    dtype=st.sampled_from(["float32", "float64"]),
    counted=st.sampled_from([int, np.int32]),
)
def test_a_transposition_moves_every_number_to_its_place(places, dtype, counted):
    lanes, (at, b_at) = VECTOR_BYTES // np.dtype(dtype).itemsize, places
    a = np.arange(at + lanes * (lanes + 2)).astype(dtype)
    found = np.full(b_at + lanes * (lanes + 3), -1, dtype)
    expected = found.copy()
    transpose(a, at, lanes + 2, expected, b_at, lanes + 3)
    compiled_transpose(a, counted(at), counted(lanes + 2), found, counted(b_at), counted(lanes + 3))
    np.testing.assert_array_equal(found, expected)
    assert expected[b_at + 1] == a[at + lanes + 2]
    assert expected[b_at + lanes + 3] == a[at + 1]


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(
    ("machine", "features", "expected"),
    [
        ("arm64", "", (16, 8)),
        ("AArch64", "+avx2,+fma", (16, 8)),
        ("x86_64", "+avx512f,+avx512vl", (64, 8)),
        ("AMD64", "+fma,+avx512vl,+sse4.2,+avx2,+avx512f", (64, 8)),
        ("x86_64", "+avx512f,-avx512vl,+avx2,+fma", (32, 4)),
        ("x86_64", "+avx2,+fma", (32, 4)),
        ("x86_64", "+avx2,-fma", (16, 4)),
        ("x86_64", "-avx512f,-avx512vl,-avx2,-fma", (16, 4)),
        ("x86_64", "", (16, 4)),
    ],
)
def test_vectors_are_as_wide_as_the_processor_has_them_or_as_numba_is_told(
    machine, features, expected, told, monkeypatch
):
    other = "+avx2,+fma" if expected == (64, 8) else "+avx512f,+avx512vl"
    host = SimpleNamespace(flatten=lambda: other if told else features)
    monkeypatch.setattr(tiles.platform, "machine", lambda: machine)
    monkeypatch.setattr(tiles, "get_host_cpu_features", lambda: host)
    monkeypatch.setattr(tiles, "config", SimpleNamespace(CPU_FEATURES=features if told else None))
    assert tiles._vector_bytes_and_rows() == expected
