"""Products larger than a tile, a block of the sum, or a piece: right however they are cut."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from queues import kept_terms, own_queue

from minicvae.kernels import compiled, compiled_products, load
from minicvae.kernels.compiled_products import (
    CACHE,
    FEWEST,
    PIECES,
    SUMS,
    TERMS,
    WIDE,
    all_terms,
    apart,
    at_a_line,
    blocks_of,
    cut,
    cut_sums,
    part,
    product,
    product_of_columns,
)
from minicvae.kernels.tiles import ROWS, VECTOR_BYTES, VECTORS, tile, transpose
from minicvae.kernels.workspace import LINE

WIDTH = VECTORS * VECTOR_BYTES // 4  # columns of a strip of float32 numbers
ENDLESS = 1000  # pieces, of which no product here has so many


def plainly(name, *arguments, **instead):
    """Call a kernel's Python code, with others in the place of what it calls."""
    work = getattr(compiled_products, name)
    with pytest.MonkeyPatch.context() as patch:
        for called, other in instead.items():
            patch.setattr(compiled_products, called, other)
        return getattr(work, "py_func", work)(*arguments)


heights = st.one_of(st.sampled_from([ROWS, 2 * ROWS]), st.integers(1, 4 * ROWS))
place = st.tuples(st.integers(0, 2), heights, st.integers(0, 5))  # tiles before, rows, rows behind


