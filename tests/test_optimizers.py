"""The optimisers over several steps, against formulas in float64 that share nothing with the kernels."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.kernels import load
from minicvae.optimizers import OPTIMIZERS, SGD, Adam, AdamW, Optimizer, clip_by_global_norm, get
from minicvae.parameters import Parameter, Parameters

seeds = st.integers(0, 2**32 - 1)
steps = st.integers(1, 6)
sizes = st.integers(1, 7)
rates = st.sampled_from([1e-4, 1e-2, 0.5])
decays = st.sampled_from([0.0, 0.01, 0.3])
forgetting = st.sampled_from([0.0, 0.5, 0.9])


def parameters_of(kernels, start, dtype):
    parameters = Parameters([("w", Parameter(start.shape, "zeros"))], kernels, dtype)
    parameters["w"] = start
    return parameters


def run(kernels, optimizer, start, gradients, rate, dtype):
    """The values after each step of `optimizer` down the given gradients."""
    parameters = parameters_of(kernels, start, dtype)
    update = optimizer.start(parameters, kernels)
    values = []
    for gradient in gradients:
        parameters.zero_grad()
        parameters.grads["w"] = gradient
        update(rate)
        values.append(kernels.to_numpy(parameters["w"]).astype(np.float64))
    return values


def draw(seed, count, size):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(size), rng.standard_normal((count, size))


def faded(terms, factor):
    """Σ_i factor^(t-i) term_i, as a sum of powers and not step by step."""
    return sum(factor ** (len(terms) - 1 - i) * term for i, term in enumerate(terms))


def adam_by_sums(start, gradients, rate, beta1, beta2, epsilon, decay):
    """m_t = (1-β1) Σ_i β1^(t-i) g_i and so on, each step from all gradients before it."""
    values = [start]
    for t in range(1, len(gradients) + 1):
        seen = gradients[:t]
        m_hat = (1 - beta1) * faded(seen, beta1) / (1 - beta1**t)
        v_hat = (1 - beta2) * faded(seen**2, beta2) / (1 - beta2**t)
        values.append((1 - rate * decay) * values[-1] - rate * m_hat / (np.sqrt(v_hat) + epsilon))
    return values[1:]


def sgd_by_sums(start, gradients, rate, momentum, nesterov, decay):
    """v_t = Σ_i momentum^(t-i) (g_i + decay w_i), each step from all gradients before it."""
    values, decayed = [start], []
    for gradient in gradients:
        decayed.append(gradient + decay * values[-1])
        v = faded(decayed, momentum)
        values.append(values[-1] - rate * (decayed[-1] + momentum * v if nesterov else v))
    return values[1:]


def assert_same(values, expected, rtol):
    for value, exact in zip(values, expected, strict=True):
        np.testing.assert_allclose(value, exact, rtol=rtol, atol=rtol)


@given(
    seed=seeds,
    count=steps,
    size=sizes,
    rate=rates,
    beta1=forgetting,
    beta2=st.sampled_from([0.0, 0.9, 0.999]),
    epsilon=st.sampled_from([1e-8, 1e-3]),
    decay=decays,
)
def test_adam_is_its_formula(kernels, seed, count, size, rate, beta1, beta2, epsilon, decay):
    start, gradients = draw(seed, count, size)
    optimizer = Adam(beta1, beta2, epsilon, decay)
    expected = adam_by_sums(start, gradients, rate, beta1, beta2, epsilon, decay)
    assert_same(run(kernels, optimizer, start, gradients, rate, "float64"), expected, 1e-11)
    assert_same(run(kernels, optimizer, start, gradients, rate, "float32"), expected, 2e-5)


@given(seed=seeds, count=steps, size=sizes, rate=rates, momentum=forgetting, nesterov=st.booleans(), decay=decays)
def test_sgd_is_its_formula(kernels, seed, count, size, rate, momentum, nesterov, decay):
    start, gradients = draw(seed, count, size)
    optimizer = SGD(momentum, nesterov, decay)
    expected = sgd_by_sums(start, gradients, rate, momentum, nesterov, decay)
    assert_same(run(kernels, optimizer, start, gradients, rate, "float64"), expected, 1e-11)
    assert_same(run(kernels, optimizer, start, gradients, rate, "float32"), expected, 2e-5)


@given(seed=seeds)
def test_adams_first_step_is_the_rate_against_the_gradients_sign(kernels, seed):
    start, gradients = draw(seed, 1, 5)
    (value,) = run(kernels, Adam(epsilon=1e-300), start, gradients, 0.1, "float64")
    np.testing.assert_allclose(value, start - 0.1 * np.sign(gradients[0]), rtol=1e-12)


def test_weight_decay_of_adamw_does_not_pass_through_the_moments(kernels):
    """Without a gradient the weights shrink by the same factor at each step, whatever their size."""
    start = np.array([1e-3, 1.0, -1e3])
    values = run(kernels, AdamW(weight_decay=0.1), start, np.zeros((3, 3)), 0.5, "float64")
    for t, value in enumerate(values, start=1):
        np.testing.assert_allclose(value, start * 0.95**t, rtol=1e-12)


@pytest.mark.parametrize("optimizer", [SGD(), SGD(0.9, nesterov=True), Adam(), AdamW()])
def test_it_finds_the_bottom_of_a_bowl(kernels, optimizer):
    parameters = parameters_of(kernels, np.array([3.0, -2.0]), "float64")
    update = optimizer.start(parameters, kernels)
    rate = 0.02 if isinstance(optimizer, SGD) else 0.1
    for _ in range(400):
        parameters.zero_grad()
        parameters.grads["w"] = parameters["w"] * kernels.array(np.array([1.0, 10.0]))
        update(rate)
    np.testing.assert_allclose(kernels.to_numpy(parameters.value), 0, atol=0.02)


def test_two_trainings_do_not_share_their_moments():
    kernels, optimizer = load("numpy"), Adam()
    start, gradients = draw(0, 4, 3)
    first = run(kernels, optimizer, start, gradients, 0.1, "float64")
    np.testing.assert_array_equal(first, run(kernels, optimizer, start, gradients, 0.1, "float64"))


def test_a_parameter_that_no_backward_reached_stays_where_it_is(kernels):
    """Its numbers of an earlier step must not move it."""
    named = [("a", Parameter((2,), "zeros")), ("b", Parameter((2,), "zeros"))]
    parameters = Parameters(named, kernels, "float64")
    update = SGD().start(parameters, kernels)
    parameters.grads["a"], parameters.grads["b"] = np.ones(2), np.ones(2)
    parameters.zero_grad()
    named[0][1].gradient_sink()[0][...] = 1
    update(1.0)
    for name, expected in (("a", [-1, -1]), ("b", [0, 0])):
        np.testing.assert_array_equal(kernels.to_numpy(parameters[name]), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_moments_keep_the_smallest_normal_number(kernels, dtype):
    """What is smaller is subnormal, slow to compute with, and may be 0."""
    tiny = np.finfo(dtype).tiny
    for gradient, moments in ((tiny, [tiny, 0]), (np.sqrt(tiny), [np.sqrt(tiny), tiny])):
        grad, velocity, m, v = (kernels.array(np.array([number]), dtype) for number in (gradient, 0, 0, 0))
        kernels.sgd(kernels.xp.zeros_like(grad), grad, velocity, 0.1, 0.0, False, 0.0)
        kernels.adam(kernels.xp.zeros_like(grad), grad, m, v, kernels.zeros((1,), np.int64), 0.1, 0.0, 0.0, 1e-8, 0.0)
        found = [float(kernels.to_numpy(moment)[0]) for moment in (velocity, m, v)]
        assert found == [gradient, *moments]


# Clipping


@given(seed=seeds, size=sizes, limit=st.floats(0.01, 10))
def test_clipping_scales_the_whole_gradient_to_the_limit_and_never_up(kernels, seed, size, limit):
    for dtype, rtol in (("float32", 1e-6), ("float64", 1e-13)):
        gradient = draw(seed, 1, size)[1][0].astype(dtype)
        parameters = parameters_of(kernels, np.zeros(size), dtype)
        parameters.grads["w"] = gradient
        norm = clip_by_global_norm(parameters, kernels, limit)
        exact = math.sqrt(math.fsum(float(g) ** 2 for g in gradient))
        assert float(norm) == pytest.approx(exact, rel=1e-12)
        clipped = kernels.to_numpy(parameters.grads["w"])
        if exact <= limit:
            np.testing.assert_array_equal(clipped, gradient)
        else:
            assert np.linalg.norm(clipped.astype(np.float64)) == pytest.approx(limit, rel=rtol)
            np.testing.assert_allclose(clipped, gradient * (limit / exact), rtol=10 * rtol)
        assert parameters.grad.dtype == dtype


def test_the_norm_is_over_all_parameters_together(kernels):
    named = [("a", Parameter((1,), "zeros")), ("b", Parameter((1,), "zeros"))]
    parameters = Parameters(named, kernels, "float64")
    parameters.grads["a"], parameters.grads["b"] = np.array([3.0]), np.array([4.0])
    assert clip_by_global_norm(parameters, kernels, 1.0) == 5
    for name, expected in (("a", 0.6), ("b", 0.8)):
        np.testing.assert_allclose(kernels.to_numpy(parameters.grads[name]), [expected])


# By name


def test_optimisers_are_found_by_name_with_their_usual_settings():
    assert [get(name) for name in ("sgd", "adam", "adamw")] == [SGD(), Adam(), AdamW()]
    assert Adam() == Adam(0.9, 0.999, 1e-8, 0.0)
    assert AdamW().weight_decay == 0.01
    assert set(OPTIMIZERS) == {"sgd", "adam", "adamw"}
    mine = SGD(0.5)
    assert get(mine) is mine


@pytest.mark.parametrize("name", ["Adam", "rmsprop", "", None])
def test_an_unknown_optimiser_is_refused(name):
    with pytest.raises(ValueError, match=r"^optimizer: expected one of sgd, adam, adamw, or an Optimizer, got "):
        get(name)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(momentum=1.0), "momentum: expected 0 <= momentum < 1, got 1.0"),
        (lambda: SGD(momentum=-0.1), "momentum: "),
        (lambda: SGD(weight_decay=-1), "weight_decay: expected a number of at least 0, got -1"),
        (lambda: Adam(beta1=1), "beta1: "),
        (lambda: Adam(beta2=1.5), "beta2: "),
        (lambda: Adam(beta2=math.nan), "beta2: "),
        (lambda: Adam(epsilon=-1e-8), "epsilon: "),
        (lambda: Adam(epsilon=0.0), "epsilon: "),
        (lambda: AdamW(weight_decay=math.nan), "weight_decay: "),
    ],
)
def test_wrong_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


def test_the_base_makes_no_step():
    with pytest.raises(NotImplementedError):
        Optimizer().start(None, None)
