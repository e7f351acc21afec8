"""Kernels in pieces: each piece is given to the kernel once, its arrays cut alike, and the numbers as they are."""

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from queues import own_queue

from minicvae.kernels import compiled, compiled_images, pieces
from minicvae.kernels.pieces import NUMBERS, ROWS, next_start

BY_ROWS = ("gather_pixels", "bernoulli", "gaussian", "scale_rows")
BY_NUMBERS = ("sigmoid", "sgd", "adam")
BY_IMAGES = ("max_pool", "max_pool_backward", "upsample", "upsample_backward")
SIZE = {**dict.fromkeys(BY_ROWS, ROWS), **dict.fromkeys(BY_NUMBERS, NUMBERS), **dict.fromkeys(BY_IMAGES, 1)}
CUT = {
    *("index", "x", "logits", "nll", "derivative", "rows", "scale", "h", "y", "value", "grad", "velocity", "m", "v"),
    *("dx", "dy"),
}


def given_to(name, arguments, taken, most):
    """What each call of the kernel in `compiled` was given where others have taken pieces, and the queue's next."""
    calls, queue = [], own_queue(taken)

    def note(*given):
        assert len(calls) < most, "there are too many pieces"
        calls.append(given)

    work = getattr(pieces, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled_images if name in BY_IMAGES else compiled, name, note)
        getattr(work, "py_func", work)(queue, *arguments)
    return calls, queue[0][0]


@pytest.mark.parametrize("name", SIZE)
@given(whole=st.integers(0, 4), filled=st.sampled_from([0, 1, 0.5, 1 - 1e-9]), taken=st.integers(0, 2))
def test_every_piece_is_given_to_the_kernel_once_and_what_is_no_array_as_it_is(name, whole, filled, taken):
    size = SIZE[name]
    n = whole * size + int(filled * size)
    names = list(inspect.signature(getattr(pieces, name)).parameters)[1:]
    arguments = [(np.arange(n) + i / 100).astype("f") if called in CUT else i / 100 for i, called in enumerate(names)]
    starts = range(taken * size, n, size)
    calls, following = given_to(name, arguments, taken, len(starts))
    assert following == taken + len(starts) + 1  # the last answer says that nothing is left
    for start, call in zip(starts, calls, strict=True):
        if name in ("sgd", "adam"):
            assert call[-1] == np.finfo(np.float32).tiny
            call = call[:-1]
        for called, passed, found in zip(names, arguments, call, strict=True):
            if called in CUT:
                np.testing.assert_array_equal(found, passed[start : start + size])
            else:
                assert found is passed or (type(found), found) == (np.float32, np.float32(passed))


@given(
    parts=st.integers(1, 5),
    length=st.sampled_from([0, 1, 70, NUMBERS - 1, NUMBERS, 2 * NUMBERS + 3]),
    accumulate=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_parts_are_added_up_one_after_the_other(parts, length, accumulate, seed):
    sums = np.random.default_rng(seed).standard_normal((parts, length))
    total = np.full(length, 3.0 if accumulate else np.nan)
    expected = total.copy() if accumulate else np.zeros(length)
    for part in sums:
        expected += part
    pieces.add_parts(own_queue(), sums, total, accumulate)
    np.testing.assert_array_equal(total, expected)


@given(
    unit=st.integers(1, 9), whole=st.integers(0, 6), less=st.integers(0, 1), shares=st.integers(1, 4), data=st.data()
)
def test_no_thread_stops_while_a_piece_of_any_share_is_left(unit, whole, less, shares, data):
    length = max(whole * unit - less, 0)
    starts, queue = range(0, length, unit), own_queue(shares=shares, own=data.draw(st.integers(0, shares - 1)))
    assert sorted(next_start(queue, length, unit) for _ in starts) == list(starts)
    assert next_start(queue, length, unit) >= length
