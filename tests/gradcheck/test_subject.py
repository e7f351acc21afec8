"""The function under test: the points of a line, what is watched, and how gradients and upstream gradients are cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.gradcheck import assert_gradients
from minicvae.gradcheck.subject import Subject

SIZES = st.floats(1e-9, 1e9)


def subject(forward, *inputs):
    return Subject(forward, inputs, None, None, None)


def square(x):
    return x**2, lambda dy: 2 * dy * x


@given(x=SIZES, t=SIZES, sign=st.sampled_from([-1.0, 1.0]))
def test_the_step_along_an_element_is_the_one_that_was_taken_after_rounding(x, t, sign):
    under_test = subject(square, np.array([1.0, x]))
    step, y = under_test.element_line("x", 1)(sign * t)
    assert step == (x + sign * t) - x
    np.testing.assert_array_equal(y, [1, (x + sign * t) ** 2])
    np.testing.assert_array_equal(under_test.arguments["x"], [1, x])


@given(t=st.floats(-9, 9))
def test_a_direction_moves_all_that_it_names_and_puts_them_back(t):
    under_test = subject(lambda x, y: (np.append(x, y), lambda dy: (dy[:2], dy[2:])), np.ones(2), np.ones(1))
    step, found = under_test.direction_line({"x": np.array([2.0, 3.0])})(t)
    assert step == t
    np.testing.assert_array_equal(found, [1 + 2 * t, 1 + 3 * t, 1])
    np.testing.assert_array_equal(under_test.arguments["x"], [1, 1])


@pytest.mark.parametrize("other", [np.array([np.nan, None]), np.array(["a", "b"]), np.array([1, 2])])
def test_what_passes_through_may_be_of_any_type_and_hold_nan(other):
    assert_gradients(lambda x, other: (x**2, lambda dy: (2 * dy * x, None)), (np.array([1.0, 2.0]), other))


def test_where_one_input_is_differentiated_backward_may_return_its_gradient_alone():
    def forward(x, places):
        return x[places] ** 2, lambda dy: np.bincount(places, 2 * dy * x[places], len(x))

    assert_gradients(forward, (np.array([1.0, 2.0, 3.0]), np.array([2, 0, 2])))
    run = subject(lambda a, b: (a * b, lambda dy: dy * b), np.ones(2), np.ones(2)).run(np.ones)
    assert run.problems == ["backward returns 1 gradients for 2 inputs"]


def test_a_number_has_a_number_and_an_array_without_axes_an_array_for_its_upstream_gradient():
    seen = []

    def forward(x):
        return (float(x.sum()), np.array(x.sum()), x), lambda dy: seen.extend(dy) or dy[0] + dy[1] + dy[2]

    subject(forward, np.ones(2)).run(lambda k: np.arange(k, dtype=float))
    assert [type(part) for part in seen] == [np.float64, np.ndarray, np.ndarray]
    assert [np.shape(part) for part in seen] == [(), (), (2,)]
    np.testing.assert_array_equal(np.concatenate([np.ravel(part) for part in seen]), np.arange(4))


def test_inputs_have_the_names_that_forward_gives_them_and_x_where_it_gives_none():
    def named(weights, bias):
        return weights * bias, lambda dy: (dy * bias, dy * weights)

    def unnamed(*inputs):
        return sum(inputs), lambda dy: (dy,) * len(inputs)

    a, b, c = (np.full(2, float(i)) for i in range(3))
    for forward, inputs, names in (
        (named, (a, b), ["weights", "bias"]),
        (unnamed, (a,), ["x"]),
        (unnamed, (a, b), ["x0", "x1"]),
        (unnamed, (a, b, c), ["x0", "x1", "x2"]),
    ):
        assert list(subject(forward, *inputs).arguments) == names
    under_test = Subject(unnamed, (a, b), None, None, ("left", "right"))
    assert list(under_test.arguments) == ["left", "right"]
    np.testing.assert_array_equal(under_test.arguments["right"], b)
