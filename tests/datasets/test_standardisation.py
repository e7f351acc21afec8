"""Columns to mean 0 and standard deviation 1, and back."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minicvae.datasets import Standardisation

tables = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 20), st.integers(1, 5)),
    elements=st.floats(-1000, 1000, width=32),
)


@given(values=tables)
def test_inverting_gives_back_what_was_applied(values):
    standardisation = Standardisation.fit(values)
    standardised = standardisation.apply(values)
    assert standardised.dtype == np.float32
    np.testing.assert_allclose(standardisation.invert(standardised), values, rtol=1e-4, atol=1e-3)


@given(seed=st.integers(0, 1000), shift=st.floats(-100, 100), scale=st.floats(0.01, 100))
def test_columns_come_out_with_mean_0_and_deviation_1(seed, shift, scale):
    values = shift + scale * np.random.default_rng(seed).standard_normal((50, 3))
    standardised = Standardisation.fit(values).apply(values)
    np.testing.assert_allclose(standardised.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(standardised.std(axis=0), 1, atol=1e-4)


@pytest.mark.parametrize("constant", [0.0, 0.1, -7.3, 1e8])
def test_a_constant_column_is_only_centred(constant):
    standardisation = Standardisation.fit(np.full((7, 1), constant))
    assert standardisation.scale == (1.0,)
    np.testing.assert_allclose(standardisation.apply([[constant], [constant + 2]]), [[0], [2]], atol=1e-6)


@given(values=tables)
def test_it_goes_through_json_without_loss(values):
    standardisation = Standardisation.fit(values)
    fields = json.loads(json.dumps(dataclasses.asdict(standardisation)))
    again = Standardisation(tuple(fields["mean"]), tuple(fields["scale"]))
    assert again == standardisation


def test_one_row_may_be_given_as_a_vector():
    standardisation = Standardisation(mean=(1.0, 2.0), scale=(2.0, 4.0))
    np.testing.assert_array_equal(standardisation.apply([3, 10]), [1, 2])
    np.testing.assert_array_equal(standardisation.invert([1, 2]), [3, 10])


@pytest.mark.parametrize("values", [np.zeros(3), np.zeros((0, 3)), [[np.nan]], [[np.inf]]])
def test_what_has_no_mean_and_deviation_is_refused(values):
    with pytest.raises(ValueError, match="values: expected"):
        Standardisation.fit(values)


def test_another_number_of_columns_is_refused():
    standardisation = Standardisation(mean=(0.0, 0.0), scale=(1.0, 1.0))
    for method in (standardisation.apply, standardisation.invert):
        with pytest.raises(ValueError, match=r"2 columns, got the shape \(4, 1\)"):
            method(np.zeros((4, 1)))
    with pytest.raises(ValueError, match="mean, scale: expected one length, got 2 and 1"):
        Standardisation(mean=(0.0, 0.0), scale=(1.0,))
