"""What c may be: what is taken, what is refused, and how it reaches the networks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.conditions import (
    CONDITIONS,
    Classes,
    Condition,
    Nothing,
    Parts,
    Vector,
    count,
    draw,
    groups,
    joined,
    repeat,
    select,
    take,
)
from minicvae.kernels import OneHot, load
from minicvae.layers import Chain, Dense, Embedding, Pathways

NUMPY = load("numpy")
sizes = st.integers(1, 5)
BOTH = Parts({"digit": Classes(10), "style": Vector(2), "width": Classes(3, embedding=4)})


def encode(condition, c, dtype="float64"):
    return condition.encode(c, NUMPY, dtype)


def three(digit=(1, 2), style=((0.0, 1.0), (2.0, 3.0)), width=(0, 2)):
    return {"digit": list(digit), "style": np.array(style), "width": np.array(width)}


# Drawn


@given(classes=sizes, dim=sizes, n=st.integers(1, 9), seed=st.integers(0, 2**32))
def test_a_drawn_condition_is_one_that_users_may_hand_in(classes, dim, n, seed):
    condition = Parts({"digit": Classes(classes), "style": Vector(dim), "width": Classes(3, embedding=4)})
    c = draw(condition, n, np.random.default_rng(seed))
    assert count(encode(condition, c)) == n
    assert (c["digit"].shape, c["style"].shape) == ((n,), (n, dim))
    np.testing.assert_array_equal(c["digit"], draw(Classes(classes), n, np.random.default_rng(seed)))


def test_labels_are_drawn_evenly_and_numbers_from_the_standard_normal():
    counts = np.bincount(draw(Classes(5), 10_000, np.random.default_rng(0)), minlength=5)
    assert np.abs(counts - 2000).max() < 6 * 40  # √(n p (1 - p)) = 40
    numbers = draw(Vector(4), 2500, np.random.default_rng(0))
    assert abs(numbers.mean()) < 0.06
    assert numbers.var() == pytest.approx(1, abs=0.09)


# Taken


@given(classes=sizes, data=st.data())
def test_labels_of_any_integer_type_are_taken(kernels, classes, data):
    labels = data.draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=6))
    kind = data.draw(st.sampled_from([np.uint8, np.int8, np.int32, np.int64, np.uint64]))
    for given_labels in (labels, np.array(labels, kind), np.repeat(np.array(labels, kind), 2)[::2]):
        (part,) = Classes(classes).encode(given_labels, kernels, "float32")
        assert part.classes == classes
        np.testing.assert_array_equal(kernels.to_numpy(part.labels), np.array(labels, np.int64), strict=True)


@given(dim=sizes, n=sizes, kind=st.sampled_from([np.float16, np.float32, np.float64, np.int32, np.uint8]))
def test_vectors_of_any_real_type_become_the_models(kernels, dim, n, kind):
    vector = np.arange(n * dim).reshape(n, dim).astype(kind)
    for dtype in ("float32", "float64"):
        (part,) = Vector(dim).encode(vector, kernels, dtype)
        np.testing.assert_array_equal(kernels.to_numpy(part), vector.astype(dtype), strict=True)


def test_parts_come_in_the_order_of_the_condition_whatever_the_dicts():
    c = three()
    for given_c in (c, dict(reversed(c.items()))):
        digit, style, width = encode(BOTH, given_c)
        np.testing.assert_array_equal(digit.labels, [1, 2])
        np.testing.assert_array_equal(style, c["style"])
        np.testing.assert_array_equal(width.labels, [0, 2])
        assert (digit.classes, width.classes) == (10, 3)


def test_a_condition_is_as_wide_as_what_it_joins():
    assert Classes(10).widths == [10]
    assert Classes(10, 16).widths == [16]
    assert Vector(5).widths == [5]
    assert BOTH.widths == [10, 2, 4]
    assert BOTH.width == 16


@pytest.mark.parametrize("condition", [Classes(1), Classes(7), Classes(3, 2), Vector(1), Vector(4), Nothing(), BOTH])
@pytest.mark.parametrize("n", [1, 3])
def test_the_example_is_valid(condition, n):
    parts = encode(condition, condition.example(n))
    assert count(parts) == n
    assert len(parts) == len(condition.widths) == len(condition.embeddings())


@given(n=st.integers(0, 6), dtype=st.sampled_from(["float32", "float64"]))
def test_without_a_condition_a_number_of_examples_is_enough_and_labels_are_not_looked_at(kernels, n, dtype):
    rng = np.random.default_rng(n)
    for c in (n, np.int64(n), [7] * n, np.full(n, -3), np.zeros((n, 4)), draw(Nothing(), n, rng)):
        (part,) = Nothing().encode(c, kernels, dtype)
        np.testing.assert_array_equal(kernels.to_numpy(part), np.zeros((n, 0), dtype), strict=True)
        assert count((part,)) == n
    assert Nothing().width == 0
    assert Nothing().example(n).shape == (n, 0)


# Refused

WRONG = [
    (Nothing(), None, TypeError, "c: expected how many examples there are, or something with a length, got None"),
    (Nothing(), -1, TypeError, "c: expected how many examples there are, .* got -1"),
    (Nothing(), 2.0, TypeError, "c: expected how many examples there are, .* got 2.0"),
    (Classes(10), [3, 10], ValueError, "c: expected labels 0 to 9, got 10 at index 1"),
    (Classes(10), [-1], ValueError, "c: expected labels 0 to 9, got -1 at index 0"),
    (Classes(1), [0, 0, 1], ValueError, "c: expected labels 0 to 0, got 1 at index 2"),
    (Classes(10), np.array([2**63], np.uint64), ValueError, "c: expected labels 0 to 9, got 9223372036854775808"),
    (Classes(10), 7, ValueError, r"c: expected labels of shape \(n,\), got shape \(\)"),
    (Classes(10), [[1], [2]], ValueError, r"c: expected labels of shape \(n,\), got shape \(2, 1\)"),
    (Classes(10), np.eye(10)[[3]], ValueError, r"c: expected labels of shape \(n,\), got shape \(1, 10\)"),
    (Classes(10), [1.0, 2.0], TypeError, "c: expected integer labels, got type float64"),
    (Classes(10), [True, False], TypeError, "c: expected integer labels, got type bool"),
    (Classes(10), ["7"], TypeError, "c: expected integer labels, got type <U1"),
    (Classes(10), None, ValueError, r"c: expected labels of shape \(n,\)"),
    (Vector(2), [[1.0, np.nan]], ValueError, r"c: expected finite numbers, got nan at index \(0, 1\)"),
    (Vector(2), [[1.0, 1.0], [-np.inf, 1.0]], ValueError, r"c: expected finite numbers, got -inf at index \(1, 0\)"),
    (Vector(2), [[1.0, 2.0, 3.0]], ValueError, r"c: expected vectors of shape \(n, 2\), got shape \(1, 3\)"),
    (Vector(2), [1.0, 2.0], ValueError, r"c: expected vectors of shape \(n, 2\), got shape \(2,\)"),
    (Vector(2), [[1j, 2]], TypeError, "c: expected real numbers, got type complex128"),
    (Vector(2), [[True, False]], TypeError, "c: expected real numbers, got type bool"),
    (Vector(2), [["a", "b"]], TypeError, "c: expected real numbers, got type <U1"),
    (BOTH, [1, 2], TypeError, "c: expected a dict with the names digit, style, width, got list"),
    (BOTH, {"digit": [1]}, ValueError, "c: expected the names digit, style, width, got digit"),
    (
        BOTH,
        three() | {"more": [1]},
        ValueError,
        "c: expected the names digit, style, width, got digit, style, width, more",
    ),
    (BOTH, three(digit=(1, 10)), ValueError, r"c\['digit'\]: expected labels 0 to 9, got 10 at index 1"),
    (BOTH, three(style=((0, np.nan), (1, 1))), ValueError, r"c\['style'\]: expected finite numbers, got nan"),
    (
        BOTH,
        three(width=(0, 1, 2)),
        ValueError,
        "c: expected parts of one length, got {'digit': 2, 'style': 2, 'width': 3}",
    ),
]


@pytest.mark.parametrize(("condition", "c", "error", "message"), WRONG)
def test_what_is_wrong_is_refused_by_its_name(condition, c, error, message):
    with pytest.raises(error, match=f"^{message}"):
        encode(condition, c)


def test_the_error_calls_the_argument_as_the_caller_does():
    with pytest.raises(ValueError, match=r"^validation_data\[1\]\['digit'\]: expected labels"):
        BOTH.encode(three(digit=(1, 99)), NUMPY, "float32", "validation_data[1]")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Classes(0),
        lambda: Classes(-3),
        lambda: Classes(10, -2),
        lambda: Vector(0),
        lambda: Vector(-1),
        lambda: Parts({}),
    ],
)
def test_a_condition_of_no_size_is_refused(make):
    with pytest.raises(ValueError, match="expected"):
        make()


# On the way to the networks


def test_repeating_is_one_whole_copy_after_the_other():
    parts = encode(BOTH, three())
    assert repeat(parts, 1) is parts
    digit, style, _ = repeat(parts, 3)
    np.testing.assert_array_equal(digit.labels, [1, 2, 1, 2, 1, 2])
    np.testing.assert_array_equal(style, np.tile(parts[1], (3, 1)))
    assert digit.classes == 10


@given(n=st.integers(1, 6), data=st.data())
def test_selecting_takes_the_same_examples_of_every_part(n, data):
    rng = np.random.default_rng(n)
    c = {"digit": rng.integers(0, 10, n), "style": rng.standard_normal((n, 2)), "width": rng.integers(0, 3, n)}
    start, stop = sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))
    for index in (np.array(data.draw(st.lists(st.integers(0, n - 1)))), slice(start, stop)):
        if isinstance(index, np.ndarray):
            index = index.astype(np.int64)
        digit, style, width = select(encode(BOTH, c), index)
        np.testing.assert_array_equal(digit.labels, c["digit"][index])
        np.testing.assert_array_equal(style, c["style"][index])
        np.testing.assert_array_equal(width.labels, c["width"][index])
        assert (digit.classes, width.classes) == (10, 3)


@given(n=st.integers(1, 6), data=st.data())
def test_the_entries_of_what_users_hand_in_are_taken_of_every_part(n, data):
    index = np.array(data.draw(st.lists(st.integers(0, n - 1))), np.int64)
    labels, style = np.arange(n), np.arange(2.0 * n).reshape(n, 2)
    taken = take({"digit": labels.tolist(), "more": {"style": style}}, index)
    assert list(taken) == ["digit", "more"]
    np.testing.assert_array_equal(taken["digit"], index)
    np.testing.assert_array_equal(taken["more"]["style"], style[index])


def test_a_network_gets_an_embedding_in_front_only_where_one_is_asked_for():
    trunk = Chain([Dense(20, 3)])
    assert joined(Classes(10), trunk) is trunk
    assert joined(Vector(3), trunk) is trunk
    network = joined(BOTH, trunk)
    assert isinstance(network, Pathways)
    assert network.trunk is trunk
    assert network.paths[:3] == [None, None, None]
    assert isinstance(network.paths[3], Embedding)
    assert (network.paths[3].classes, network.paths[3].dim) == (3, 4)


def test_every_network_has_an_embedding_of_its_own():
    one, other = (joined(Classes(10, 4), Dense(7, 3)) for _ in range(2))
    assert one.paths[1] is not other.paths[1]


def test_the_base_says_nothing():
    for call in (
        lambda c: c.widths,
        lambda c: c.encode([1], NUMPY, "float32"),
        lambda c: c.example(1),
        lambda c: c.embeddings(),
    ):
        with pytest.raises(NotImplementedError):
            call(Condition())
    assert all(issubclass(kind, Condition) for kind in CONDITIONS)


def test_counting_needs_no_copy_of_the_labels():
    assert count((OneHot(np.zeros(3, np.int64), 2), np.zeros((3, 2)))) == 3


def test_examples_are_of_one_group_where_all_their_classes_agree(kernels):
    def found(condition, c):
        return groups(condition.encode(c, kernels, "float32"), kernels).tolist()

    assert found(Classes(10), [7, 0, 7]) == [7, 0, 7]
    assert found(Classes(10, embedding=2), [7, 0, 7]) == [7, 0, 7]
    assert found(Vector(2), np.zeros((3, 2))) == [0, 0, 0]
    both = {"digit": [1, 1, 0, 1], "style": np.zeros((4, 2)), "width": [2, 0, 2, 2]}
    assert found(BOTH, both) == [2, 1, 0, 2]


def test_numbers_beyond_float32_are_refused():
    with pytest.raises(ValueError, match=r"^c: expected numbers finite in float32, got 1e\+300"):
        Vector(2).encode(np.array([[0.0, 1e300]]), load("numpy"), "float32")
