"""One generator: a pure function of its key, streams that do not overlap, and seeds that are refused."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.randomness import Purpose, check_seed, generator, standard_normal

seeds = st.integers(0, 2**64 - 1)
counters = st.integers(0, 2**63)
keys = st.tuples(seeds, st.sampled_from(Purpose), counters, counters)


@given(key=keys)
def test_the_same_key_gives_the_same_numbers(key):
    first = generator(*key)
    first.random(7)
    np.testing.assert_array_equal(generator(*key).random(5), generator(*key).random(5))
    np.testing.assert_array_equal(
        standard_normal((2, 3), "float32", *key), standard_normal((2, 3), "float32", *key), strict=True
    )


@given(key=keys)
def test_noise_is_what_the_generator_of_its_key_would_draw(key):
    expected = generator(*key).standard_normal((2, 3))
    np.testing.assert_array_equal(standard_normal((2, 3), "float64", *key), expected)


@given(one=keys, other=keys)
def test_streams_of_different_keys_do_not_overlap(one, other):
    """Different keys are different permutations; under one key the counters start 2^128 blocks apart."""
    states = [generator(*key).bit_generator.state["state"] for key in (one, other)]
    if one[:2] == other[:2] and one[2:] != other[2:]:
        assert tuple(states[0]["counter"][2:]) != tuple(states[1]["counter"][2:])
        assert not any(np.any(state["counter"][:2]) for state in states)
    if one[:2] != other[:2]:
        assert tuple(states[0]["key"]) != tuple(states[1]["key"])
    if one != other:
        assert not np.array_equal(generator(*one).random(4), generator(*other).random(4))


@pytest.mark.parametrize("purpose", [3, "train", None])
def test_a_purpose_that_is_none_is_refused(purpose):
    """A plain number most often is the seed, in the wrong place."""
    with pytest.raises(TypeError, match=rf"^purpose: expected a Purpose, got {type(purpose).__name__} {purpose!r}"):
        generator(Purpose.TRAIN, purpose)


def test_neighbouring_streams_share_no_number():
    keys = itertools.product((0, 1), Purpose, (0, 1), (0, 1, 2))
    drawn = np.concatenate([generator(*key).integers(0, 2**63, 50) for key in keys])
    assert len(np.unique(drawn)) == len(drawn)


@given(
    seed=seeds, shape=st.lists(st.integers(0, 4), max_size=3).map(tuple), dtype=st.sampled_from(["float32", "float64"])
)
def test_noise_has_the_shape_and_type_that_were_asked_for_and_is_one_for_all_types(seed, shape, dtype):
    eps = standard_normal(shape, dtype, seed, Purpose.TRAIN, 3, 4)
    assert eps.shape == shape
    assert eps.dtype == dtype
    np.testing.assert_array_equal(eps, standard_normal(shape, "float64", seed, Purpose.TRAIN, 3, 4).astype(dtype))


def test_noise_is_standard_normal():
    eps = standard_normal((100_000,), "float64", 0, Purpose.GENERATE)
    assert eps.mean() == pytest.approx(0, abs=5 / np.sqrt(len(eps)))
    assert eps.var() == pytest.approx(1, abs=5 * np.sqrt(2 / len(eps)))
    assert (eps**4).mean() == pytest.approx(3, abs=5 * np.sqrt(96 / len(eps)))


def test_no_global_state_is_touched_or_read():
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = generator(5, Purpose.SHUFFLE).permutation(10)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    np.testing.assert_array_equal(generator(5, Purpose.SHUFFLE).permutation(10), first)


@given(seed=seeds)
def test_any_integer_of_64_bits_is_a_seed(seed):
    assert check_seed(seed) == check_seed(np.uint64(seed)) == seed


@pytest.mark.parametrize("seed", [-1, 2**64, np.int64(-5)])
def test_integers_out_of_range_are_refused(seed):
    with pytest.raises(ValueError, match=rf"^seed: expected 0 <= seed < 2\*\*64, got {seed}"):
        check_seed(seed)


@pytest.mark.parametrize("seed", [None, 1.0, "1", [1], np.float64(3)])
def test_what_is_no_integer_is_refused(seed):
    with pytest.raises(TypeError, match=f"^seed: expected an integer, got {type(seed).__name__}"):
        check_seed(seed)
