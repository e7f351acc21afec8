"""Portions are as large as they must be, and a signature tells what a recording depends on."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from minicvae.kernels.steps import portions, signature


@example(lengths=[4, 4, 3, 1], size=4)
@given(lengths=st.lists(st.integers(0, 20), max_size=12), size=st.integers(1, 50))
def test_portions_are_as_large_as_they_must_be_and_no_larger(lengths, size):
    arrays = [np.zeros(length, np.uint8) for length in lengths]
    *whole, rest = found = list(portions(iter(arrays), size))
    assert [id(a) for portion in found for a in portion] == [id(a) for a in arrays]
    assert sum(a.nbytes for a in rest) < size
    for portion in whole:
        assert sum(a.nbytes for a in portion[:-1]) < size <= sum(a.nbytes for a in portion)


def test_a_portion_is_given_out_before_more_is_drawn():
    drawn = []
    next(portions((drawn.append(i) or np.zeros(8, np.uint8) for i in range(9)), 24))
    assert drawn == [0, 1, 2]


def test_a_signature_is_the_shapes_and_types():
    one = signature((1.0, np.zeros((2, 3)), np.zeros(2, np.int64)))
    assert one == signature((5.0, np.ones((2, 3)), np.ones(2, np.int64)))
    for other in ((1, np.zeros((2, 3)), np.zeros(2, np.int64)), (1.0, np.zeros((3, 2)), np.zeros(2, np.int64))):
        assert signature(other) != one
    assert signature((1.0, np.zeros((2, 3), np.float32), np.zeros(2, np.int64))) != one
    assert len({one: 0, signature((2.0, np.zeros((2, 3)), np.zeros(2, np.int64))): 1}) == 1


@given(count=st.integers(0, 300), size=st.sampled_from([1, 8, 20]), most=st.sampled_from([0, 8, 70, 10_000]))
def test_portions_may_grow(count, size, most):
    found = list(portions((np.zeros(1) for _ in range(count)), size, most))
    assert sum(map(len, found)) == count
    wanted = size
    for portion in found[:-1]:
        assert len(portion) == -(-wanted // 8)
        wanted = max(wanted, min(2 * wanted, most))
    assert 8 * len(found[-1]) < wanted
