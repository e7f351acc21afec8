"""Schedules of learning rates and KL weights: their ends, their formulas, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    Cyclical,
    Exponential,
    Linear,
    Schedule,
    Steps,
    Tripling,
    as_schedule,
)

progress = st.floats(0, 1, exclude_max=True)
values = st.floats(0, 10)
positive = st.floats(1e-4, 10)
shares = st.floats(0.01, 1)


@given(value=values, p=progress)
def test_a_constant_is_constant(value, p):
    assert Constant(value)(p) == value


@given(start=values, end=values, over=shares, p=progress)
def test_a_linear_schedule_is_a_straight_line_and_then_its_end(start, end, over, p):
    schedule = Linear(start, end, over)
    assert schedule(0) == start
    expected = end if p >= over else start + (end - start) * p / over
    assert schedule(p) == pytest.approx(expected, abs=1e-12)


@given(start=values, end=values, warmup=st.floats(0, 0.9), p=progress)
def test_a_cosine_rises_to_its_start_and_falls_to_its_end(start, end, warmup, p):
    schedule = Cosine(start, end, warmup)
    if p < warmup:
        assert schedule(p) == pytest.approx(start * p / warmup)
    else:
        angle = np.pi * (p - warmup) / (1 - warmup)
        assert schedule(p) == pytest.approx(end + (start - end) * (1 + np.cos(angle)) / 2, abs=1e-12)
    assert schedule(warmup) == pytest.approx(start)
    assert schedule(1.0) == pytest.approx(end, abs=1e-12)
    assert schedule((1 + warmup) / 2) == pytest.approx((start + end) / 2, abs=1e-9)


@given(start=positive, end=positive, p=progress)
def test_an_exponential_is_linear_in_the_logarithm(start, end, p):
    expected = math.exp((1 - p) * math.log(start) + p * math.log(end))
    assert Exponential(start, end)(p) == pytest.approx(expected, rel=1e-9)


@given(data=st.data(), p=progress)
def test_steps_hold_each_value_up_to_its_boundary(data, p):
    boundaries = tuple(sorted(data.draw(st.lists(st.floats(0.01, 0.99), max_size=4, unique=True))))
    schedule = Steps(tuple(float(i) for i in range(len(boundaries) + 1)), boundaries)
    assert schedule(p) == np.searchsorted(boundaries, p, side="right")
    for i, boundary in enumerate(boundaries):
        assert schedule(boundary) == i + 1
        assert schedule(math.nextafter(boundary, 0)) == i


def test_the_published_stages_are_one_epoch_three_nine_and_so_on_each_to_the_step():
    schedule, steps = Tripling(), 3000
    assert schedule.ends == [1, 4, 13, 40, 121, 364, 1093, 3280]
    total, begin = 3280 * steps, 0
    for i, end in enumerate(schedule.ends):
        assert end - begin == 3**i
        for step in (begin * steps, end * steps - 1):  # the first of the stage and the last, as `fit` counts them
            assert schedule(step / total) == pytest.approx(1e-3 * 10 ** (-i / 7), rel=1e-12)
        begin = end
    assert schedule(1.0) == pytest.approx(1e-4)


@given(start=positive, stages=st.integers(1, 6), p=progress)
def test_fewer_stages_end_earlier_at_a_higher_rate(start, stages, p):
    schedule = Tripling(start, stages)
    epochs = (3**stages - 1) / 2
    assert schedule.ends[-1] == epochs
    stage = max(i for i in range(stages) if (3**i - 1) / 2 <= p * epochs * (1 + 1e-15))
    assert schedule(p) == pytest.approx(start / 10 ** (stage / 7), rel=1e-12)
    assert schedule(0) == start


@given(start=values, end=values, cycles=st.integers(1, 6), rise=shares, p=progress)
def test_a_cyclical_schedule_is_one_linear_rise_again_and_again(start, end, cycles, rise, p):
    within = p * cycles - math.floor(p * cycles)
    expected = Linear(start, end, rise)(within)
    assert Cyclical(start, end, cycles, rise)(p) == pytest.approx(expected, abs=1e-9 * max(1, abs(end - start) / rise))


def test_the_usual_annealing_reaches_one_four_times():
    schedule = Cyclical()
    assert [schedule(p) for p in (0, 0.0625, 0.125, 0.2, 0.25, 0.3125)] == [0, 0.5, 1, 1, 0, 0.5]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Linear(0, 1, 0), "^over: expected a share of training, 0 < over <= 1, got 0"),
        (lambda: Linear(0, 1, 1.5), "^over: "),
        (lambda: Cosine(1, 0, 1.0), "^warmup: expected a share of training, 0 <= warmup < 1, got 1.0"),
        (lambda: Cosine(1, 0, -0.1), "^warmup: "),
        (lambda: Exponential(0, 1), "^start, end: expected positive numbers, got 0, 1"),
        (lambda: Exponential(1, -1), "^(start, )?end: "),
        (lambda: Steps((1.0,), (0.5,)), "^values, boundaries: expected rising boundaries"),
        (lambda: Steps((1.0, 2.0, 3.0), (0.5, 0.2)), "^values, boundaries: expected rising boundaries"),
        (lambda: Cyclical(rise=0), "^rise: "),
        (lambda: Tripling(stages=0), "^stages: expected a whole number of at least 1, got 0"),
        (lambda: Cyclical(cycles=0), "^cycles: expected a whole number of at least 1, got 0"),
    ],
)
def test_wrong_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@given(value=values)
def test_a_number_is_a_constant_schedule(value):
    for number in (value, np.float64(value)):
        assert as_schedule("beta", number) == Constant(value)
    assert as_schedule("beta", 3)(0.5) == 3


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.int64])
def test_numpys_numbers_are_numbers(kind):
    assert as_schedule("learning_rate", kind(1))(0.5) == 1


def test_a_schedule_stays_itself():
    schedule = Linear(0, 1)
    assert as_schedule("beta", schedule) is schedule


@pytest.mark.parametrize("value", [-1, -1e-9, math.nan, math.inf, "1e-3", None, True, [1e-3], 1j])
def test_what_is_neither_is_refused_by_the_arguments_name(value):
    with pytest.raises(ValueError, match=r"^learning_rate: expected a finite number of at least 0 or a schedule, got "):
        as_schedule("learning_rate", value)


def test_the_base_has_no_value():
    with pytest.raises(NotImplementedError):
        Schedule()(0.5)
    assert all(issubclass(kind, Schedule) for kind in SCHEDULES)


@pytest.mark.parametrize(
    "make",
    [
        lambda v: Constant(v),
        lambda v: Linear(v, 1),
        lambda v: Linear(1, v),
        lambda v: Cosine(v),
        lambda v: Cosine(1, v),
        lambda v: Exponential(v, 1),
        lambda v: Exponential(1, v),
        lambda v: Steps((1, v), (0.5,)),
        lambda v: Tripling(v),
        lambda v: Cyclical(v, 1),
        lambda v: Cyclical(0, v),
    ],
)
@pytest.mark.parametrize("value", [-1e-3, math.nan, math.inf, "1"])
def test_a_schedule_of_what_is_no_rate_is_refused(make, value):
    with pytest.raises(ValueError, match="expected a number of at least 0"):
        make(value)


def test_cycles_are_counted_in_whole_numbers():
    with pytest.raises(ValueError, match="cycles: expected a whole number"):
        Cyclical(cycles=2.5)
