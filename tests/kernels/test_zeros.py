"""Terms that are zero: listed as they are, and left out of a product without changing a bit of it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numba import config
from queues import kept_terms, own_queue

from minicvae.kernels import load, shared
from minicvae.kernels.compiled_products import all_terms, blocks_of, dense, dense_backward, part
from minicvae.kernels.spread import alone
from minicvae.kernels.tiles import ROWS
from minicvae.kernels.zeros import MOSTLY, SAMPLE, TILES, WORTH_LISTING, mostly, of_columns, of_rows, worth_listing

SHAPES = {"n": st.integers(1, 400), "d": st.integers(1, 400), "seed": st.integers(0, 2**32 - 1)}
DTYPE = st.sampled_from(["float32", "float64"])


def images(rng, n, d, dtype, dark=0.9):
    """Of which most pixels are zero, often many beside each other."""
    lit = rng.random((n, d)) > dark
    if dark:
        lit &= rng.random((n, 1)) < rng.random(d)
    return (rng.standard_normal((n, d)) * lit).astype(dtype)


@given(
    **SHAPES,
    dtype=DTYPE,
    columns=st.booleans(),
    dark=st.sampled_from([0, 0.9]),
    signs=st.booleans(),
    special=st.sampled_from([1.0, np.nan, -np.inf, 5e-324, -1e-45]),
)
def test_what_is_listed_are_the_terms_in_which_not_all_rows_of_a_tile_are_zero(
    n, d, dtype, columns, dark, signs, special, seed
):
    rng = np.random.default_rng(seed)
    x = images(rng, n, d, dtype, dark)
    x = np.sign(x) if signs else x  # numbers that could cancel
    x[rng.integers(n), rng.integers(d)] = special
    terms, counts = kept_terms(x, columns)
    left = x.T if columns else x
    blocks = [part(i, blocks_of(left.shape[1]), left.shape[1], 1) for i in range(blocks_of(left.shape[1]))]
    assert len(terms) == -(-len(left) // ROWS)
    for t, row in enumerate(terms):
        lit = (left[t * ROWS : (t + 1) * ROWS] != 0).any(axis=0)
        for (begin, end), count in zip(blocks, counts[t], strict=True):
            np.testing.assert_array_equal(row[begin : begin + count], np.flatnonzero(lit[begin:end]))


@given(n=st.integers(1, 400), d=st.integers(1, 400), share=st.floats(0, 1), seed=SHAPES["seed"])
def test_a_sample_tells_whether_most_numbers_are_zero(n, d, share, seed):
    x = (np.random.default_rng(seed).random((n, d)) < share).astype(np.float32)
    held = np.count_nonzero(x) / x.size
    if x.size < 200 or abs(held - 1 / MOSTLY) > 0.25:  # all are looked at; eight standard deviations of the sample
        assert mostly(x) == (held <= 1 / MOSTLY)


@given(step=st.integers(1, 20), more=st.floats(0, 1), seed=SHAPES["seed"])
def test_the_sample_are_numbers_equally_far_apart_and_a_third_of_them_may_be_lit(step, more, seed):
    size = (step - 1) * SAMPLE + int(more * (SAMPLE - 1)) + (step == 1)
    rng, sampled = np.random.default_rng(seed), np.arange(0, size, step)
    lit = rng.permutation(sampled)[: len(sampled) // MOSTLY + 1]
    x = np.ones(size, np.float32)
    x[sampled] = 0
    x[lit[1:]] = rng.choice([1, -2, 1e-40], len(lit) - 1)
    assert mostly(x.reshape(1, -1))
    x[lit[0]] = 1
    assert not mostly(x.reshape(-1, 1))


@given(**SHAPES, d_out=st.integers(1, 100), accumulate=st.booleans(), dtype=DTYPE)
def test_what_is_left_out_does_not_change_a_bit(n, d, d_out, accumulate, dtype, seed):
    rng = np.random.default_rng(seed)
    x, W, g = images(rng, n, d, dtype), *(rng.standard_normal(s).astype(dtype) for s in ((d, d_out), (n, d_out)))
    labels, found = np.empty((n, 0), np.int64), []
    for rows, columns in (
        (all_terms(), all_terms()),
        (kept_terms(x, columns=False), kept_terms(x, columns=True)),
    ):
        h, dW, dx = np.ones_like(g), np.ones_like(W), np.empty_like(x)
        dense(own_queue(), x, rows, W, h, accumulate, False, W, labels, W[0], 0)
        dense_backward(own_queue(), x, columns, g, W, dW, accumulate, dx, True)
        found.append((h, dW, dx))
    # NumPy's own product, in the place of a compiled tile, may add in another order.
    atol = 2000 * np.finfo(dtype).eps if config.DISABLE_JIT else 0
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=atol)


@given(n=st.integers(1, 200), d=st.integers(1, 300), columns=st.booleans())
def test_lists_are_made_some_tiles_at_a_time(n, d, columns):
    x, queue = np.zeros((n, d), np.float32), own_queue()
    tiles = -(-(d if columns else n) // ROWS)
    lists = (
        np.empty((tiles, n if columns else d), np.int32),
        np.empty((tiles, blocks_of(n if columns else d)), np.int64),
    )
    (of_columns if columns else of_rows)(queue, x, *lists)
    assert queue[0][0] == 1 + (-(-tiles // TILES) if columns else tiles)


@given(n=st.integers(2, 50), d=st.integers(2, 50), over=st.booleans(), dark=st.booleans())
def test_terms_are_left_out_of_large_products_of_mostly_zeros(n, d, over, dark):
    x = np.full((n, d), 0 if dark else 1, np.float32)
    assert worth_listing(x, WORTH_LISTING // x.size + over) == (over and dark)


@given(n=st.integers(1, 100), d=st.integers(1, 100), dark=st.booleans(), seed=SHAPES["seed"])
def test_lists_are_made_for_large_products_of_mostly_zeros_only(n, d, dark, seed):
    x = images(np.random.default_rng(seed), n, d, np.float32, 0.97 if dark else 0)
    width = WORTH_LISTING // x.size + 1  # columns that nobody computes
    for kernel, shape, columns in ((of_rows, (n, d), False), (of_columns, (d, n), True)):
        found, listed = shared.kept(alone(), kernel, x, *shape, width), mostly(x)
        for one, other in zip(found, kept_terms(x, columns) if listed else all_terms(), strict=True):
            assert one.shape == other.shape
        if listed:
            (terms, counts), (expected, expected_counts) = found, kept_terms(x, columns)
            np.testing.assert_array_equal(counts, expected_counts)
            blocks = [part(i, counts.shape[1], terms.shape[1], 1)[0] for i in range(counts.shape[1])]
            for t in range(len(terms)):
                for begin, count in zip(blocks, counts[t], strict=True):
                    np.testing.assert_array_equal(*(a[t, begin : begin + count] for a in (terms, expected)))


@given(n=st.integers(100, 300), d=st.integers(100, 300), dtype=DTYPE, seed=SHAPES["seed"])
def test_a_layer_on_dark_images_is_right(n, d, dtype, seed):
    rng, k, width = np.random.default_rng(seed), load("cpu"), 310
    x, W, b, dy = (
        images(rng, n, d, dtype),
        *(rng.standard_normal(s).astype(dtype) for s in ((d, width), width, (n, width))),
    )
    assert worth_listing(x, width)
    dW, db = np.empty_like(W), np.empty_like(b)
    y = k.dense([x], W, b, "linear")
    (dx,) = k.dense_backward(dy, [x], y, W, "linear", dW, db, False, [True])
    for found, expected in ((y, x @ W + b), (dx, dy @ W.T), (dW, x.T @ dy), (db, dy.sum(axis=0))):
        np.testing.assert_allclose(found, expected, rtol=0, atol=2000 * np.finfo(dtype).eps)
