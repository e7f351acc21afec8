"""What a comparison works with: directions, the rounding that claims are allowed, the adjoint identity, the choice."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minicvae.gradcheck import comparison as module
from minicvae.gradcheck.comparison import FIRST_STEP, HUGE, ROUNDING, Comparison, Settings, _unit, spread
from minicvae.gradcheck.differences import EPS, SAFETY
from minicvae.gradcheck.subject import Subject

SEEDS = st.integers(0, 2**32)


def comparison(forward, *inputs, seed=0, **settings):
    """A comparison at hand, of which single steps can be asked."""
    subject, rng = Subject(forward, inputs, None, None, None), np.random.default_rng(seed)
    return Comparison(subject, subject.run(lambda k: spread(rng, (k,))), rng, Settings(**settings))


def times(x, factor=1.0):
    return 3 * x, lambda dy: 3 * factor * dy


@given(seed=SEEDS, n=st.integers(1, 30), elements=st.integers(1, 40))
def test_of_a_large_array_half_of_the_elements_are_the_largest_and_half_are_drawn(seed, n, elements):
    rng = np.random.default_rng(seed)
    g = spread(rng, (n, 2))
    whole = comparison(times, np.ones(1), elements=g.size)._choose(g)
    assert whole.tolist() == list(range(g.size))
    chosen = comparison(times, np.ones(1), seed=seed, elements=elements)._choose(g)
    assert len(set(chosen.tolist())) == len(chosen) == min(elements, g.size)
    if g.size <= elements:
        assert chosen.tolist() == list(range(g.size))
    else:
        largest = set(np.argsort(-np.abs(g), axis=None)[: (elements + 1) // 2].tolist())
        assert largest <= set(chosen.tolist())
        assert largest == set(chosen[: (elements + 1) // 2].tolist())


@pytest.mark.parametrize("elements", [3, 4])
def test_those_drawn_are_not_always_the_same_and_may_be_any_but_the_largest(elements):
    g, seen = np.arange(8.0), np.zeros(8, int)
    of_eight = comparison(times, np.ones(1), elements=elements)
    for _ in range(200):
        seen[of_eight._choose(g)] += 1
    assert (seen[6:] == 200).all()
    expected = 200 * (elements - 2) / 6  # times for each of the others, ± four standard deviations
    assert (np.abs(seen[:6] - expected) < 4 * np.sqrt(expected)).all()


def numbers(seed, n=6):
    """Numbers of every size and sign, zeros among them."""
    rng = np.random.default_rng(seed)
    return rng.choice([-1.0, 0.0, 1.0], n) * 2.0 ** rng.integers(-14, 6, n) * rng.uniform(1, 2, n)


@given(seed=SEEDS)
def test_noise_is_measured_by_steps_of_the_size_of_each_element_and_then_by_steps_of_one_size(seed):
    x, asked = np.append(numbers(seed), 2.0**1010), []

    class Watched(Subject):
        def direction_line(self, directions):
            asked.append(directions["x"])
            return super().direction_line(directions)

    subject = Watched(lambda x: (x / HUGE, lambda dy: dy / HUGE), (x,), None, None, None)
    made = Comparison(subject, subject.run(np.ones), np.random.default_rng(seed), Settings())
    near, along = asked
    assert along is made.directions["x"]
    for v, size in ((near, np.where(x == 0, _unit(x), np.minimum(np.abs(x), HUGE))), (along, _unit(x))):
        parts = np.abs(v) / size
        assert ((parts >= 0.5) & (parts < 1.5)).all()
        assert len(set(parts)) > 1


def test_the_directions_are_drawn_with_both_signs():
    signs = [np.sign(comparison(times, np.ones(3), seed=s).directions["x"]) for s in range(20)]
    assert np.ptp(signs, axis=0).tolist() == [2, 2, 2]


@given(seed=SEEDS, height=st.sampled_from([0.0, 2.0**-20, 0.3, 1.0, 5.0]), loudest=st.floats(0.1, 9))
def test_a_claim_may_err_by_the_rounding_of_numbers_of_the_size_of_f_or_of_one(seed, height, loudest):
    x = numbers(seed)
    subject = Subject(lambda x: (0 * x - height, lambda dy: 0 * dy), (x,), None, None, None)
    run = subject.run(lambda k: -np.linspace(0, loudest, k))
    found = Comparison(subject, run, np.random.default_rng(seed), Settings()).rounding["x"]
    size = min(height, 1) if height else 1
    for i, held in enumerate(x):
        reach = min(max(abs(held), _unit(x)), 1)  # the same rounding of F is more of a slope by a small number
        assert found[i] == pytest.approx(SAFETY * EPS * loudest * size / reach, rel=1e-12, abs=0)


def asked_of_slopes(compare):
    """What `compare` gives, and what it asked `slopes` for."""
    taken, asked = module.slopes, []

    def slopes(*arguments):
        asked.append(arguments)
        return taken(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "slopes", slopes)
        found = compare()
    return found, *asked


@given(seed=SEEDS)
def test_along_a_direction_the_roundings_and_the_claims_add_up_and_the_nearest_zero_bounds_the_steps(seed):
    rng, x, y = np.random.default_rng(seed), numbers(seed), numbers(seed + 1, 3)
    here = comparison(lambda x, y: (np.append(x, y), lambda dy: (dy[: x.size], dy[x.size :])), x, y, seed=seed)
    here.gradients = {"x": rng.normal(size=x.size), "y": rng.normal(size=y.size)}
    here.rounding = {"x": rng.uniform(size=x.size), "y": rng.uniform(size=y.size)}
    v = {"x": spread(rng, x.shape), "y": spread(rng, y.shape)}
    found, (_, first, *_, origins) = asked_of_slopes(lambda: here._along(v))
    terms = np.append(here.gradients["x"] * v["x"], here.gradients["y"] * v["y"])
    assert found.claimed == pytest.approx([terms.sum()], abs=1e-12)
    assert found.size == pytest.approx(np.linalg.norm(terms))
    roundings = np.append(here.rounding["x"] * v["x"], here.rounding["y"] * v["y"])
    assert found.rounding == pytest.approx([np.linalg.norm(roundings)])
    steps = [abs(a / b) for name, at in (("x", x), ("y", y)) for a, b in zip(at, v[name], strict=True) if a != 0]
    assert origins == [min(steps, default=np.inf)]
    assert first == [FIRST_STEP]
    assert found.direction


@given(seed=SEEDS)
def test_by_an_element_the_first_step_is_a_part_of_it_or_of_a_typical_one_of_at_most_one(seed):
    x = numbers(seed)
    here = comparison(times, x, seed=seed)
    here.rounding = {"x": np.arange(1.0, 7.0)}
    chosen = np.array([4, 0, 2])
    found, (lines, first, *_, origins) = asked_of_slopes(lambda: here._elements("x", chosen, complex_step=False))
    assert len(lines) == 3
    for i, step, origin in zip(chosen, first, origins, strict=True):
        assert step == FIRST_STEP * max(min(_unit(x), 1), abs(x[i]))
        assert origin == (abs(x[i]) if x[i] else np.inf)
    assert found.claimed.tolist() == here.gradients["x"][chosen].tolist()
    assert found.rounding.tolist() == [5, 1, 3]
    assert found.size == pytest.approx(3 * np.sqrt(np.mean(here.run.dy[chosen] ** 2)))
    assert not found.direction


def test_one_slope_is_its_own_typical_size_and_none_that_is_known_has_no_size():
    here = comparison(times, np.array([1.0, 2.0]))
    here.run.dy[...] = 1, -5
    assert here._elements("x", np.array([1]), complex_step=False).size == pytest.approx(15)
    here = comparison(lambda x: (np.where(x == 1, x, np.nan), lambda dy: dy), np.ones(2))
    assert here._elements("x", np.array([0, 1]), complex_step=False).size == 0


@given(seed=SEEDS, louder=st.booleans())
def test_the_complex_step_is_not_trusted_where_its_real_part_is_another_function(seed, louder):
    x = spread(np.random.default_rng(seed), (5,))
    noise = np.full(5, 1e-12 if louder else 0.0)
    allowed = SAFETY * noise + ROUNDING * np.abs(3 * x)
    for part in (-1.1, -0.9, 0.0, 0.9, 1.1):
        shift = np.zeros(5)
        shift[2] = part * allowed[2]
        here = comparison(lambda x, shift=shift: (3 * x + shift * np.iscomplexobj(x), lambda dy: 3 * dy), x)
        here.noise = noise
        along = here._along({"x": here.directions["x"]})
        assert here._is_analytic("x", along) == (abs(part) < 1)


def test_a_real_part_that_is_the_same_without_noise_is_no_other_function():
    here = comparison(lambda x: (0 * x, lambda dy: 0 * dy), np.ones(3))
    here.noise = np.zeros(3)
    assert here._is_analytic("x", here._along({"x": np.ones(3)}))


@pytest.mark.parametrize("size", [1, 2, 7, 8])
def test_a_wrong_element_is_found_wherever_it_is_by_halving(size):
    for place in range(size):
        here, halvings = comparison(times, np.ones(size)), []
        along = here._along

        def halving(directions, along=along, halvings=halvings):
            halvings.append(directions)
            assert len(halvings) <= np.ceil(np.log2(size))
            return along(directions)

        here._along = halving
        here.gradients["x"][place] *= 1.01
        assert here._locate("x", size) == place


def map_at_hand(x, v, u, noise, curvature=0.0):
    """A comparison of 3 x + curvature x², whose numbers are integers: the identity holds without a rounding error."""
    here = comparison(lambda x: (3 * x + curvature * x**2, lambda dy: 3 * dy), x)
    here.directions, here.noise, here.run.dy = {"x": v}, noise, u
    return here


@given(seed=SEEDS, louder=st.booleans())
def test_a_linear_map_may_err_by_the_rounding_of_its_images_and_of_its_gradient(seed, louder):
    rng = np.random.default_rng(seed)
    x, v, u = (rng.choice([-1.0, 1.0], 5) * rng.integers(1, 100, 5) for _ in range(3))
    noise = rng.uniform(0, 1e-9, 5) if louder else np.zeros(5)
    here = map_at_hand(x, v, u, noise)
    images = np.maximum(np.abs(3 * (x + v)), np.abs(3 * (x - v)))
    own = ROUNDING * np.linalg.norm(3 * u * v)
    allowed = 2 * SAFETY * np.linalg.norm(u * np.maximum(noise, EPS * images)) + own
    for part in (-1.1, -0.9, 0.9, 1.1):
        g = 3 * u
        g[2] += part * allowed / v[2]
        here.gradients = {"x": g}
        problems = here.adjoint()
        assert len(problems) == (abs(part) > 1)
        if problems:
            image = f"<u, J v> = {3 * u @ v:.15g}, but <Jᵀ u, v> = {np.sum(g * v):.15g} (± {allowed:.0e})"
            assert problems == [f"x: {image}"]


@given(seed=SEEDS)
def test_a_map_declared_linear_may_bend_by_rounding_alone(seed):
    rng = np.random.default_rng(seed)
    x, v, u = (rng.choice([-1.0, 1.0], 5) * rng.integers(1, 100, 5) for _ in range(3))
    assume(v**2 @ u != 0)
    noise = rng.uniform(0.5e-6, 1e-6, 5)
    allowed = 2 * SAFETY * np.linalg.norm(u * noise) + ROUNDING * np.linalg.norm(3 * u * v)
    for part in (-1.1, -0.9, 0.9, 1.1):
        bend = part * 2 * allowed
        curvature = bend / (2 * float(v**2 @ u))
        here = map_at_hand(x, v, u, noise, curvature)
        here.gradients = {"x": u * (3 + 2 * curvature * x)}
        said = f"x: declared linear, but <u, F(x+v) - 2 F(x) + F(x-v)> = {bend:.3g}, not 0"
        assert here.adjoint() == [said] * (abs(part) > 1)


def test_the_map_to_zero_is_linear():
    here = comparison(lambda x: (0 * x, lambda dy: 0 * dy), np.zeros(3))
    here.noise = np.zeros(3)
    assert here.adjoint() == []
