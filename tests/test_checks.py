"""The checks: what they let through is what came in, and what they refuse is named."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.checks import whole


@given(least=st.integers(0, 3), more=st.integers(0, 100), as_type=st.sampled_from([int, np.int8, np.uint64]))
def test_whole_numbers_come_back_as_ints(least, more, as_type):
    value = whole("n", as_type(least + more), least)
    assert (type(value), value) == (int, least + more)


@pytest.mark.parametrize("value", [0, -1, True, 2.0, np.float64(3), "4", None, (5,)])
def test_everything_else_is_refused_by_name(value):
    with pytest.raises(ValueError, match=r"^epochs: expected a whole number of at least 1, got "):
        whole("epochs", value)
