"""Products larger than a tile, a block of the sum, or a piece: right however they are cut."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minicvae.kernels import load
from minicvae.kernels.compiled_products import CACHE, FEWEST, PIECES, cut, part
from minicvae.kernels.tiles import ROWS, VECTOR_BYTES, VECTORS


@given(
    n=st.integers(0, 700),
    d_in=st.integers(0, 400),
    d_out=st.integers(1, 300),
    accumulate=st.booleans(),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_large_products_are_right_however_they_are_cut(n, d_in, d_out, accumulate, dtype, seed):
    rng, k = np.random.default_rng(seed), load("cpu")
    shapes = (n, d_in), (d_in, d_out), (d_out,), (n, d_out)
    x, W, b, dy = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    dW, db = np.ones_like(W), np.ones_like(b)
    y = k.dense([x], W, b, "linear")
    (dx,) = k.dense_backward(dy, [x], y, W, "linear", dW, db, accumulate, [True])
    for found, expected in ((y, x @ W + b), (dx, dy @ W.T), (dW, x.T @ dy + accumulate), (db, dy.sum(0) + accumulate)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=3000 * np.finfo(dtype).eps)


@given(number=st.integers(1, 40), length=st.integers(0, 1000), unit=st.integers(1, 50))
def test_the_parts_are_whole_units_that_follow_each_other_and_are_alike(number, length, unit):
    bounds = [part(i, number, length, unit) for i in range(number)]
    assert [start for start, _ in bounds] == [0, *(end for _, end in bounds[:-1])]
    assert bounds[-1][1] == length
    assert all(start % unit == 0 or start == length for start, _ in bounds)
    sizes = [-(-(end - start) // unit) for start, end in bounds]
    assert max(sizes) - min(sizes) <= 1


@given(m=st.integers(1, 5000), n=st.integers(1, 2000), terms=st.integers(1, 2000), size=st.sampled_from([4, 8]))
def test_a_result_is_cut_into_strips_of_a_tile_and_groups_for_all_threads_and_for_the_cache(m, n, terms, size):
    strips, groups = cut(m, n, terms, size)
    width = VECTORS * VECTOR_BYTES // size
    assert (strips - 1) * width < n <= strips * width

    def enough(groups):
        return strips * groups >= PIECES and m * terms * size <= groups * CACHE

    assert groups == 1 or (m >= groups * FEWEST and not enough(groups // 2))
    assert enough(groups) or m < 2 * groups * FEWEST
    assert FEWEST % ROWS == 0
