"""Terms that are zero: listed as they are, and left out of a product without changing a bit of it."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from numba import config
from queues import kept_terms, own_queue

from minicvae.kernels import load
from minicvae.kernels.compiled_products import ALL, TERMS, all_terms, blocks_of, dense, dense_backward, part
from minicvae.kernels.tiles import ROWS
from minicvae.kernels.zeros import MOSTLY, SAMPLE, TILES, WORTH_LISTING, mostly, of_columns, of_rows, room

SHAPES = {"n": st.integers(1, 400), "d": st.integers(1, 400), "seed": st.integers(0, 2**32 - 1)}
DTYPE = st.sampled_from(["float32", "float64"])


def images(rng, n, d, dtype, dark=0.9):
    """Of which most pixels are zero, often many beside each other."""
    lit = rng.random((n, d)) > dark
    if dark:
        lit &= rng.random((n, 1)) < rng.random(d)
    return (rng.standard_normal((n, d)) * lit).astype(dtype)


def listed(x, columns):
    """What the kernels list of x, by a thread of its own."""
    lists = [np.full(*wanted) for wanted in ((s, -7, t) for s, t in room(*(x.shape[::-1] if columns else x.shape)))]
    (of_columns if columns else of_rows)(own_queue(), x, *lists)
    return lists


def assert_listed(x, columns, terms, counts):
    """All that are to be kept, block by block, if x is mostly zero; or that none is left out."""
    expected, expected_counts = kept_terms(x, columns)
    assert (terms.shape, counts.shape) == (expected.shape, expected_counts.shape)
    if not mostly(x):
        assert counts[0, 0] == ALL
        return
    np.testing.assert_array_equal(counts, expected_counts)
    for block in range(counts.shape[1]):
        begin, _ = part(block, counts.shape[1], terms.shape[1], 1)
        for found, kept, count in zip(terms, expected, counts[:, block], strict=True):
            np.testing.assert_array_equal(found[begin : begin + count], kept[begin : begin + count])


@given(
    **SHAPES,
    dtype=DTYPE,
    columns=st.booleans(),
    dark=st.sampled_from([0, 0.9]),
    signs=st.booleans(),
    special=st.sampled_from([1.0, np.nan, -np.inf, 5e-324, -1e-45]),
    full=st.booleans(),
)
@example(n=99, d=2 * TERMS + 1, seed=0, dtype="float32", columns=False, dark=0.9, signs=False, special=1.0, full=True)
@example(n=2 * TERMS + 1, d=99, seed=0, dtype="float32", columns=True, dark=0.9, signs=False, special=1.0, full=True)
def test_what_is_listed_are_the_terms_in_which_not_all_rows_of_a_tile_are_zero(
    n, d, dtype, columns, dark, signs, special, full, seed
):
    rng = np.random.default_rng(seed)
    x = images(rng, n, d, dtype, dark)
    x = np.sign(x) if signs else x  # numbers that could cancel
    x[rng.integers(n), rng.integers(d)] = special
    if full:
        (x.T if columns else x)[:ROWS] = 1
    assert_listed(x, columns, *listed(x, columns))


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
    terms = n if columns else d
    lists = np.empty((tiles, terms), np.int32), np.empty((tiles, blocks_of(terms)), np.int64)
    (of_columns if columns else of_rows)(queue, x, *lists)
    assert queue[0][0] == 1 + (-(-tiles // TILES) if columns else tiles)


@given(n=st.integers(1, 100), d=st.integers(1, 100), over=st.booleans(), dark=st.booleans(), seed=SHAPES["seed"])
def test_lists_are_made_for_large_products_only(n, d, over, dark, seed):
    x = images(np.random.default_rng(seed), n, d, np.float32, 0.97 if dark else 0)
    width = WORTH_LISTING // x.size + over  # columns that nobody computes
    for kernel, shape, columns in ((of_rows, (n, d), False), (of_columns, (d, n), True)):
        terms, counts = load("cpu")._listed(kernel, x, shape, width)
        if over:
            assert_listed(x, columns, terms, counts)
        else:
            assert (terms.shape, counts.shape, terms.dtype, counts.dtype) == ((0, 0), (0, 0), np.int32, np.int64)


@given(n=st.integers(9, 200), d=st.integers(9, 200), d_out=st.integers(1, 100), dtype=DTYPE, seed=SHAPES["seed"])
def test_where_most_is_lit_nothing_is_left_out(n, d, d_out, dtype, seed):
    rng = np.random.default_rng(seed)
    x, W, g = (rng.standard_normal(shape).astype(dtype) for shape in ((n, d), (d, d_out), (n, d_out)))
    h, dW, dx, labels = np.empty_like(g), np.empty_like(W), np.empty_like(x), np.empty((n, 0), np.int64)
    dense(own_queue(), x, tuple(listed(x, False)), W, h, False, False, W, labels, W[0], 0)
    dense_backward(own_queue(), x, tuple(listed(x, True)), g, W, dW, False, dx, True)
    for found, expected in ((h, x @ W), (dW, x.T @ g), (dx, g @ W.T)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=2000 * np.finfo(dtype).eps)


@given(n=st.integers(100, 300), d=st.integers(100, 300), dtype=DTYPE, seed=SHAPES["seed"])
def test_a_layer_on_dark_images_is_right(n, d, dtype, seed):
    rng, k, width = np.random.default_rng(seed), load("cpu"), 310
    x, W, b, dy = (
        images(rng, n, d, dtype),
        *(rng.standard_normal(s).astype(dtype) for s in ((d, width), width, (n, width))),
    )
    assert mostly(x)
    dW, db = np.empty_like(W), np.empty_like(b)
    y = k.dense([x], W, b, "linear")
    (dx,) = k.dense_backward(dy, [x], y, W, "linear", dW, db, False, [True])
    for found, expected in ((y, x @ W + b), (dx, dy @ W.T), (dW, x.T @ dy), (db, dy.sum(axis=0))):
        np.testing.assert_allclose(found, expected, rtol=0, atol=2000 * np.finfo(dtype).eps)
