"""The types of the arguments' values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.cli.parser import at_least, number


@given(value=st.integers(), least=st.integers(0, 3))
def test_a_whole_number_is_taken_if_it_is_large_enough(value, least):
    if value >= least:
        assert at_least(least)(str(value)) == value
    else:
        with pytest.raises(Exception, match=f"at least {least}"):
            at_least(least)(str(value))


@given(value=st.floats(), zero=st.booleans())
def test_a_number_is_taken_if_it_is_finite_and_not_negative(value, zero):
    if (0 < value < np.inf) or (zero and value == 0):
        assert number(zero=zero)(repr(value)) == value
    else:
        with pytest.raises(Exception, match="expected a number"):
            number(zero=zero)(repr(value))