@given(
    rows=place,
    columns=st.tuples(st.integers(0, 2), st.integers(1, WIDTH), st.integers(0, 5)),
    terms=st.integers(0, 2 * TERMS + 9),
    turned=st.booleans(),
    listed=st.booleans(),
    accumulate=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_strip_is_computed_in_tiles_as_high_as_there_are_rows_and_nothing_beside_it(
    rows, columns, terms, turned, listed, accumulate, seed
):
    rng, lanes = np.random.default_rng(seed), VECTOR_BYTES // 4
    i0, j0 = rows[0] * ROWS, columns[0] * lanes
    i1, j1 = i0 + rows[1], j0 + columns[1]
    a = rng.standard_normal((i1 + rows[2], terms)) * (rng.random(terms) < (0.3 if listed else 1))
    b, a = rng.standard_normal((terms, j1 + columns[2])).astype(np.float32), a.astype(np.float32)
    expected = np.full((len(a), b.shape[1]), 5, np.float32)
    c = expected.copy()
    c[i0:i1, j0:j1] = 5 if accumulate else np.nan
    expected[i0:i1, j0:j1] = (a @ b)[i0:i1, j0:j1] + (5 if accumulate else 0)
    heights, expected_heights = [], blocks_of(terms) * ([ROWS] * (rows[1] // ROWS) + [1] * (rows[1] % ROWS))

    def note(rows, columns, *more):
        heights.append(rows)
        assert columns == j1 - j0
        assert len(heights) <= len(expected_heights)
        tile(rows, columns, *more)

    b = np.ascontiguousarray(b.T) if turned else b
    kept = kept_terms(a, columns=False) if listed else all_terms()
    plainly("multiply", a, kept, b, turned, c, (i0, i1, j0, j1), accumulate, tile=note)
    np.testing.assert_allclose(c, expected, rtol=0, atol=1e-3)
    assert heights == expected_heights


@given(
    rows=place,
    columns=st.tuples(st.integers(0, 2), st.integers(1, 3 * WIDTH), st.integers(0, 5)),
    n=st.integers(0, 2 * TERMS + 9),
    listed=st.booleans(),
    accumulate=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_piece_of_dw_is_computed_in_tiles_as_high_and_wide_as_may_be(rows, columns, n, listed, accumulate, seed):
    rng, i0, j0 = np.random.default_rng(seed), rows[0] * ROWS, columns[0] * WIDTH
    i1, j1 = i0 + rows[1], j0 + columns[1]
    x = rng.standard_normal((n, i1 + rows[2])) * (rng.random((n, 1)) < (0.3 if listed else 1))
    g, x = rng.standard_normal((n, j1 + columns[2])).astype(np.float32), x.astype(np.float32)
    expected = np.full((x.shape[1], g.shape[1]), 5, np.float32)
    dW = expected.copy()
    dW[i0:i1, j0:j1] = 5 if accumulate else np.nan
    expected[i0:i1, j0:j1] = (x.T @ g)[i0:i1, j0:j1] + (5 if accumulate else 0)
    heights = [ROWS] * (rows[1] // ROWS) + [1] * (rows[1] % ROWS)
    widths = [WIDTH] * (columns[1] // WIDTH) + [columns[1] % WIDTH] * (columns[1] % WIDTH > 0)
    sizes, expected_sizes = [], blocks_of(n) * [(height, width) for height in heights for width in widths]

    def note(rows, columns, left, at, row, step, right, *more):
        sizes.append((rows, columns))
        assert len(sizes) <= len(expected_sizes)
        # With more than one block x and g are copied.
        assert [np.shares_memory(*pair) for pair in ((left, x), (right, g))] == [blocks_of(n) == 1] * 2
        tile(rows, columns, left, at, row, step, right, *more)

    kept = kept_terms(x, columns=True) if listed else all_terms()
    plainly("multiply_examples", x, kept, g, dW, (i0, i1, j0, j1), accumulate, tile=note)
    np.testing.assert_allclose(dW, expected, rtol=0, atol=1e-3)
    assert sizes == expected_sizes


@given(
    at=st.integers(0, 5),
    columns=st.one_of(st.sampled_from([WIDTH, WIDTH // VECTORS]), st.integers(1, WIDTH)),
    depth=st.one_of(st.just(TERMS), st.integers(1, TERMS)),
    more=st.integers(0, 5),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_a_piece_is_transposed_by_vectors_where_they_fit_and_nothing_else_is_read_or_written(
    at, columns, depth, more, dtype
):
    row, lanes, squares = depth + more, VECTOR_BYTES // np.dtype(dtype).itemsize, []
    b = np.arange(at + (columns - 1) * row + depth).astype(dtype)
    piece = np.full((depth, columns + more), -1, dtype)

    def note(b, b_at, b_row, piece, piece_at, width):
        assert 0 <= b_at <= len(b) - (lanes - 1) * b_row - lanes
        assert 0 <= piece_at <= len(piece) - (lanes - 1) * width - lanes
        squares.append(piece_at)
        transpose(b, b_at, b_row, piece, piece_at, width)

    plainly("transpose_piece", b, at, row, columns, depth, piece.reshape(-1), columns + more, transpose=note)
    expected = at + np.arange(columns) * row + np.arange(depth)[:, None]
    np.testing.assert_array_equal(piece, np.pad(expected, ((0, 0), (0, more)), constant_values=-1))
    assert len(set(squares)) == len(squares) == (columns // lanes) * (depth // lanes)


@given(
    at=st.integers(0, 5),
    columns=st.integers(0, WIDTH),
    depth=st.integers(0, 20),
    more=st.tuples(st.integers(0, 5), st.integers(0, 5)),
)
def test_a_piece_is_copied_row_by_row_and_nothing_else_is_written(at, columns, depth, more):
    row, width = columns + more[0], columns + more[1]
    b, piece = np.arange(at + depth * row, dtype=np.float32), np.full((depth, width), -1, np.float32)
    plainly("copy_piece", b, at, row, columns, depth, piece.reshape(-1), width)
    expected = at + np.arange(columns) + row * np.arange(depth)[:, None]
    np.testing.assert_array_equal(piece, np.pad(expected, ((0, 0), (0, more[1])), constant_values=-1))


@given(size=st.integers(1, 1000), dtype=st.sampled_from(["float32", "float64"]))
def test_what_is_copied_begins_at_a_line(size, dtype):
    for found in (plainly("at_a_line", size, np.dtype(dtype)), at_a_line(size, np.dtype(dtype))):
        assert (found.shape, found.dtype, found.ctypes.data % LINE) == ((size,), dtype, 0)
        found[:] = 1  # all of it is there to be written


@given(columns=st.integers(0, 1000), size=st.sampled_from([4, 8]))
def test_rows_that_are_copied_are_an_odd_number_of_vectors_apart(columns, size):
    lanes = VECTOR_BYTES // size
    vectors, rest = divmod(apart(columns, size), lanes)
    assert (rest, vectors % 2) == (0, 1)
    assert columns <= vectors * lanes < columns + 2 * lanes or columns == 0


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


@example(terms=0)
@example(terms=TERMS)
@example(terms=TERMS + 1)
@given(terms=st.integers(0, 5 * TERMS))
def test_a_sum_is_cut_into_as_few_blocks_as_it_can_be(terms):
    assert (blocks_of(terms) - 1) * TERMS < terms <= blocks_of(terms) * TERMS


@example(m=2 * FEWEST, n=1, terms=1, size=4)  # just enough rows for two groups
@example(m=8 * FEWEST, n=PIECES * WIDTH, terms=1, size=4)  # just enough strips
@example(m=CACHE // 256, n=PIECES * WIDTH, terms=64, size=4)  # just small enough for the cache
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


@example(m=ROWS, n=5000, size=4)
@example(m=5000, n=WIDTH, size=4)
@example(m=4 * ROWS, n=4 * WIDTH, size=4)  # just enough of both
@example(m=3 * ROWS, n=WIDTH, size=4)  # just too few tiles for four groups
@example(m=3 * ROWS + 1, n=WIDTH, size=4)
@example(m=ROWS, n=3 * WIDTH, size=4)  # just too few strips for four columns
@example(m=ROWS, n=3 * WIDTH + 1, size=4)
@example(m=2 * ROWS, n=3 * WIDTH, size=4)  # wide, and no strip is left to be cut off
@example(m=512, n=PIECES * SUMS // 2048, size=4)  # just small enough for the cache
@example(m=PIECES * CACHE // (4 * TERMS), n=1, size=4)  # just few enough rows to be copied
@example(m=1, n=PIECES * CACHE // (4 * TERMS), size=4)  # just few enough columns
@example(m=100_000, n=1, size=8)
@example(m=1, n=100_000, size=8)
@given(m=st.integers(1, 5000), n=st.integers(1, 5000), size=st.sampled_from([4, 8]))
def test_sums_are_cut_into_pieces_that_are_not_too_wide_for_all_threads_and_for_the_cache(m, n, size):
    columns, groups = cut_sums(m, n, size)
    tiles, strips = -(-m // ROWS), -(-n * size // (VECTORS * VECTOR_BYTES))
    assert 1 <= columns <= strips
    assert 1 <= groups <= tiles

    def enough(columns, groups):
        small = m * n * size <= columns * groups * SUMS and (m // groups + n // columns) * TERMS * size <= CACHE
        return columns * groups >= PIECES and small

    if not enough(columns, groups):
        assert columns > strips / 2
        assert groups > tiles / 2
    if columns * groups > 1:  # before the last cut there were not enough
        assert not (enough(columns, max(groups // 2, 1)) and enough(max(columns // 2, 1), groups))
    # Rows were cut as long as a piece was not too wide, columns where it was; or what could be cut at all.
    assert groups == 1 or 2 * WIDE * m * columns >= n * groups or 2 * columns > strips
    assert columns == 1 or 2 * n * groups > WIDE * m * columns or 2 * groups > tiles


def test_sums_that_just_fit_are_cut_no_further():
    assert np.prod(cut_sums(512, PIECES * SUMS // (512 * 4), 4)) == PIECES


def pieces(name, *arguments, **instead):
    """How often the queue was asked."""
    queue = own_queue()
    plainly(name, queue, *arguments, **instead)
    return queue[0][0]


def assert_each_number_once(shape, bounds, widest=WIDTH):
    covered = np.zeros(shape, int)
    for i0, i1, j0, j1 in bounds:
        covered[i0:i1, j0:j1] += 1
        assert (i1 - i0) > 0
        assert 0 < j1 - j0 <= widest
        assert i0 % ROWS == 0
        assert j0 % (VECTOR_BYTES // 4) == 0
    assert (covered == 1).all()


@given(n=st.integers(1, 600), d_out=st.integers(1, 300), accumulate=st.booleans(), last=st.booleans())
def test_every_number_of_a_layer_is_computed_in_one_piece_and_then_activated(n, d_out, accumulate, last):
    x, W, h = (np.empty(shape, np.float32) for shape in ((n, 3), (3, d_out), (n, d_out)))
    labels, everything, computed, activated = np.empty((n, 0), np.int64), all_terms(), [], []

    def multiply(a, kept, b, turned, c, bounds, more):
        assert (a is x, kept is everything, b is W, turned, c is h, more) == (True, True, True, False, True, accumulate)
        computed.append(bounds)
        assert len(computed) < ENDLESS

    asked = pieces(
        *("dense", x, everything, W, h, accumulate, last, W, labels, W[0], 2),
        multiply=multiply,
        add_rows_activate=lambda h, gathered, rows, b, activation, *bounds: activated.append(bounds),
    )
    assert_each_number_once(h.shape, computed)
    assert activated == (computed if last else [])
    strips, groups = cut(n, d_out, 3, 4)
    assert len(computed) == strips * groups == asked - 1


@given(
    n=st.integers(1, 600),
    d_in=st.integers(1, 2000),
    d_out=st.integers(1, 600),
    accumulate=st.booleans(),
    need=st.booleans(),
)
def test_every_number_of_the_gradients_is_computed_in_one_piece(n, d_in, d_out, accumulate, need):
    x, g, W, dW, dx = (np.empty(s, np.float32) for s in ((n, d_in), (n, d_out), *[(d_in, d_out)] * 2, (n, d_in)))
    kept, of_dx, of_dw = (np.ones((2, 2), np.int32), np.ones((2, 2), np.int64)), [], []

    def multiply(a, terms, b, turned, c, bounds, more):
        assert (a is g, b is W, turned, c is dx, more) == (True, True, True, True, False)
        assert [(part.size, part.dtype) for part in terms] == [(0, np.int32), (0, np.int64)]  # all
        of_dx.append(bounds)
        assert len(of_dx) < ENDLESS

    def multiply_examples(a, terms, b, c, bounds, more):
        assert (a is x, terms is kept, b is g, c is dW, more) == (True, True, True, True, accumulate)
        of_dw.append(bounds)
        assert len(of_dw) < ENDLESS

    asked = pieces(
        *("dense_backward", x, kept, g, W, dW, accumulate, dx, need),
        multiply=multiply,
        multiply_examples=multiply_examples,
    )
    if need:
        assert_each_number_once(dx.shape, of_dx)
    strips, groups = cut(n, d_in, d_out, 4)
    assert len(of_dx) == (strips * groups if need else 0)
    assert len(of_dx) + len(of_dw) == asked - 1
    assert_each_number_once(dW.shape, of_dw, widest=d_out)
    assert len(of_dw) == np.prod(cut_sums(d_in, d_out, 4))
    assert all(j0 % WIDTH == 0 for _, _, j0, _ in of_dw)
    for begin, end, unit in ((0, 1, ROWS), (2, 3, WIDTH)):  # no piece is more than a tile larger than another
        sizes = [-(-(bounds[end] - bounds[begin]) // unit) for bounds in of_dw]
        assert max(sizes) - min(sizes) <= 1


@given(
    n=st.integers(1, 600),
    d_in=st.integers(1, 300),
    d_out=st.integers(1, 300),
    shares=st.integers(2, 4),
    data=st.data(),
)
def test_a_thread_that_is_alone_computes_the_pieces_of_all_shares(n, d_in, d_out, shares, data):
    x, W, h = (np.empty(shape, np.float32) for shape in ((n, d_in), (d_in, d_out), (n, d_out)))
    labels, everything, own = np.empty((n, 0), np.int64), all_terms(), data.draw(st.integers(0, shares - 1))
    of_h, of_dx, of_dw = [], [], []

    def multiply(a, kept, b, turned, c, bounds, more):
        (of_dx if turned else of_h).append(bounds)

    def multiply_examples(x, kept, g, dW, bounds, more):
        of_dw.append(bounds)
        assert len(of_dw) < ENDLESS

    instead, queues = {"multiply": multiply}, [own_queue(shares=shares, own=own) for _ in range(2)]
    plainly("dense", queues[0], x, everything, W, h, False, False, W, labels, W[0], 0, **instead)
    instead |= {"multiply_examples": multiply_examples}
    plainly("dense_backward", queues[1], x, everything, h, W, W, False, x, True, **instead)
    assert_each_number_once(h.shape, of_h)
    assert_each_number_once(x.shape, of_dx)
    assert_each_number_once((d_in, d_out), of_dw, widest=d_out)


@given(
    n=st.integers(0, 50),
    d=st.integers(1, 30),
    parts=st.integers(1, 6),
    activation=st.sampled_from(["linear", "relu", "tanh"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_slopes_are_summed_over_parts_of_the_examples(n, d, parts, activation, seed):
    rng = np.random.default_rng(seed)
    dy, y = rng.standard_normal((n, d)), rng.uniform(-1, 1, (n, d))
    g, sums = np.full((n, d), np.nan), np.full((parts, d), np.nan)
    asked = pieces("slopes", dy, y, g, sums, compiled.ACTIVATION[activation])
    expected = dy * {"linear": 1, "relu": y > 0, "tanh": 1 - y**2}[activation]
    assert np.isnan(g).all() if activation == "linear" else np.allclose(g, expected, rtol=0, atol=1e-14)
    of_parts = [expected[slice(*part(i, parts, n, 1))].sum(axis=0) for i in range(parts)]
    np.testing.assert_allclose(sums, of_parts, rtol=0, atol=1e-12)
    assert asked == parts + 1


@given(
    m=st.integers(1, 4 * ROWS + 1),
    n=st.integers(1, 3 * WIDTH),
    terms=st.integers(0, 2 * TERMS + 9),
    turned=st.booleans(),
    accumulate=st.booleans(),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_products_here_and_now(m, n, terms, turned, accumulate, dtype, seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in ((m, terms), (terms, n)))
    start, expected = np.full((m, n), 5 if accumulate else np.nan, dtype), a @ b + (5 if accumulate else 0)
    c, d = start.copy(), start.copy()
    product(a, np.ascontiguousarray(b.T) if turned else b, turned, c, accumulate)
    product_of_columns(np.ascontiguousarray(a.T), b, d, accumulate)
    for found in (c, d):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 if dtype == "float32" else 1e-11)


@given(m=st.integers(1, 100), n=st.integers(1, 5 * WIDTH))
def test_a_product_goes_strip_by_strip_as_few_and_as_wide_as_may_be(m, n):
    bounds, a, b, c = [], *(np.empty(shape, np.float32) for shape in ((m, 3), (3, n), (m, n)))

    def multiply(left, kept, right, turned, result, of_strip, more):
        assert (left is a, right is b, turned, result is c, more) == (True, True, False, True, True)
        assert kept[0].size == 0
        bounds.append(of_strip)

    plainly("product", a, b, False, c, True, multiply=multiply)
    assert_each_number_once(c.shape, bounds)
    widths = [j1 - j0 for _, _, j0, j1 in bounds]
    assert len(widths) == -(-n // WIDTH)
    assert max(widths) - min(widths) < 2 * VECTOR_BYTES // 4  # a vector, or what is left of one
