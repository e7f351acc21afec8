"""What is said of an argument and of all of them together: the order of the verdicts, their limits, and the row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.gradcheck.comparison import Compared, Comparison, Settings, diagnose, spread
from minicvae.gradcheck.differences import Estimates
from minicvae.gradcheck.subject import Subject

SEEDS = st.integers(0, 2**32)
OF_THE_WHOLE = "a random direction through the whole array; the elements that were compared are right"
NOTHING = "both gradients vanish, so nothing was checked; is y constant, or this argument unused?"
NO_DIRECTION = "no direction through the whole array could be compared: a kink is in the way"
A_POLE = "every element is right, a direction through all is not: a pole or a jump may be in its way"


def times(*arguments):
    """All arguments side by side, times three."""
    ends = np.cumsum([a.size for a in arguments])
    return 3 * np.concatenate([a.ravel() for a in arguments]), lambda dy: tuple(
        3 * dy[end - a.size : end].reshape(a.shape) for a, end in zip(arguments, ends, strict=True)
    )


def comparison(*inputs, seed=0, forward=times, **settings):
    """A comparison at hand, of which single steps can be asked."""
    names = [f"x{i}" for i in range(len(inputs))]
    subject, rng = Subject(forward, inputs, None, None, names), np.random.default_rng(seed)
    return Comparison(subject, subject.run(lambda k: spread(rng, (k,))), rng, Settings(**settings))


SLOPES = {  # claimed, slope, bound, jump
    "right": (2.0, 2.0, 1e-9, 0.0),
    "wrong": (2.5, 2.0, 1e-9, 0.0),
    "noisy": (2.0, 2.0, 0.1, 0.0),
    "kink": (2.3, 2.0, 0.5, 0.5),
    "wrong at a kink": (9.0, 2.0, 0.5, 0.5),
    "zero": (0.0, 0.0, 1e-9, 0.0),
    "nothing": (0.0, 0.0, 0.0, 0.0),
}


def slopes(*kinds, direction=False):
    """Claimed slopes beside estimates, each of a kind."""
    claimed, slope, bound, jump = np.array([SLOPES[kind] for kind in kinds]).T
    estimates = Estimates(slope, bound, jump, np.full(len(kinds), 0.25))
    return Compared(claimed.copy(), estimates, np.zeros(len(kinds)), 0.0, direction)


def along(kind):
    return slopes(kind, direction=True)


def verdict(*kinds, whole="right", size=None, blocked=False, g=None, **settings):
    """What is said of an array of `size` elements, of which the first have slopes of these kinds."""
    found, size = slopes(*kinds), size or len(kinds)
    here = comparison(np.ones(size), **settings)
    here.blocked = {"x0"} if blocked else set()
    g = np.append(found.claimed, np.zeros(size - len(kinds))) if g is None else g
    said = here._verdict("x0", g, np.arange(len(kinds)), found, along(whole))
    if said[0] == "WRONG" and found.wrong.any():
        assert said[1] == diagnose(g, found)
    return said


def test_a_wrong_element_comes_before_all_else():
    for others in (["right"], ["kink"] * 8, ["noisy"] * 8, ["zero"]):
        for whole in ("right", "wrong", "noisy"):
            assert verdict("wrong", *others, whole=whole)[0] == "WRONG"
            assert verdict("wrong", *others, whole=whole, vanishing=frozenset({"x0"}))[0] == "WRONG"


def test_a_wrong_direction_is_wrong_unless_something_is_in_its_way():
    assert verdict("right", "right", whole="wrong") == ("WRONG", OF_THE_WHOLE)
    assert verdict("right", "noisy", whole="wrong") == ("WRONG", OF_THE_WHOLE)
    assert verdict("right", "right", whole="wrong", blocked=True) == ("ok", A_POLE)


def test_what_is_declared_to_vanish_has_to():
    vanishing = {"vanishing": frozenset({"x0"})}
    assert verdict("zero", "zero", whole="zero", **vanishing) == ("ok", "zero, as declared")
    for kinds, whole in ((["zero", "right"], "zero"), (["zero", "zero"], "right")):
        assert verdict(*kinds, whole=whole, **vanishing) == ("not zero", "declared to vanish, but it does not")
    assert verdict("right", vanishing=frozenset({"x1"})) == ("ok", "")


@pytest.mark.parametrize(("kind", "otherwise"), [("zero", "noisy"), ("nothing", "ok")])
def test_zeros_are_nothing_to_check(kind, otherwise):
    """Both gradients, of the elements and along the direction; with a bound, or exactly."""
    assert verdict(kind, kind, whole=kind) == ("vacuous", NOTHING)
    assert verdict(kind, "right", whole=kind)[0] == otherwise
    assert verdict(kind, kind, whole="right")[0] == otherwise
    elsewhere = np.array([0.0, 0.0, 1.0])  # in an element that was not compared
    assert verdict(kind, kind, whole=kind, size=3, g=elsewhere)[0] == otherwise


@pytest.mark.parametrize("kind", ["kink", "noisy"])
@given(right=st.integers(1, 12), left_out=st.integers(1, 6), share=st.sampled_from([0.0, 0.25, 0.5, 0.75]))
def test_no_more_than_the_allowed_share_may_be_left_out(kind, right, left_out, share):
    kinds = ["right"] * right + [kind] * left_out
    too_many = left_out > share * len(kinds)
    expected = {
        "kink": ("kinks", f"{left_out} of {len(kinds)} elements lie at a kink: move the inputs off the ties"),
        "noisy": (
            "noisy",
            f"rounding or roughness hides the slope of {left_out} of {len(kinds)} elements: "
            "is something computed in float32, or badly scaled?",
        ),
    }[kind]
    remark = f"{left_out} left out {'at kinks' if kind == 'kink' else 'for noise'}"
    assert verdict(*kinds, max_left_out=share) == (expected if too_many else ("ok", remark))


def test_kinks_and_noise_are_counted_together_and_told_apart():
    kinds = ["kink"] * 2 + ["noisy"] * 3 + ["right"] * 15
    assert verdict(*kinds, max_left_out=0.25) == ("ok", "2 left out at kinks; 3 left out for noise")
    said, note = verdict(*kinds, max_left_out=0.2)
    assert (said, note[:64]) == ("noisy", "rounding or roughness hides the slope of 3 of 20 elements: is so")
    assert verdict(*kinds, max_left_out=0.05)[0] == "kinks"  # which are said first


def test_a_sample_whose_direction_cannot_be_compared_says_so():
    for whole, note in (("right", ""), ("noisy", NO_DIRECTION), ("kink", NO_DIRECTION)):
        assert verdict("right", "right", whole=whole, size=3) == ("ok", note)
        assert verdict("right", "right", whole=whole) == ("ok", "")  # every element is proof of its own
    assert verdict("right", "right", "right", "kink", whole="kink", size=9) == (
        "ok",
        "1 left out at kinks; " + NO_DIRECTION,
    )


KINDS = ("right", "kink", "wrong at a kink", "noisy", "kink", "right")


def test_a_row_counts_what_was_compared_and_shows_the_worst_where_it_is():
    here = comparison(np.ones((3, 4)))
    chosen, elements = np.array([11, 2, 9, 4, 0, 7]), slopes(*KINDS)
    here.gradients["x0"] = np.ones((3, 4))
    row = here._row("x0", chosen, elements, along("wrong"))  # a wrong element explains a wrong direction
    assert (row.name, row.shape, row.verdict) == ("x0", (3, 4), "WRONG")
    assert (row.checked, row.kinks, row.noisy) == (3, 2, 1)
    assert (row.worst, row.value, row.truth, row.error) == ((2, 1), 9, 2, 7)
    expected = np.full((3, 4), np.nan)
    expected[2, 3], expected[1, 3], expected[2, 1] = 0, 0, 7
    np.testing.assert_array_equal(row.errors, expected)


@pytest.mark.parametrize("blocked", [False, True])
def test_a_row_shows_the_direction_where_that_alone_is_wrong_and_nothing_is_in_its_way(blocked):
    here = comparison(np.ones(4))
    here.blocked = {"x0"} if blocked else {"x1"}
    row = here._row("x0", np.array([3, 1]), slopes("right", "right"), along("wrong"))
    assert (row.worst, row.value) == (((3,), 2.0) if blocked else (None, 2.5))
    assert (row.checked, row.kinks, row.noisy) == (2, 0, 0)
    row = here._row("x0", np.array([3, 1]), slopes("right", "right"), along("right"))
    assert (row.worst, row.value) == ((3,), 2.0)


@given(seed=SEEDS, n=st.integers(6, 40), elements=st.integers(1, 5))
def test_a_wrong_direction_has_its_wrong_element_looked_for(seed, n, elements):
    rng = np.random.default_rng(seed)
    here = comparison(rng.normal(size=n), seed=seed % 1000, elements=elements)
    chosen = here._choose(here.gradients["x0"])
    here.rng = np.random.default_rng(1)
    outside = rng.choice(np.setdiff1d(np.arange(n), chosen))
    here.gradients["x0"][outside] *= 0.999  # smaller: it stays among those that are not the largest
    here._choose = lambda g: chosen
    row = here.argument("x0")
    assert (row.verdict, row.worst, row.checked) == ("WRONG", (outside,), elements + 1)
    assert here.proven == here.blocked == set()


def test_a_wrong_element_among_those_compared_is_not_looked_for_again():
    here = comparison(np.ones(9), elements=3)
    chosen = here._choose(here.gradients["x0"])
    here.gradients["x0"][chosen[0]] *= 1.5
    here._choose, here._locate = lambda g: chosen, None
    row = here.argument("x0")
    assert (row.verdict, row.checked) == ("WRONG", 3)
    assert row.worst == (chosen[0],)


@pytest.mark.parametrize(("elements", "proven"), [(4, True), (3, False)])
def test_an_argument_is_proven_by_all_of_its_elements_alone(elements, proven):
    here = comparison(np.ones(4), elements=elements)
    assert here.argument("x0").verdict == "ok"
    assert here.proven == ({"x0"} if proven else set())
    assert here.blocked == set()
    here.gradients["x0"][:] *= 1.5
    here.proven.clear()
    assert here.argument("x0").verdict == "WRONG"
    assert here.proven == here.blocked == set()


def test_an_argument_is_blocked_whose_elements_are_all_right_and_whose_direction_is_not():
    here = comparison(np.ones(4), np.ones(2))
    here._along = lambda directions: along("wrong")
    row = here.argument("x0")
    assert (row.verdict, row.note, row.worst is None) == ("ok", A_POLE, False)
    assert here.proven == here.blocked == {"x0"}


def test_what_cannot_be_compared_is_not():
    here = comparison(np.ones(4), forward=lambda x: (x, lambda dy: None))
    row = here.argument("x0")
    assert (row.name, row.shape, row.verdict, row.note) == ("x0", (4,), "missing", "backward gives no gradient")


@pytest.mark.parametrize("sizes", [(3,), (3, 2), (3, 2, 4)])
def test_several_arguments_are_compared_along_one_direction_through_them_all(sizes):
    here = comparison(*(np.ones(n) for n in sizes))
    rows = here.together()
    assert len(rows) == (len(sizes) > 1)
    for row in rows:
        assert (row.name, row.shape, row.verdict, row.note) == ("together", (sum(sizes),), "ok", "")
        claimed = sum((here.gradients[name] * v).sum() for name, v in here.directions.items())
        assert (row.value, row.truth) == (pytest.approx(claimed), pytest.approx(claimed))


@pytest.mark.parametrize(("proven", "said"), [((), True), (("x0",), True), (("x0", "x1"), False)])
def test_a_direction_through_all_is_wrong_unless_every_element_is_proof(proven, said):
    here = comparison(np.ones(3), np.ones(2))
    here.gradients["x1"][0] *= 1.5
    here.proven = set(proven)
    assert [row.verdict for row in here.together()] == ["WRONG"] * said


@pytest.mark.parametrize("kind", ["noisy", "kink"])
def test_a_direction_through_all_that_is_not_sharp_says_nothing(kind):
    here = comparison(np.ones(3), np.ones(2))
    here._along = lambda directions: along(kind)
    assert here.together() == []


def test_the_direction_through_all_leaves_out_what_is_in_its_way_and_needs_all_gradients():
    here = comparison(np.ones(3), np.ones(2), np.ones(4))
    here.blocked = {"x1"}
    assert [row.shape for row in here.together()] == [(7,)]
    here.blocked = {"x1", "x2"}
    assert here.together() == []
    here = comparison(np.ones(3), np.ones(2), forward=lambda a, b: (a.sum() + b.sum(), lambda dy: (dy + 0 * a, None)))
    assert here.together() == []
