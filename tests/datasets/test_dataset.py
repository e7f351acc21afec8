"""The pair of images and labels that every source returns."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.datasets import Dataset


def some(n, **changes):
    return Dataset(**{"x": np.zeros((n, 3, 4), np.uint8), "y": np.arange(n), **changes})


@given(data=st.data(), n=st.integers(2, 50))
def test_holding_out_splits_off_the_last_examples_as_views(data, n):
    whole = some(n, class_names=("a", "b"))
    last = data.draw(st.integers(1, n - 1))
    rest, held_out = whole.hold_out(last)
    assert (len(rest), len(held_out)) == (n - last, last)
    assert [*rest.y, *held_out.y] == list(range(n))
    for part in (rest, held_out):
        assert part.x.shape == (len(part), 3, 4)
        assert np.shares_memory(part.x, whole.x)
        assert np.shares_memory(part.y, whole.y)
        assert part.class_names == whole.class_names


@pytest.mark.parametrize("n", [-1, 0, 5, 6])
def test_both_parts_of_a_split_need_an_example(n):
    with pytest.raises(ValueError, match=f"n: expected 1 to 4 of 5 examples, got {n}"):
        some(5).hold_out(n)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": np.zeros((5, 3, 4))}, TypeError, "x: expected uint8 .* got float64"),
        ({"x": np.zeros((5, 12), np.uint8)}, ValueError, r"\(n, h, w\).*\(5, 12\)"),
        ({"x": np.zeros((0, 3, 4), np.uint8), "y": np.arange(0)}, ValueError, r"\(0, 3, 4\)"),
        ({"x": np.zeros((5, 0, 4), np.uint8)}, ValueError, r"\(5, 0, 4\)"),
        ({"y": np.zeros(5)}, TypeError, "y: expected integer labels, got float64"),
        ({"y": np.arange(4)}, ValueError, r"one label for each of 5 images, got the shape \(4,\)"),
        ({"y": np.zeros((5, 1), int)}, ValueError, r"one label for each of 5 images, got the shape \(5, 1\)"),
    ],
)
def test_other_types_and_shapes_are_refused(changes, error, message):
    with pytest.raises(error, match=message):
        some(5, **changes)


def test_a_data_set_says_what_it_is_and_cannot_be_reassigned():
    data = some(5)
    assert "uint8(5, 3, 4)" in repr(data)
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.x = data.x
