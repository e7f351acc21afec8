"""The compiled loops: as plain Python, and without numbers that are slow."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.kernels import Reference, compiled, load


def test_the_kernels_run_as_plain_python_too():
    """With NUMBA_DISABLE_JIT a reader can step through them; what they compute stays the same."""
    program = """
import numpy as np
from minicvae.kernels import OneHot, Reference, load
rng = np.random.default_rng(0)
x, W, b = rng.standard_normal((3, 4)), rng.standard_normal((6, 2)), rng.standard_normal(2)
c = OneHot(np.array([1, 0, 1]), 2)
found = []
for k in (Reference(), load("cpu")):
    y = k.dense((x, c), W, b, "elu")
    dW, db = np.empty_like(W), np.empty_like(b)
    dx, _ = k.dense_backward(y, (x, c), y, W, "elu", dW, db, False, (True, False))
    found.append([y, dx, dW, db, *k.bernoulli(x, x * x), *k.gaussian(x, x, 0.5)])
    found[-1].append(k.gather(np.uint8([[9, 99]]), np.array([0]), float))
for one, other in zip(*found):
    np.testing.assert_allclose(one, other, rtol=1e-12)
print("same")
"""
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "same\n", done.stderr


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_moments_never_become_subnormal_numbers_which_are_slow(dtype):
    tiny, none = np.finfo(dtype).tiny, np.zeros(3, dtype)
    for name in ("sgd", "adam"):
        moments = [np.array([tiny, -tiny, 1], dtype) for _ in range(2)]
        if name == "sgd":
            load("cpu").sgd(none.copy(), none, moments[0], 1e-3, 0.5, False, 0.0)
        else:
            load("cpu").adam(none.copy(), none, *moments, np.zeros(1, np.int64), 1e-3, 0.5, 0.5, 1e-8, 0.0)
        for moment in moments[: 1 if name == "sgd" else 2]:
            np.testing.assert_array_equal(moment, np.array([0, 0, 0.5], dtype))


@pytest.mark.parametrize("activation", compiled.ACTIVATION)
@given(n=st.integers(0, 5), d=st.integers(1, 9), seed=st.integers(0, 2**32 - 1))
def test_the_slope_and_its_sum_over_the_examples_come_in_one_pass(activation, n, d, seed):
    rng, g = np.random.default_rng(seed), np.full((n, d), np.nan)
    dy, y, db = rng.standard_normal((n, d)), rng.uniform(-1, 1, (n, d)), rng.standard_normal(d)
    expected = dy if activation == "linear" else dy * Reference().activation_slope(y, activation)
    sums = db + expected.sum(axis=0)
    compiled.slope_times(dy, y, g, db, compiled.ACTIVATION[activation])
    np.testing.assert_allclose(g, expected, rtol=0, atol=1e-14)
    np.testing.assert_allclose(db, sums, rtol=0, atol=1e-13)
