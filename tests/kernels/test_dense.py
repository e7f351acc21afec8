"""The dense kernels as they are shared out: against the reference at the edges of shares, and the same bits always."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.kernels import OneHot, Reference, cpu
from minicvae.kernels.cpu import Cpu
from minicvae.kernels.team import Team

ACTIVATIONS = st.sampled_from(["linear", "relu", "tanh", "elu", "sigmoid"])


@pytest.fixture(scope="module")
def devices():
    """Three `Cpu`s, with teams of one, two and three threads that share even the smallest kernel."""
    devices = [Cpu() for _ in range(3)]
    for i, device in enumerate(devices):
        device.team = Team(i + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "WORTH_SHARING", -1)
        yield devices


@st.composite
def layers(draw, dtype):
    """(parts, W, b, dy, old dW, old db): one or two float parts and at most one of labels, in any order."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, d = draw(st.integers(1, 40)), draw(st.sampled_from([1, 4, 15, 16, 17, 33, 48, 64, 100]))
    widths = draw(st.lists(st.sampled_from([1, 2, 10, 16, 33, 130]), min_size=1, max_size=2))
    parts = [rng.standard_normal((n, width)) for width in widths]
    if draw(st.booleans()):
        parts.insert(draw(st.integers(0, len(parts))), OneHot(rng.integers(0, 3, n), 3))
    d_in = sum(part.classes if isinstance(part, OneHot) else part.shape[1] for part in parts)
    parts = [part if isinstance(part, OneHot) else part.astype(dtype) for part in parts]
    shapes = (d_in, d), (d,), (n, d), (d_in, d), (d,)
    return parts, *(rng.standard_normal(shape).astype(dtype) for shape in shapes)


def run(kernels, case, activation, accumulate):
    """y, dW, db and a dx for each float part."""
    parts, W, b, dy, dW, db = case
    dW, db = dW.copy(), db.copy()
    y = kernels.dense(parts, W, b, activation)
    need = [not isinstance(part, OneHot) for part in parts]
    dparts = kernels.dense_backward(dy, parts, y, W, activation, dW, db, accumulate, need)
    return [y, dW, db, *(dx for dx, needed in zip(dparts, need, strict=True) if needed)]


@given(layers(np.float64), ACTIVATIONS, st.booleans())
def test_shared_kernels_give_what_the_reference_gives(devices, case, activation, accumulate):
    expected = run(Reference(), case, activation, accumulate)
    for device in devices:
        for found, right in zip(run(device, case, activation, accumulate), expected, strict=True):
            np.testing.assert_allclose(found, right, rtol=1e-11, atol=1e-11)


@given(layers(np.float32), ACTIVATIONS, st.booleans())
def test_the_bits_do_not_depend_on_the_number_of_threads(devices, case, activation, accumulate):
    one, *others = [run(device, case, activation, accumulate) for device in devices]
    for other in others:
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


@given(layers(np.float32))
def test_inputs_of_unusual_layout_give_the_same(devices, case):
    parts, W, b, dy, dW, db = case
    spread = [part if isinstance(part, OneHot) else np.repeat(part, 2, axis=1)[:, ::2] for part in parts]
    usual = run(devices[1], case, "relu", False)
    for a, b_ in zip(usual, run(devices[1], (spread, W, b, np.asfortranarray(dy), dW, db), "relu", False), strict=True):
        np.testing.assert_array_equal(a, b_)


@given(st.integers(1, 500), st.integers(0, 2**32 - 1))
def test_adam_has_the_same_bits_for_any_number_of_threads(devices, n, seed):
    rng = np.random.default_rng(seed)
    buffers = rng.random((4, n)).astype(np.float32)
    results = []
    for device in devices:
        value, grad, m, v = buffers.copy()
        device.adam(value, grad, m, v, 3, 1e-3, 0.9, 0.999, 1e-8, 0.01)
        results.append(np.stack([value, m, v]))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
