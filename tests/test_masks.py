"""Which pixels are hidden: the quadrants of the paper, rectangles, and the words in which other masks are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.masks import check_hidden, quadrants, random_rectangles, rectangle
from minicvae.randomness import Purpose, generator

sides = st.integers(2, 9)


@given(h=sides, w=sides)
def test_the_quadrants_that_are_seen_are_those_of_the_paper(h, w):
    """The lower left; the left half; all but the lower right."""
    upper, left = slice(0, h // 2), slice(0, w // 2)
    lower, right = slice(h // 2, h), slice(w // 2, w)
    for shown, seen in ((1, [(lower, left)]), (2, [(upper, left), (lower, left)])):
        expected = np.ones((h, w), bool)
        for quadrant in seen:
            expected[quadrant] = False
        np.testing.assert_array_equal(quadrants(shown, (h, w)), expected)
    expected = np.zeros((h, w), bool)
    expected[lower, right] = True
    np.testing.assert_array_equal(quadrants(3, (h, w)), expected)


def test_of_mnist_three_two_and_one_quadrants_are_hidden():
    assert [quadrants(shown).sum() for shown in (1, 2, 3)] == [3 * 196, 2 * 196, 196]


def test_a_mask_can_be_changed_without_harm_to_others():
    mask = quadrants(2)
    mask[0, 20] = False
    assert mask.sum() == 391
    assert quadrants(2).sum() == 392


@given(data=st.data(), h=sides, w=sides)
def test_a_rectangle_hides_what_lies_within_it(data, h, w):
    top, left = data.draw(st.integers(0, h - 1)), data.draw(st.integers(0, w - 1))
    height, width = data.draw(st.integers(1, h - top)), data.draw(st.integers(1, w - left))
    mask = rectangle(top, left, height, width, (h, w))
    for i in range(h):
        for j in range(w):
            assert mask[i, j] == (top <= i < top + height and left <= j < left + width)


@pytest.mark.parametrize(
    "wrong", [(-1, 0, 2, 2), (0, -1, 2, 2), (0, 0, 0, 2), (0, 0, 2, 0), (3, 0, 2, 1), (0, 4, 1, 2)]
)
def test_a_rectangle_that_is_empty_or_reaches_beyond_the_image_is_refused(wrong):
    with pytest.raises(ValueError, match="expected a rectangle within 4x5 pixels, got " + ", ".join(map(str, wrong))):
        rectangle(*wrong, (4, 5))


@given(h=sides, w=sides, share=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted), seed=st.integers(0, 2**64 - 1))
def test_each_random_mask_hides_one_rectangle_of_an_allowed_size(h, w, share, seed):
    masks = random_rectangles(5, (h, w), share=tuple(share), seed=seed)
    assert masks.shape == (5, h, w)
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        top, left, height, width = rows[0], columns[0], len(rows), len(columns)
        np.testing.assert_array_equal(mask, rectangle(top, left, height, width, (h, w)))
        for length, side in ((height, h), (width, w)):
            assert max(1, round(share[0] * side)) <= length <= max(1, round(share[1] * side))
    np.testing.assert_array_equal(masks, random_rectangles(5, (h, w), share=tuple(share), seed=seed))


@given(n=st.integers(1, 9), h=sides, w=sides, seed=st.integers(0, 2**64 - 1))
def test_random_masks_are_those_of_their_seed_and_purpose(n, h, w, seed):
    """Another purpose, such as the noise of training, has other random numbers from the same seed."""
    heights = random_rectangles(n, (h, w), share=(0, 1), seed=seed).any(axis=2).sum(axis=1)
    np.testing.assert_array_equal(heights, generator(seed, Purpose.MASK).integers(1, h, n, endpoint=True))


def test_random_rectangles_reach_every_pixel_and_every_size():
    masks = random_rectangles(2000, (8, 6), share=(0.25, 0.5), seed=1)
    assert masks.any(axis=0).all()
    assert set(masks.any(axis=2).sum(axis=1)) == {2, 3, 4}
    assert set(masks.any(axis=1).sum(axis=1)) == {2, 3}
    assert (masks != random_rectangles(2000, (8, 6), share=(0.25, 0.5), seed=2)).any()


def test_one_mask_is_for_all_images_and_many_are_one_for_each():
    one = rectangle(0, 1, 2, 2, (3, 4))
    spread = check_hidden(one, 5, (3, 4))
    assert spread.shape == (5, 12)
    assert (spread == one.reshape(12)).all()
    many = random_rectangles(5, (3, 4))
    np.testing.assert_array_equal(check_hidden(many, 5, (3, 4)), many.reshape(5, 12))
    np.testing.assert_array_equal(check_hidden(many.tolist(), 5, (3, 4)), many.reshape(5, 12))


def nothing_in_the_second():
    masks = np.ones((3, 3, 4), bool)
    masks[1] = False
    return masks


@pytest.mark.parametrize(
    ("mask", "error", "words"),
    [
        (np.ones((3, 4)), TypeError, "hidden: expected bools, true where a pixel is hidden, got type float64"),
        (np.ones((4, 3), bool), ValueError, r"expected a mask of shape \(3, 4\), or \(3, 3, 4\), got shape \(4, 3\)"),
        (np.ones((2, 3, 4), bool), ValueError, r"got shape \(2, 3, 4\)"),
        (np.ones(12, bool), ValueError, r"got shape \(12,\)"),
        (nothing_in_the_second(), ValueError, "something hidden in every image, got nothing hidden in mask 1"),
        (np.zeros((3, 4), bool), ValueError, "nothing hidden in mask 0"),
    ],
)
def test_other_masks_are_refused(mask, error, words):
    with pytest.raises(error, match=words):
        check_hidden(mask, 3, (3, 4))


def test_other_arguments_are_refused():
    for wrong in (0, 4, "1", 2.5):
        with pytest.raises(ValueError, match="shown: expected 1, 2 or 3 quadrants, got"):
            quadrants(wrong)
    with pytest.raises(ValueError, match="sides of at least 2 pixels"):
        quadrants(1, (1, 5))
    for wrong in ((28,), (28, 28, 1), (0, 3)):
        with pytest.raises(ValueError, match="image_shape: expected"):
            quadrants(1, wrong)
    with pytest.raises(ValueError, match="n: expected at least 1, got 0"):
        random_rectangles(0)
    for wrong in ((0.5, 0.4), (-0.1, 0.5), (0.5, 1.1), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match="share: expected 0 <= least <= greatest <= 1"):
            random_rectangles(1, share=wrong)
