"""Kernels in pieces: each piece is given to the kernel once, its arrays cut alike, and the numbers as they are."""

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from queues import own_queue

from minicvae.kernels import compiled, pieces
from minicvae.kernels.pieces import NUMBERS, ROWS, next_start

BY_ROWS = ("gather_pixels", "bernoulli", "gaussian", "scale_rows")
SIZE = {**dict.fromkeys(BY_ROWS, ROWS), **dict.fromkeys(("sigmoid", "sgd", "adam"), NUMBERS)}
CUT = {"index", "x", "logits", "nll", "derivative", "rows", "scale", "h", "y", "value", "grad", "velocity", "m", "v"}


def given_to(name, arguments, taken, most):
    """What each call of the kernel in `compiled` was given where others have taken pieces, and the queue's next."""
    calls, queue = [], own_queue(taken)

    def note(*given):
        assert len(calls) < most, "there are too many pieces"
        calls.append(given)

    work = getattr(pieces, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, name, note)
        getattr(work, "py_func", work)(queue, *arguments)
    return calls, queue[0][0]


@pytest.mark.parametrize("name", SIZE)
@given(whole=st.integers(0, 4), filled=st.sampled_from([0, 1, 0.5, 1 - 1e-9]), taken=st.integers(0, 2))
def test_every_piece_is_given_to_the_kernel_once_and_what_is_no_array_as_it_is(name, whole, filled, taken):
    size = SIZE[name]
    n = whole * size + int(filled * size)
    names = list(inspect.signature(getattr(pieces, name)).parameters)[1:]
    arguments = [np.arange(n) + i / 100 if called in CUT else i / 100 for i, called in enumerate(names)]
    starts = range(taken * size, n, size)
    calls, following = given_to(name, arguments, taken, len(starts))
    assert following == taken + len(starts) + 1  # the last answer says that nothing is left
    for start, call in zip(starts, calls, strict=True):
        for called, passed, found in zip(names, arguments, call, strict=True):
            if called in CUT:
                np.testing.assert_array_equal(found, passed[start : start + size])
            else:
                assert found is passed


@given(
    unit=st.integers(1, 9), whole=st.integers(0, 6), less=st.integers(0, 1), shares=st.integers(1, 4), data=st.data()
)
def test_no_thread_stops_while_a_piece_of_any_share_is_left(unit, whole, less, shares, data):
    length = max(whole * unit - less, 0)
    starts, queue = range(0, length, unit), own_queue(shares=shares, own=data.draw(st.integers(0, shares - 1)))
    assert sorted(next_start(queue, length, unit) for _ in starts) == list(starts)
    assert next_start(queue, length, unit) >= length
