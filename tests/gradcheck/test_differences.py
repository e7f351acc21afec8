"""The slope estimate keeps its own promise: the error is within the bound, and the bound is small."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minicvae.gradcheck import check_gradients
from minicvae.gradcheck.differences import (
    ALTERNATIONS,
    EPS,
    FOURTH_LARGEST,
    GROWTH,
    LEVELS_MOST,
    LEVELS_WITHIN,
    NOISE_POINTS,
    NOISE_SPACINGS,
    RATIO,
    SAFETY,
    TINY,
    WIDE,
    Estimates,
    _differences,
    _Scheme,
    _settle_kinks,
    _third_differences,
    complex_slopes,
    norm,
    rounding_noise,
    slopes,
)

SMOOTH = {
    "exp": (np.exp, np.exp),
    "sin": (np.sin, np.cos),
    "tanh": (np.tanh, lambda x: 1 / np.cosh(x) ** 2),
    "softplus": (lambda x: np.logaddexp(0, x), lambda x: 1 / (1 + np.exp(-x))),
    "cube": (lambda x: x**3, lambda x: 3 * x * x),
    "bell": (lambda x: 1 / (1 + 25 * x * x), lambda x: -50 * x / (1 + 25 * x * x) ** 2),
    "fast": (lambda x: np.sin(50 * x), lambda x: 50 * np.cos(50 * x)),
}


def line_through(f, x):
    def line(t):
        return (x + t) - x, np.atleast_1d(f(x + t))

    return line


def estimate(f, x, counter=None):
    line = line_through(f, x)

    def counted(t):
        if counter is not None:
            counter.append(t)
        return line(t)

    base = line(0.0)[1]
    noise = rounding_noise([lambda t: line(t * (abs(x) or 1.0)), line], base)
    found = slopes([counted], np.array([max(1.0, abs(x)) / 8]), base, np.ones(base.size), noise)
    return found.slope[0], found.bound[0], found.jump[0], found.step[0]


@pytest.mark.parametrize("name", SMOOTH)
@given(x=st.floats(-4, 4))
def test_the_error_is_within_the_bound_and_the_bound_is_near_rounding(name, x):
    f, df = SMOOTH[name]
    slope, bound, _, _ = estimate(f, x)
    assert abs(slope - df(x)) <= bound + 8 * EPS * abs(df(x))
    assert bound <= 1e-10 * (1 + abs(df(x)))


@given(x=st.floats(1e-6, 1e6))
def test_steps_that_leave_the_domain_are_not_used(x):
    with np.errstate(invalid="ignore", divide="ignore"):
        slope, bound, _, step = estimate(np.log, x)
    assert step < x
    assert abs(slope - 1 / x) <= bound <= 1e-9 / x


def test_a_function_that_refuses_arguments_outside_its_domain_is_not_used_there():
    def root(x):
        if x < 0:
            raise ValueError("x: expected a positive number")
        return np.sqrt(x)

    slope, bound, _, _ = estimate(root, 0.01)
    assert abs(slope - 5) <= bound <= 1e-9


@given(x=st.floats(-3, 3), slope=st.floats(-5, 5))
@example(x=1.5703125, slope=1.976549472487918e-8)  # a jump that the truncation error of one order hides
def test_at_a_kink_the_bound_is_half_the_jump_of_the_slope(x, slope):
    value, bound, jump, _ = estimate(lambda y: np.sin(y) + slope * abs(y - x), x)
    assert abs(value - np.cos(x)) <= 1e-3  # central differences find the mean of the two slopes...
    assert jump == pytest.approx(abs(slope), abs=1e-3)  # ... and know that it is none
    assert bound >= 0.99 * abs(slope)


@given(distance=st.floats(1e-6, 0.5), side=st.sampled_from([-1, 1]))
def test_a_kink_nearby_is_outrun_by_smaller_steps(distance, side):
    slope, bound, _, step = estimate(lambda y: np.sin(y) + abs(y - side * distance), 0.0)
    assert abs(slope - (1 - side)) <= bound <= 1e-4
    assert step < distance


def test_the_first_steps_are_large_and_smaller_ones_are_not_taken_in_vain():
    taken = []
    estimate(np.exp, 0.5, taken)
    assert max(taken) == 1 / 8
    assert len(taken) <= 14


def test_where_the_function_stands_still_slope_and_bound_are_next_to_nothing():
    taken = []
    slope, bound, _, _ = estimate(lambda x: np.float64(3.0), 1.0)
    assert slope == 0
    assert bound < 1e-13
    assert estimate(lambda x: np.float64(0.0), 1.0, taken)[:2] == (0, 0)
    assert len(taken) == 2 * 3  # three steps, right and left: the fewest that have a bound


@pytest.mark.parametrize("big", [1e3, 1e6, 1e8])
@given(x=st.floats(-1, 1))
def test_noise_from_large_terms_that_cancel_is_seen(big, x):
    def noisy(y):
        return (big + np.sin(y)) - big

    slope, bound, _, _ = estimate(noisy, 0.5 + x / 10)
    assert abs(slope - np.cos(0.5 + x / 10)) <= bound
    assert bound >= EPS * big / 100


@given(seed=st.integers(0, 2**32), scale=st.floats(-6, 0), big=st.floats(3, 10))
def test_large_terms_that_cancel_raise_no_false_alarm_beside_elements_of_any_size(seed, scale, big):
    """Small steps leave the last place of 1e10 as it is, and so do steps beside a small element."""
    x, big = np.random.default_rng(seed).uniform(-4, 4, 4) * 10.0 ** np.array([0, 0, 0, scale]), 10.0**big
    report = check_gradients(lambda x: ((big + np.sin(x)) - big, lambda dy: dy * np.cos(x)), (x,), method="differences")
    assert report["x"].verdict != "WRONG", report


@given(sigma=st.floats(-13, -3), seed=st.integers(0, 2**32))
def test_the_noise_is_measured_as_it_is_on_average(sigma, seed):
    """Each of 2000 outputs is measured by 13 differences, a poor estimate; their median is a good one."""
    sigma, outputs = 10.0**sigma, 2000

    def line(t):
        rng = np.random.default_rng([seed, int.from_bytes(np.float64(t).tobytes(), "little")])
        return t, np.sin(np.arange(outputs) % 7 + t) + sigma * rng.standard_normal(outputs)

    noise = rounding_noise([line], line(0.0)[1])
    assert np.median(noise) == pytest.approx(sigma, rel=0.05)
    assert np.mean(noise > sigma / 4) > 0.99
    assert np.mean(noise < 4 * sigma) > 0.99


@given(exponent=st.floats(-320, 0), subnormal=st.booleans())
def test_steps_go_on_well_below_the_distance_to_an_origin_however_near(exponent, subnormal):
    taken, zeros, origin = [], np.zeros(1), 0.0 if subnormal else 10.0**exponent

    def kink(t):  # of which steps of every size are taken
        taken.append(t)
        return t, np.array([abs(t)])

    slopes([kink], np.ones(1), zeros, np.ones(1), zeros, origin)
    assert len(taken) == 2 * LEVELS_MOST or min(map(abs, taken)) < origin / RATIO ** (LEVELS_WITHIN - 2)


@given(base=st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=5))
def test_the_noise_is_never_below_half_a_unit_in_the_last_place(base):
    base = np.array(base)
    for still in (lambda t: (t, base), lambda t: (t, base + t * 2.0**40)):
        noise = rounding_noise([still], base)
        assert (noise >= EPS / 2 * np.abs(base)).all()
    np.testing.assert_array_equal(rounding_noise([lambda t: (t, base)], base), EPS / 2 * np.abs(base))


@given(exponents=st.lists(st.floats(-300, 307), max_size=5), signs=st.integers(0, 31))
def test_the_length_of_a_vector_neither_overflows_nor_vanishes(exponents, signs):
    x = np.array([10.0**e * (-1) ** (signs >> i & 1) for i, e in enumerate(exponents)])
    with np.errstate(over="ignore"):
        assert norm(x) == pytest.approx(math.hypot(*x), rel=1e-12, abs=0)


def test_the_length_of_what_is_not_finite_is_not_finite():
    assert norm(np.array([1.0, np.inf])) == np.inf
    assert np.isnan(norm(np.array([1.0, np.nan])))


@given(seed=st.integers(0, 2**32), k=st.integers(4, 16))
def test_third_differences_see_no_parabola_and_are_of_length_one(seed, k):
    rng = np.random.default_rng(seed)
    t = np.cumsum(rng.uniform(0.5, 2, k))
    rows = _third_differences(t)
    assert rows.shape == (k - 3, k)
    np.testing.assert_allclose(rows @ np.stack([np.ones(k), t, t**2], axis=1), 0, atol=1e-11 * t[-1] ** 2)
    np.testing.assert_allclose((rows**2).sum(axis=1), 1, rtol=1e-12)
    assert [np.flatnonzero(row).tolist() for row in rows] == [list(range(i, i + 4)) for i in range(k - 3)]
    assert (rows @ t**3 > 0).all()


@given(power=st.sampled_from([1, 2]), coefficients=st.lists(st.floats(-9, 9), min_size=1, max_size=5))
def test_a_row_of_the_scheme_is_free_of_as_many_powers_as_its_number(power, coefficients):
    """c₀ + c₁ h^p + c₂ h^(p+2) + ... has the limit c₀, and row[j] finds it where at most j powers follow."""
    scheme = _Scheme(power)
    h = 1 / 2.2 ** np.arange(len(coefficients))
    for step in h:
        powers = step ** np.array([0.0, *(power + 2 * j for j in range(len(coefficients) - 1))])
        scheme.extend(np.array([powers @ coefficients]))
    assert scheme.row[-1][0] == pytest.approx(coefficients[0], abs=1e-10)


@given(power=st.sampled_from([1, 2]), errors=st.lists(st.floats(1e-9, 1), min_size=2, max_size=6))
def test_the_sizes_of_errors_are_carried_through_the_scheme_as_if_none_cancelled(power, errors):
    sizes = _Scheme(power)
    for error in errors:
        sizes.extend_magnitudes(np.array([error]))
    worst = np.zeros(len(errors))
    for signs in itertools.product([-1, 1], repeat=len(errors)):
        scheme = _Scheme(power)
        for sign, error in zip(signs, errors, strict=True):
            scheme.extend(np.array([sign * error]))
        worst = np.maximum(worst, np.abs(scheme.row)[:, 0])
    np.testing.assert_allclose(np.array(sizes.row)[:, 0], worst, rtol=1e-12)


@given(power=st.sampled_from([1, 2]), values=st.lists(st.floats(-1, 1), min_size=3, max_size=6))
def test_an_entry_errs_by_its_last_change_or_by_what_theory_makes_of_the_one_before(power, values):
    scheme, rows = _Scheme(power), []
    for value in values:
        scheme.extend(np.array([value]))
        rows.append(np.array(scheme.row)[:, 0])
    for j in range(1, len(values) - 1):
        before, previous, last = (row[j - 1] for row in rows[-3:])
        expected = max(abs(last - previous), abs(previous - before) / RATIO ** (power + 2 * (j - 1)))
        assert scheme.error(j)[0] == pytest.approx(expected, rel=1e-12, abs=0)


def test_noise_of_float32_is_seen():
    x = np.array([0.3, 0.7, 1.1])

    def line(t):
        return t, np.sin((x * (1 + t)).astype(np.float32)).astype(float)

    noise = rounding_noise([line], line(0.0)[1])
    assert np.all(noise > 1e-9)
    assert np.all(noise < 1e-6)


def still(t):
    return t, np.zeros(1)


def rough(t):
    """Noise of size one that is the same whenever it is asked for."""
    return t, np.random.default_rng(int.from_bytes(np.float64(t).tobytes(), "little")).standard_normal(1)


@given(slope=st.floats(0.1, 10), offset=st.sampled_from([0.0, 1.0]), seed=st.integers(0, 2**32))
def test_a_sum_is_as_noisy_as_its_term_in_float32_that_moves_later_than_the_other(slope, offset, seed):
    """Of 50 outputs: one alone may miss the noise, whose thirteen differences need not alternate enough."""
    x = np.random.default_rng(seed).uniform(0.5, 2, 50)

    def line(t):
        term = (x * (1 + t)).astype(np.float32).astype(float)
        return t, slope * t + term - (1 - offset) * x.astype(np.float32)

    noise = rounding_noise([line], line(0.0)[1])
    assert np.mean(noise > 1e-9) > 0.9
    assert np.all(noise < 1e-6)


@given(seed=st.integers(0, 2**32), close=st.integers(50, 400))
def test_kinks_that_lie_close_together_are_not_taken_for_noise(seed, close):
    """Of 50 outputs, each with so many kinks among the points of 2^-18, as a sum of thousands of relus has."""
    rng = np.random.default_rng(seed)
    kinks = rng.uniform(0, 64 * 2.0**-15, (50, 8 * close))
    turns = rng.standard_normal(kinks.shape)

    def line(t):
        return t, 1 + t + (turns * np.maximum(t - kinks, 0)).sum(axis=1)

    assert np.mean(rounding_noise([line], line(0.0)[1]) < 1e-12) > 0.8


@given(sixteenths=st.integers(8, 160), seed=st.integers(0, 2**32))
@example(sixteenths=8 * GROWTH, seed=0)  # just half as fast: four times, a factor that no rounding changes
def test_louder_noise_is_taken_unless_it_grows_at_least_half_as_fast_as_the_distance(sixteenths, seed):
    """Of 100 outputs each grows by a factor of its own, half of them by this, where the distance grows by eight.

    Some stand still at first. Each is measured as if it were alone; a few may not alternate enough to be taken again.
    """
    rng, contrasts = np.random.default_rng(seed), _third_differences(NOISE_POINTS)
    factors = np.where(rng.random(100) < 0.5, sixteenths, rng.integers(8, 160, 100)) / 16
    first = rng.choice(NOISE_SPACINGS[:4], 100)

    def line(t):
        mantissa, exponent = math.frexp(t)
        eights, rest = divmod(exponent, 3)
        own = np.random.default_rng([seed, rest, int(mantissa * 2**53)]).uniform(-1, 1, 100)
        return t, np.where(t < first, 0, own * factors**eights)

    expected = np.zeros(100)
    for spacing in NOISE_SPACINGS[:4]:
        points = np.stack([line(t * spacing)[1] for t in NOISE_POINTS])
        sizes = np.sort(np.abs(contrasts @ points), axis=0)[-4] / FOURTH_LARGEST
        louder = (sizes > SAFETY * expected) & (factors < GROWTH / 2)
        expected = np.where((spacing >= first) & ((expected == 0) | louder), sizes, expected)
    assert np.mean(np.isclose(rounding_noise([line], np.zeros(100)), expected, rtol=1e-9, atol=0)) > 0.95


def test_noise_beside_which_no_point_can_be_further_away_is_believed():
    x = np.linspace(0.5, 2, 50)

    def line(t):
        term = (x * (1 + t)).astype(np.float32).astype(float)
        return t, t + term if t <= 64 * 2.0**-18 else np.full(50, np.nan)

    assert np.mean(rounding_noise([line], line(0.0)[1]) > 1e-9) > 0.9


def test_what_is_measured_is_not_measured_again():
    """Four spacings in search of a term in float32, and no wider one nor another line."""
    taken = []

    def line(t):
        taken.append(t)
        return t, np.sin([1 + t])

    def never(t):
        raise AssertionError

    rounding_noise([line, never], line(0.0)[1])
    assert len(taken) == 1 + 4 * 16
    assert max(taken) == 2.0**-18 * 64


@given(frequency=st.floats(500, 5000))
def test_a_wave_that_only_the_widest_points_are_too_far_apart_to_follow_is_not_noise(frequency):
    """Another output, which stands still, has both lines measured to the end."""

    def line(t):
        return t, np.array([np.sin(frequency * t + 1), 1.0])

    assert rounding_noise([line, line], line(0.0)[1])[0] < 1e-12


@given(slope=st.floats(0.1, 9))
def test_what_is_smooth_over_wide_distances_has_no_noise_whatever_is_further_out(slope):
    """The rounding errors of slope t fall with t: at 0 there are none."""
    reach = NOISE_POINTS[-1] * WIDE

    def line(t):
        return t, np.array([slope * t]) if t <= reach else rough(t)[1]

    assert rounding_noise([line, rough], np.zeros(1))[0] == 0
    assert rounding_noise([still, line, rough], np.zeros(1))[0] == 0


@given(kink=st.floats(0, 46))
@example(44.0)
def test_four_moves_without_noise_are_enough_to_see_that_there_is_none(kink):
    """Behind 46 there are four of the points at the widest spacing, behind 0 all of them."""

    def line(t):
        return t, np.array([max(t / 2.0**-10 - kink, 0.0)])

    assert rounding_noise([line, rough], np.zeros(1))[0] < 1e-12


@pytest.mark.parametrize("jumps", [(), (2,), (30,), (2, 62), (2, 3, 62)])
def test_what_stands_still_on_a_line_but_for_a_few_jumps_is_measured_on_the_next(jumps):
    """Each of these jumps spoils three differences or fewer, at the ends of the row, and all of them three together."""

    def stairs(t):
        return t, np.full(2000, np.count_nonzero(t > WIDE * np.array(jumps)), float)

    def line(t):
        return t, np.random.default_rng(int(t * 2**40)).standard_normal(2000)

    noise = rounding_noise([stairs, line], np.zeros(2000))
    assert np.median(noise) == pytest.approx(1, rel=0.05)
    assert np.mean(noise > 1 / 4) > 0.99


@given(signs=st.lists(st.sampled_from([-1, 1]), min_size=13, max_size=13), seed=st.integers(0, 2**32))
def test_on_later_lines_only_what_alternates_is_noise(signs, seed):
    """Points with given third differences: the fourth largest is noise where enough neighbours differ in sign."""
    for sizes in (np.random.default_rng(seed).uniform(1, 2, 13), np.ones(13)):
        chosen = np.where(np.arange(13) < ALTERNATIONS + 1, (-1) ** np.arange(13), (-1) ** ALTERNATIONS)
        for pattern in (np.array(signs), chosen, np.roll(chosen, 1)):
            points = np.linalg.lstsq(_third_differences(NOISE_POINTS), pattern * sizes, rcond=None)[0]
            values = dict(zip(NOISE_POINTS * WIDE, points - points[0], strict=True))
            noise = rounding_noise([still, lambda t, values=values: (t, np.array([values.get(t, 0.0)]))], np.zeros(1))
            alternates = sum(a != b for a, b in itertools.pairwise(pattern)) >= ALTERNATIONS
            assert noise[0] == pytest.approx(np.sort(sizes)[-4] / FOURTH_LARGEST if alternates else 0, rel=1e-9)


def test_a_kink_at_zero_is_not_taken_for_noise():
    noise = rounding_noise([lambda t: (t, np.array([abs(t)]))], np.zeros(1))
    assert noise[0] < 1e-24


def test_two_steps_that_agree_by_chance_are_not_believed():
    h = [1 / 8, 1 / 8 / 2.2, 1 / 8 / 2.2**2]
    b = -1 / (h[1] ** 2 + h[2] ** 2)  # D(h) = h² + b h⁴ is the same for the second and the third step

    slope, bound, _, _ = estimate(lambda x: x**3 + b * x**5, 0.0)
    assert abs(slope) <= bound <= 1e-12


@given(x=st.floats(-0.5, 0.5))
def test_a_step_too_small_to_show_is_not_believed(x):
    """Beside 41 a change of 1e-12 is a matter of luck: small steps leave F as it is."""
    slope, bound, _, _ = estimate(lambda y: np.log1p(4e-12 * np.exp(y)) + 41.0, x)
    assert abs(slope - 4e-12 * np.exp(x)) <= bound


def test_an_output_that_moves_at_large_steps_only_is_noisy_at_small_ones_too():
    quantum = 1e-6

    def line(t):
        return t, np.array([quantum * np.floor(0.3 * t / quantum + 0.2), 0.0, 0.0])

    found = slopes([line], np.array([1 / 8]), line(0.0)[1], np.ones(3), np.array([quantum, 0.0, 0.0]))
    assert abs(found.slope[0] - 0.3) <= found.bound[0]


@given(u=st.lists(st.floats(-10, 10), min_size=1, max_size=5), seed=st.integers(0, 2**32), h=st.floats(1e-6, 1e6))
def test_where_nothing_moves_the_slope_is_known_no_better_than_a_typical_output(u, seed, h):
    """8 sigma / 2h for each of the first three steps, of which the last two are in the first entry that has a bound."""
    u, noise, base = np.array(u), np.random.default_rng(seed).uniform(0, 1, len(u)), np.ones(len(u))
    found = slopes([lambda t: (t, base)], np.array([h]), base, u, noise)
    second, third = (SAFETY * np.median(np.abs(u) * noise) / (2 * h / RATIO**level) for level in (1, 2))
    assert (found.slope[0], found.jump[0], found.step[0]) == (0, 0, h / RATIO**2)
    assert found.bound[0] == pytest.approx((RATIO**2 * third + second) / (RATIO**2 - 1), rel=1e-12, abs=0)


@given(seed=st.integers(0, 2**32), h=st.floats(1e-6, 1e6), size=st.sampled_from([0, 1e-17, 1e-15]))
def test_what_a_pair_of_steps_tells(seed, h, size):
    """Some outputs move to one side only, or to none; the arithmetic took twice the step to the right."""
    rng = np.random.default_rng(seed)
    for k in range(1, 9):
        above, below, base = rng.choice([-2.0, 0.0, 1.0], (3, k)) * np.where(rng.random(k) < 0.5, 1, 9)
        u, noise, least = rng.uniform(-2, 2, k), size * rng.random(k), 1e-15 * rng.integers(2)
        ends = {h: (2 * h, above), -h: (-h, below)}
        told, stirred = _differences(ends.__getitem__, h, base, u, noise, least)
        outputs = list(zip(above, below, base, u, noise, strict=True))
        bends = [c * ((a - o) / (2 * h) + (b - o) / h) for a, b, o, c, _ in outputs]
        moved = [(c, sigma, max(abs(a), abs(b)) * EPS / 2) for a, b, o, c, sigma in outputs if a != o or b != o]
        local = math.hypot(*(c * last_place for c, _, last_place in moved))
        assert stirred == pytest.approx(max(least, math.hypot(*(c * sigma for c, sigma, _ in moved))), rel=1e-12, abs=0)
        central = sum(c * (a - b) for a, b, _, c, _ in outputs) / (3 * h)
        expected = [central, sum(bends), SAFETY * max(stirred, local) / (3 * h), sum(map(abs, bends))]
        assert told[2] == pytest.approx(expected[2], rel=1e-12, abs=0)
        np.testing.assert_allclose(told, expected, rtol=1e-12, atol=1e-13 / h)


@given(seed=st.integers(0, 2**32), h=st.floats(1e-6, 1e6), levels=st.integers(3, 23), more=st.integers(0, 5))
def test_a_jump_that_lasts_at_the_smallest_steps_is_the_estimate(seed, h, levels, more):
    """It lasts where each of the last three steps shows more of it than noise, and none less than half the most."""
    rng, m = np.random.default_rng(seed), 200
    taken = np.full((levels + more, 4, m), np.nan)
    taken[: levels - 3] = 100.0
    central, rounding, half = rng.integers(-9, 9, (3, m)), rng.integers(0, 3, (3, m)), rng.integers(0, 9, (3, m)) / 2
    taken[levels - 3 : levels] = np.stack([central, np.zeros((3, m)), rounding, 2 * half], axis=1)
    best = Estimates(*np.full((4, m), -1.0))
    _settle_kinks(best, taken, np.full(m, h), np.full(m, levels))
    lasting = 0
    for i in range(m):
        found = best.slope[i], best.bound[i], best.jump[i], best.step[i]
        shown = half[:, i] - rounding[:, i]
        if all(shown > 0) and all(2 * shown > shown.max()):
            bound = half[:, i].max() + np.ptp(central[:, i]) + rounding[:, i].max()
            assert found == pytest.approx((central[-1, i], bound, half[:, i].max(), h / RATIO ** (levels - 1)))
            lasting += 1
        else:
            assert found == (-1, -1, -1, -1)
    assert 0 < lasting < m


@given(bends=st.lists(st.floats(-1, 1), min_size=3, max_size=6), first=st.floats(1e-3, 1e3))
def test_half_the_jump_is_half_of_what_the_larger_of_two_orders_shows(bends, first):
    """F is even, so that its slope is 0 and the bound half the jump; behind the last of the steps its domain ends."""
    scheme, shown = _Scheme(1), []
    for level, bend in enumerate(bends):
        scheme.extend(np.array([bend]))
        shown += [max(abs(scheme.row[j][0]), abs(scheme.row[j + 1][0])) for j in range(1, level)]

    def line(t):
        level = round(math.log(first / abs(t), RATIO))
        return t, np.array([abs(t) * bends[level] / 2 if level < len(bends) else np.nan])

    found = slopes([line], np.array([first]), *np.array([[0.0], [1.0], [0.0]]))
    assert found.slope[0] == 0
    assert found.jump[0] == pytest.approx(min(shown) / 2, abs=1e-12)
    assert found.bound[0] == pytest.approx(found.jump[0], abs=1e-12)


@given(slope=st.floats(0.5, 5), first=st.floats(0.01, 1))
def test_a_kink_that_only_noise_hides_at_small_steps_shows_at_large_ones(slope, first):
    found = slopes([lambda t: (t, np.array([slope * abs(t)]))], np.array([first]), *np.array([[0.0], [1.0], [1e-6]]))
    assert found.slope[0] == 0
    assert found.jump[0] == pytest.approx(slope, rel=1e-9)
    assert slope < found.bound[0] < slope + 0.01


@given(names=st.lists(st.sampled_from([*SMOOTH, "kink", "still"]), min_size=2, max_size=4), seed=st.integers(0, 2**32))
def test_every_line_is_estimated_as_if_it_were_alone(names, seed):
    """Each takes its own steps, of which one beside a number that is nearly zero may take more."""
    rng = np.random.default_rng(seed)
    bent = {**SMOOTH, "kink": (np.abs, None), "still": (np.zeros_like, None)}
    lines = [lambda t, f=bent[name][0]: (t, np.array([f(t)])) for name in names]
    first, origins = 10.0 ** rng.uniform(-2, 0, len(names)), 10.0 ** rng.uniform(-15, 0, len(names))

    def calls(chosen):
        taken = [[] for _ in chosen]
        counted = [lambda t, own=own, k=k: own.append(t) or lines[k](t) for own, k in zip(taken, chosen, strict=True)]
        # The base is none of the lines' own, so that each of them has a kink and takes all of its steps.
        base = np.array([1.0 if seed % 2 else 0.0])
        return taken, slopes(counted, first[chosen], base, np.ones(1), np.full(1, 1e-15), origins[chosen])

    together, found = calls(list(range(len(names))))
    for k in range(len(names)):
        alone, single = calls([k])
        assert together[k] == alone[0]
        for name in ("slope", "bound", "jump", "step"):
            assert getattr(found, name)[k] == pytest.approx(getattr(single, name)[0], rel=1e-12, nan_ok=True)


def test_the_step_is_the_one_that_the_arithmetic_took():
    """Near 1/3 a step of 1e-8 is wrong in its eighth digit."""
    slope, _, _, step = estimate(lambda y: abs(y - (1 / 3 + 1e-7)), 1 / 3)
    assert step < 1e-7
    assert slope == pytest.approx(-1, abs=1e-13)


@given(a=st.floats(-1, 1), size=st.floats(0.1, 10))
def test_a_later_estimate_is_taken_if_its_bound_is_less_or_if_it_excludes_the_one_before(a, size):
    """A broken line: one kink at 0 seen from afar, another seen from near, and the nearest steps out of the domain."""

    def found(mean, half_jump):
        def line(t):
            if abs(t) < 1e-4:
                raise ValueError("t: expected a number that is further from zero")
            near = abs(t) < 1e-2
            return t, size * np.array([t * (a + mean * near) + abs(t) * (half_jump if near else 1)])

        estimates = slopes([line], np.ones(1), *np.array([[0.0], [1.0], [0.0]]))
        return estimates.slope[0] / size - a, estimates.bound[0] / size

    for mean, half_jump, better in (
        (1.5, 0.9, True),  # better, and within reach of each other's bounds
        (-1.9, 0.95, True),
        (1.5, 1.1, False),  # within reach, and worse
        (-2.05, 1.1, False),
        (1.05, 1.1, False),
        (-2.2, 1.1, True),  # worse, but they exclude each other
        (4.0, 2.0, True),
    ):
        expected = (mean, half_jump) if better else (0, 1)
        assert found(mean, half_jump) == pytest.approx(expected, abs=1e-9)


@given(position=st.floats(0, 64), spacing=st.integers(24, 36))
def test_a_kink_among_the_points_is_not_taken_for_noise(position, spacing):
    """The output stands still before the kink, so that the points are as wide apart as it takes to reach it."""
    kink = position * 2.0**-spacing
    noise = rounding_noise([lambda t: (t, np.array([1 + max(t - kink, 0.0)]))], np.ones(1))
    assert noise[0] < 1e-15


def test_a_period_that_divides_the_steps_does_not_fool_the_extrapolation():
    for x in np.random.default_rng(0).uniform(1.5, 6.5, 100):
        slope, bound, _, _ = estimate(lambda y: np.sin(1000 * y), x)
        assert abs(slope - 1000 * np.cos(1000 * x)) <= bound <= 1e-4


def test_the_complex_step_is_exact_to_rounding():
    x = np.linspace(-2, 2, 9)
    lines = [lambda v=v: np.atleast_1d(np.exp(np.sin(v + 1j * TINY))) for v in x]
    found = complex_slopes(lines, np.full(9, 1 / 8), np.ones(1), np.full(1, EPS))
    truth = np.cos(x) * np.exp(np.sin(x))
    np.testing.assert_allclose(found.slope, truth, rtol=4 * EPS, atol=4 * EPS)
    assert np.all(np.abs(found.slope - truth) <= found.bound)


@given(outputs=st.lists(st.tuples(st.integers(-2, 2), st.floats(-2, 2), st.floats(0, 1)), min_size=1, max_size=6))
def test_a_slope_by_the_complex_step_is_no_better_than_the_noise_of_what_moves_or_of_a_typical_output(outputs):
    tangent, u, noise = np.array(outputs, float).T
    steps = np.array([1 / 8, 1e3])
    found = complex_slopes([lambda: 3 + 1j * TINY * tangent, lambda: 1j * TINY * tangent], steps, u, noise)
    moving = math.hypot(*(weight * sigma for slope, weight, sigma in outputs if slope))
    typical = np.median([abs(weight) * sigma for _, weight, sigma in outputs])
    np.testing.assert_allclose(found.slope, sum(slope * weight for slope, weight, _ in outputs), rtol=0, atol=1e-14)
    np.testing.assert_allclose(found.bound, SAFETY * max(moving, typical) / steps, rtol=1e-12)
    assert found.jump.tolist() == [0, 0]
