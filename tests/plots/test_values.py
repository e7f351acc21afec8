"""Conditions taken apart and put together, and the examples that pictures pick."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minicvae.conditions import Classes, Condition, Parts, Vector
from minicvae.kernels import load
from minicvae.plots.picks import in_turn, pairs
from minicvae.plots.values import called, first, groups, repeat, signed, take, variables

conditions = st.recursive(
    st.builds(Classes, st.integers(1, 12)) | st.builds(Vector, st.integers(1, 4)),
    lambda parts: st.builds(Parts, st.dictionaries(st.sampled_from("abc"), parts, min_size=1)),
    max_leaves=4,
)


def drawn(condition, n, seed):
    """n conditions."""
    rng = np.random.default_rng(seed)
    if isinstance(condition, Parts):
        return {key: drawn(part, n, seed + i + 1) for i, (key, part) in enumerate(condition.parts.items())}
    return (
        rng.integers(0, condition.classes, n) if isinstance(condition, Classes) else rng.normal(size=(n, condition.dim))
    )


@given(condition=conditions, seed=st.integers(0, 1000))
def test_varying_one_variable_sets_its_values_and_leaves_all_others(condition, seed):
    asked, label = variables(condition), take(drawn(condition, 3, seed), 1)
    for i, variable in enumerate(asked):
        c = variable.vary(label)
        condition.encode(c, load("numpy"), "float32")  # refuses what is no condition
        for j, other in enumerate(asked):
            expected = variable.values if i == j else np.repeat(other.read(repeat(label, 1)), len(variable.values))
            np.testing.assert_array_equal(other.read(c), expected)
        assert len(variable.labels) == len(variable.values)


@given(condition=conditions, seed=st.integers(0, 1000))
def test_writing_a_variable_leaves_the_conditions_that_were_given_as_they_are(condition, seed):
    c = drawn(condition, 4, seed)
    asked = variables(condition)
    before = [variable.read(c).copy() for variable in asked]
    for variable in asked:
        variable.write(c, np.repeat(variable.values[-1:], 4))
    for variable, values in zip(asked, before, strict=True):
        np.testing.assert_array_equal(variable.read(c), values)


@given(condition=conditions, seed=st.integers(0, 1000), index=st.integers(0, 4))
def test_a_repeated_entry_is_that_entry_every_time(condition, seed, index):
    c = drawn(condition, 5, seed)
    again = repeat(take(c, index), 3)
    for variable in variables(condition):
        assert (variable.read(again) == variable.read(c)[index]).all()
        assert len(variable.read(again)) == 3


def test_the_first_condition_is_class_0_and_the_middle_of_a_vector():
    condition = first(Parts({"digit": Classes(4), "style": Vector(2)}))
    assert condition["digit"] == 0
    assert condition["style"].tolist() == [0, 0]


def test_variables_are_called_by_their_names():
    (digit,) = variables(Classes(3), ("a", "b", "c"))
    assert (digit.name, digit.labels) == ("class", ["a", "b", "c"])
    assert [v.name for v in variables(Vector(2), ["ink", "slant"])] == ["ink", "slant"]
    assert [v.name for v in variables(Vector(2), ())] == ["c[0]", "c[1]"]
    both = Parts({"digit": Classes(2), "ink": Vector(1), "shape": Vector(2)})
    asked = variables(both, {"digit": ["zero", "one"], "shape": ["w", "h"]})
    assert [v.name for v in asked] == ["digit", "ink", "shape: w", "shape: h"]
    label = {"digit": 1, "ink": [-0.01], "shape": [0.5, -1.25]}
    assert called(asked, label) == "digit one, ink 0.0, shape: w 0.5, shape: h −1.2"
    assert called([digit], 2) == "c"


def test_signed_numbers_have_a_true_minus_and_zero_has_none():
    assert [signed(v) for v in (-1.25, -0.001, 0.0, 2.0)] == ["−1.2", "0.0", "0.0", "2.0"]


def test_labels_in_one_byte_do_not_wrap_around():
    (variable,) = variables(Classes(256))
    assert variable.read(np.array([255], np.uint8)) + 1 == 256


def test_names_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="names: expected 3 names, got 2"):
        variables(Classes(3), ["a", "b"])
    with pytest.raises(TypeError, match="names: expected a list of 3 names, got 'abc'"):
        variables(Classes(3), "abc")
    with pytest.raises(TypeError, match="names: expected a dict with names for digit"):
        variables(Parts({"digit": Classes(3)}), ["a", "b", "c"])
    with pytest.raises(TypeError, match="names: expected a dict with names for digit"):
        variables(Parts({"digit": Classes(3)}), {"letter": ["a", "b", "c"]})


def test_a_condition_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="no picture knows conditions of the type Condition"):
        variables(Condition())


@given(condition=conditions, seed=st.integers(0, 1000), n=st.integers(1, 12))
def test_two_conditions_are_in_one_group_where_all_their_classes_agree(condition, seed, n):
    c = drawn(condition, n, seed)
    asked = variables(condition)
    keys = [tuple(v.read(c)[i] for v in asked if v.is_class) for i in range(n)]
    group = groups(asked, c, n)
    for i in range(n):
        for j in range(n):
            assert (group[i] == group[j]) == (keys[i] == keys[j])
            assert (group[i] < group[j]) == (keys[i] < keys[j])


group = hnp.arrays(np.int64, st.integers(1, 30), elements=st.integers(0, 4))


@given(group=group)
def test_in_turn_takes_the_first_of_each_group_then_the_second_of_each(group):
    seen = Counter()
    expected = []
    for i, g in enumerate(group):
        expected.append((seen[g], g, i))
        seen[g] += 1
    assert in_turn(group).tolist() == [i for _, _, i in sorted(expected)]


@given(group=group)
def test_pairs_are_neighbours_of_one_group_and_leave_at_most_one_over(group):
    expected = []
    for g in np.unique(group):
        members = np.flatnonzero(group == g)
        expected += [(turn, g, members[2 * turn], members[2 * turn + 1]) for turn in range(len(members) // 2)]
    assert pairs(group).tolist() == [[a, b] for _, _, a, b in sorted(expected)]
