"""Each device's fast kernels against the reference in float64: drawn shapes, types and layouts, NaN and infinity.

A result in its own type may err by

    |result - truth| <= 8 √k · eps/2 · size,

k the terms of the longest sum behind an element, and size the sum of the magnitudes of what was added up: rounding
errors mostly cancel, so k of them grow like √k, and each term takes a few elementary functions (Higham 2002, Accuracy
and Stability of Numerical Algorithms, sections 2.8 and 3.1). A sum that cancels is held to the rounding of its terms.
"""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.kernels import OneHot, Reference, load, pieces
from minicvae.kernels.cpu import Cpu
from minicvae.kernels.cuda import Cuda
from minicvae.kernels.pieces import NUMBERS

ACTIVATIONS = ("linear", "relu", "tanh", "elu", "sigmoid")
HOUSEKEEPING = {"begin_step", "end_steps", "array", "to_numpy", "zeros", "feed", "goes_on", "repeated"}

reference = Reference()
seeds = st.integers(0, 2**32 - 1)


class Case(NamedTuple):
    """A call of one kernel.

    run: (kernels, arguments) -> its results by name, in the order of `sizes`. arguments: name -> array in float64 or
    integers. sizes: arguments -> the magnitude of the terms behind each result. terms: k. layouts: the arguments that
    may come as a view with strides. live: for an argument, where a NaN in it has to show; everywhere by default.
    """

    run: Callable
    arguments: dict
    sizes: Callable
    terms: int = 1
    layouts: tuple = ()
    live: Mapping = MappingProxyType({})


def lengths(draw):
    """Columns: few, and those around which a vectorised or chunked loop changes its course."""
    return draw(st.one_of(st.integers(1, 9), st.sampled_from([16, 31, 33, 56, 57, 113])))


def counts(draw):
    """Examples: few, and more than a tile of them."""
    return draw(st.one_of(st.integers(1, 5), st.sampled_from([8, 33])))


def pixels(rng, shape):
    return np.where(rng.random(shape) < 0.3, rng.integers(0, 2, shape), rng.random(shape))


def absolute(arguments):
    return {name: np.abs(a) if a.dtype.kind == "f" else a for name, a in arguments.items()}


def sigmoid(h):
    return reference.sigmoid(h)


# Products


def dense_arguments(draw, rng):
    """(arguments, join): the parts, W and b, and a function that makes the kernel's parts of arguments."""
    n, d_out = counts(draw), lengths(draw)
    kinds = draw(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), min_size=1, max_size=3))
    arguments = {
        f"part{i}": rng.integers(0, width, n) if labelled else rng.standard_normal((n, width))
        for i, (labelled, width) in enumerate(kinds)
    }
    arguments |= {"W": rng.standard_normal((sum(w for _, w in kinds), d_out)), "b": rng.standard_normal(d_out)}

    def join(a):
        return [OneHot(a[f"part{i}"], w) if labelled else a[f"part{i}"] for i, (labelled, w) in enumerate(kinds)]

    return arguments, join


def float_parts(arguments):
    return tuple(name for name, a in arguments.items() if name.startswith("part") and a.dtype.kind == "f")


def dense(draw, rng):
    arguments, join = dense_arguments(draw, rng)
    activation = draw(st.sampled_from(ACTIVATIONS))

    def run(k, a, activation=activation):
        return {"y": k.dense(join(a), a["W"], a["b"], activation)}

    def sizes(a):  # no activation is steeper than 1, and none but those of h = 0 is larger than h
        return {"y": 1 + run(reference, absolute(a), "linear")["y"]}

    return Case(run, arguments, sizes, len(arguments["W"]) + 1, float_parts(arguments))


def dense_backward(draw, rng):
    arguments, join = dense_arguments(draw, rng)
    parts, W, b = join(arguments), arguments["W"], arguments["b"]
    n, need = len(arguments["part0"]), [draw(st.booleans()) for _ in parts]
    activation, accumulate = draw(st.sampled_from(ACTIVATIONS)), draw(st.booleans())
    y = reference.dense(parts, W, b, activation)
    arguments |= {"y": y, "dy": rng.standard_normal(y.shape)}
    arguments |= {"dW": rng.standard_normal(W.shape), "db": rng.standard_normal(b.shape)}

    def run(k, a, activation=activation):
        dW, db = a["dW"].copy(), a["db"].copy()
        dparts = k.dense_backward(a["dy"], join(a), a["y"], a["W"], activation, dW, db, accumulate, need)
        return {"dW": dW, "db": db} | {f"dpart{i}": dx for i, dx in enumerate(dparts) if dx is not None}

    def sizes(a):  # a slope is at most 1, the sum of the terms of 1 - y² at most 2
        a = absolute(a)
        return run(reference, a | {"dy": 2 * a["dy"]}, "linear")

    live = {"dy": y > 0} if activation == "relu" else {}
    return Case(run, arguments, sizes, max(n, len(b)) + 1, ("dy", *float_parts(arguments)), live)


def embedding_backward(draw, rng):
    n, classes, d = counts(draw), draw(st.integers(1, 12)), lengths(draw)
    accumulate = draw(st.booleans())
    arguments = {"dy": rng.standard_normal((n, d)), "dE": rng.standard_normal((classes, d))}

    def run(k, a):
        dE = a["dE"].copy()
        k.embedding_backward(a["dy"], a["labels"], dE, accumulate)
        return {"dE": dE}

    arguments["labels"] = rng.integers(0, classes, n)
    return Case(run, arguments, lambda a: run(reference, absolute(a)), n + 1, ("dy",))


def gather(draw, rng):
    shape = (counts(draw), lengths(draw))
    held = draw(st.sampled_from([np.uint8, np.float32, np.float64]))  # float64 stands for the type at hand
    images = rng.integers(0, 256, shape, np.uint8) if held is np.uint8 else rng.random(shape).astype(held)

    def run(k, a):
        return {"x": k.gather(a["images"], a["index"], a["like"].dtype)}

    arguments = {"images": images, "index": rng.integers(0, shape[0], counts(draw)), "like": np.zeros(1)}
    return Case(run, arguments, lambda a: {"x": 1.0}, 1, ("images",))


def rows_of(name):
    """A kernel that gives rows of a table, exactly as they are."""

    def case(draw, rng):
        rows = counts(draw)
        arguments = {"table": rng.standard_normal((rows, lengths(draw))), "index": rng.integers(0, rows, counts(draw))}

        def run(k, a):
            return {"rows": getattr(k, name)(a["table"], a["index"])}

        return Case(run, arguments, lambda a: {"rows": 0.0}, 1, ("table",))

    return case


def concatenate(draw, rng):
    axis, n, d = draw(st.integers(0, 1)), counts(draw), lengths(draw)
    more = draw(st.lists(st.integers(1, 5), max_size=3))
    shapes = [(n, d), *((m, d) if axis == 0 else (n, m) for m in more)]
    arguments = {f"a{i}": rng.standard_normal(shape) for i, shape in enumerate(shapes)}

    def run(k, a):
        return {"whole": k.concatenate(list(a.values()), axis)}

    return Case(run, arguments, lambda a: {"whole": 0.0}, 1, tuple(arguments))


# Kernels whose arguments are all matrices


def plain(name, axes, sizes, *settings, terms="", variance=1.0):
    """A kernel of arrays with the given axes (n, d, s): `sizes` of the same arrays gives each result's magnitude."""

    def case(draw, rng):
        length = {"n": counts(draw), "d": lengths(draw), "s": draw(st.integers(1, 5))}
        length["D"] = 2 * length["d"]
        scale = draw(st.sampled_from([0.1, 1.0, 3.0])) * variance
        shapes = {f"{i}": [length[axis] for axis in shape.removesuffix("x")] for i, shape in enumerate(axes)}
        arguments = {
            i: pixels(rng, shape) if axes[int(i)].endswith("x") else scale * rng.standard_normal(shape)
            for i, shape in shapes.items()
        }

        def run(k, a):
            results = getattr(k, name)(*a.values(), *settings)
            return dict(enumerate(results if isinstance(results, tuple) else [results]))

        return Case(
            run,
            arguments,
            lambda a: dict(enumerate(sizes(*a.values()))),
            length[terms] if terms else 1,
            tuple(shapes) if "s" not in "".join(axes) else (),
        )

    return case


def bernoulli_sizes(l, x):
    return (np.log(2) + np.abs(l) * (1 + x)).sum(axis=1), 1 + x


def gaussian_sizes(l, x, sigma=0.5):
    reach = sigmoid(l) + x
    constant = abs(np.log(sigma)) + np.log(2 * np.pi) / 2
    return (reach**2 / (2 * sigma**2) + constant).sum(axis=1), reach / sigma**2


def gaussian_learned_sizes(h, x):
    mu, v = np.split(h, 2, axis=1)
    precision, reach = (1 + np.abs(v)) * np.exp(-v), np.abs(mu) + x
    square = reach**2 * precision
    nll = ((square + np.abs(v) + np.log(2 * np.pi)) / 2).sum(axis=1)
    return nll, np.concatenate([reach * precision, (1 + square) / 2], axis=1)


def kl_standard_sizes(mean, lv):
    variance = (1 + np.abs(lv)) * np.exp(lv)
    return (variance + mean**2 + 1 + np.abs(lv)) / 2, np.abs(mean), (1 + variance) / 2


def kl_diagonal_sizes(mean, lv, m, s):
    size = 1 + np.abs(lv) + np.abs(s)  # of the arguments of the exponentials, whose error they pass on
    ratio, gap = size * np.exp(lv - s), np.abs(mean) + np.abs(m)
    square = gap**2 * np.exp(-s) * size
    slope = gap * np.exp(-s) * size
    return (ratio + size + square) / 2, slope, (1 + ratio) / 2, slope, (1 + ratio + square) / 2


def kl_monte_carlo_sizes(mean, lv, eps):
    step = (1 + np.abs(lv)) * np.exp(lv / 2) * np.abs(eps)
    reach = np.abs(mean) + step
    slopes = reach.mean(axis=0), (1 + (reach * step).mean(axis=0)) / 2
    return ((reach**2 + eps**2).mean(axis=0) + np.abs(lv)) / 2, *slopes


def reparameterise_sizes(mean, lv, eps):
    return [np.abs(mean) + (1 + np.abs(lv)) * np.exp(lv / 2) * np.abs(eps)]


def reparameterise_backward_sizes(dz, lv, eps):
    factor = (1 + np.abs(lv)) * np.exp(lv / 2) / 2
    return np.abs(dz).sum(axis=0), np.abs(dz * eps).sum(axis=0) * factor


# Optimisers


def optimiser(name, slots, settings, sizes):
    """A step of an optimiser from drawn moments, or from the zeros that a training starts with."""

    def case(draw, rng):
        size, used = lengths(draw), draw(st.booleans())
        chosen = {key: draw(st.sampled_from(values)) for key, values in settings.items()}
        arguments = {slot: rng.standard_normal(size) for slot in ("value", "grad")}
        arguments |= {slot: used * rng.standard_normal(size) ** (2 if slot == "v" else 1) for slot in slots}
        arguments |= {"step": np.array([draw(st.sampled_from([0, 1, 999]))])} if "step" in slots else {}

        def run(k, a):
            state = {slot: a[slot].copy() for slot in ("value", *slots)}
            k_state = [state[slot] for slot in slots]
            getattr(k, name)(state["value"], a["grad"], *k_state, **chosen)
            assert "step" not in slots or int(state.pop("step")[0]) == int(a["step"][0]) + 1
            return state

        return Case(run, arguments, lambda a: sizes(**absolute(a), **chosen), 4)

    return case


def sgd_sizes(value, grad, velocity, learning_rate, momentum, nesterov, weight_decay):
    g = grad + weight_decay * value
    v = momentum * velocity + g
    return {"value": value + learning_rate * (g + v), "velocity": v}


def adam_sizes(value, grad, m, v, step, learning_rate, beta1, beta2, epsilon, weight_decay):
    m, v = beta1 * m + (1 - beta1) * grad, beta2 * v + (1 - beta2) * grad**2
    moved = m / (1 - beta1 ** (step + 1)) / (np.sqrt(v / (1 - beta2 ** (step + 1))) + epsilon)
    return {"value": value + learning_rate * (moved + weight_decay * value), "m": m, "v": v}


def elbo(draw, rng):
    n, l, s = counts(draw), draw(st.integers(1, 9)), draw(st.integers(1, 3))
    weight, floor = draw(st.sampled_from([0.0, 1.0, 4.0])), draw(st.sampled_from([-np.inf, 0.0, 0.5]))
    arguments = {"nll": rng.standard_normal((s, n)), "kl": rng.standard_normal((n, l))}

    def run(k, a):
        names = "loss", "reconstruction", "kl", "dnll", "dkl"
        results = k.elbo(a["nll"], a["kl"], weight, floor)
        return {name: k.array(x, a["kl"].dtype) for name, x in zip(names, results, strict=True)}

    def sizes(a):
        size = np.abs(a["nll"]).mean(), weight * (np.abs(a["kl"]).mean(axis=0).sum() + l), np.abs(a["kl"]).sum() / n
        return {
            "loss": size[0] + size[1],
            "reconstruction": size[0],
            "kl": size[2],
            "dnll": 1 / n / s,
            "dkl": weight / n,
        }

    return Case(run, arguments, sizes, n)


CASES = {
    "dense": dense,
    "elbo": elbo,
    "dense_backward": dense_backward,
    "embedding_backward": embedding_backward,
    "gather": gather,
    "embedding": rows_of("embedding"),
    "take": rows_of("take"),
    "concatenate": concatenate,
    "bernoulli": plain("bernoulli", ("nd", "ndx"), bernoulli_sizes, terms="d"),
    "gaussian": plain("gaussian", ("nd", "ndx"), gaussian_sizes, 0.5, terms="d"),
    "gaussian_learned": plain("gaussian_learned", ("nD", "ndx"), gaussian_learned_sizes, terms="d"),
    "scale_rows": plain("scale_rows", ("nd", "n"), lambda rows, scale: [np.abs(rows * scale[:, None])]),
    "sigmoid": plain("sigmoid", ("nd",), lambda h: [np.ones_like(h)]),
    "reparameterise": plain("reparameterise", ("nd", "nd", "snd"), reparameterise_sizes),
    "reparameterise_backward": plain(
        "reparameterise_backward", ("snd", "nd", "snd"), reparameterise_backward_sizes, terms="s"
    ),
    "kl_standard": plain("kl_standard", ("nd", "nd"), kl_standard_sizes),
    "kl_diagonal": plain("kl_diagonal", ("nd",) * 4, kl_diagonal_sizes),
    "kl_monte_carlo": plain("kl_monte_carlo", ("nd", "nd", "snd"), kl_monte_carlo_sizes, terms="s"),
    "sgd": optimiser(
        "sgd",
        ("velocity",),
        {
            "learning_rate": (1e-3, 0.1),
            "momentum": (0.0, 0.9),
            "nesterov": (False, True),
            "weight_decay": (0.0, 0.01),
        },
        sgd_sizes,
    ),
    "adam": optimiser(
        "adam",
        ("m", "v", "step"),
        {
            "learning_rate": (1e-3, 0.1),
            "beta1": (0.0, 0.9),
            "beta2": (0.9, 0.999),
            "epsilon": (1e-8, 1e-3),
            "weight_decay": (0.0, 0.01),
        },
        adam_sizes,
    ),
}
OVERRIDDEN = sorted(name for name in vars(Cpu) if not name.startswith("_") and hasattr(Reference, name))
COMPARED = [name for name in CASES if name in OVERRIDDEN]


def in_type(arguments, dtype):
    return {name: a.astype(dtype) if a.dtype == np.float64 else a for name, a in arguments.items()}


def strided(a):
    """The same numbers as a view: every second row and column of a larger array, the columns from the right."""
    larger = np.zeros([2 * size for size in a.shape], a.dtype)
    view = larger[tuple([slice(None, None, 2)] * (a.ndim - 1) + [slice(None, None, -2)])]
    view[...] = a
    return view


def on_device(kernels, run, arguments):
    results = run(kernels, {name: kernels.array(a) for name, a in arguments.items()})
    return {name: kernels.to_numpy(result) for name, result in results.items()}


def assert_close(kernels, case, dtype, layout=np.ascontiguousarray):
    arguments = in_type(case.arguments, dtype)
    laid_out = arguments | {name: layout(arguments[name]) for name in case.layouts}
    exact = {name: a.astype(np.float64) if a.dtype == dtype else a for name, a in arguments.items()}
    results, truths = on_device(kernels, case.run, laid_out), case.run(reference, exact)
    for name, a in exact.items():
        np.testing.assert_array_equal(laid_out[name], a, err_msg=f"{name} is the caller's")
    assert results.keys() == truths.keys()
    allowed = 8 * np.sqrt(case.terms) * np.finfo(dtype).eps / 2
    for name, size in case.sizes(exact).items():
        assert results[name].dtype == dtype, name
        assert results[name].shape == truths[name].shape, name
        error = np.abs(results[name].astype(np.float64) - truths[name])
        bound = np.broadcast_to(allowed * np.asarray(size), error.shape)
        worst = np.argmax(error - bound)
        assert np.all(error <= bound), (
            f"{name}[{worst}]: {results[name].flat[worst]} instead of {truths[name].flat[worst]}, "
            f"{error.flat[worst] / bound.flat[worst]:.1f} times the bound"
        )


@pytest.mark.parametrize("name", COMPARED)
@given(data=st.data(), seed=seeds, dtype=st.sampled_from(["float32", "float64"]))
def test_a_fast_kernel_gives_what_the_reference_gives(name, data, seed, dtype):
    assert_close(load("cpu"), CASES[name](data.draw, np.random.default_rng(seed)), dtype)


@pytest.mark.parametrize("name", sorted(set(COMPARED) - {"sgd", "adam"}))  # whose buffers are flat
@given(data=st.data(), seed=seeds)
def test_a_fast_kernel_takes_views_with_strides(name, data, seed):
    assert_close(load("cpu"), CASES[name](data.draw, np.random.default_rng(seed)), "float32", strided)


@pytest.mark.cuda
@pytest.mark.parametrize("name", CASES)
@given(data=st.data(), seed=seeds, dtype=st.sampled_from(["float32", "float64"]))
def test_a_kernel_on_the_gpu_gives_what_the_reference_gives(name, data, seed, dtype):
    try:
        kernels = load("cuda")
    except RuntimeError as error:
        pytest.skip(str(error))
    assert_close(kernels, CASES[name](data.draw, np.random.default_rng(seed)), dtype)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", COMPARED)
@given(data=st.data(), seed=seeds)
def test_a_fast_kernel_neither_loses_nor_invents_what_is_not_finite(name, bad, data, seed):
    rng = np.random.default_rng(seed)
    case = CASES[name](data.draw, rng)
    planted = data.draw(st.sampled_from([n for n, a in case.arguments.items() if a.dtype.kind == "f"]))
    live = np.flatnonzero(case.live.get(planted, np.ones(case.arguments[planted].shape)))
    if len(live) == 0:
        return
    arguments = in_type(case.arguments, "float32")
    arguments[planted].flat[rng.choice(live)] = bad
    with np.errstate(all="ignore"):
        results, truths = case.run(load("cpu"), arguments), case.run(reference, arguments)
    for key, truth in truths.items():
        found, expected = ~np.isfinite(results[key]), ~np.isfinite(truth)
        assert found.any() == expected.any(), key
        assert not np.any(found & ~expected), key  # 0 · NaN in a product with written-out zeros is no loss


def test_rows_that_are_not_there_are_not_taken():
    for k in (load("cpu"), reference):
        np.testing.assert_array_equal(k.take(np.arange(3), np.array([-1])), [2])
        for index in (3, -4):
            with pytest.raises(IndexError):
                k.take(np.arange(3), np.array([index]))


def test_read_only_pixels_are_gathered():
    images = np.frombuffer(bytes(range(12)), np.uint8).reshape(3, 4)
    x = load("cpu").gather(images, np.array([2]), "float32")
    np.testing.assert_allclose(x, images[[2]] / 255, rtol=1e-6)


@pytest.mark.parametrize("kind", [Cpu, Cuda])
def test_every_override_has_the_signature_of_the_reference(kind):
    for name, method in vars(kind).items():
        if not name.startswith("_") and hasattr(Reference, name) and callable(method):
            assert inspect.signature(method) == inspect.signature(getattr(Reference, name)), name


def test_every_fast_kernel_is_compared():
    assert set(OVERRIDDEN) - HOUSEKEEPING - {"name"} <= set(CASES)
    assert len(COMPARED) >= 8


@given(size=st.integers(0, 3 * NUMBERS), seed=seeds)
def test_long_arrays_have_the_same_sigmoid(size, seed):
    h = np.random.default_rng(seed).normal(scale=5, size=size)
    np.testing.assert_allclose(load("cpu").sigmoid(h), reference.sigmoid(h), rtol=1e-14, atol=0)


@given(rate=st.sampled_from([1, np.float32(0.5), np.float64(0.5)]), none=st.sampled_from([0, 0.0, np.float32(0)]))
def test_settings_of_another_type_are_not_compiled_anew(rate, none):
    value, grad, *moments = (np.ones(3, np.float32) for _ in range(4))
    moments.append(np.zeros(1, np.int64))
    k = load("cpu")
    k.adam(value, grad, *moments, 0.5, 0.9, 0.999, 1e-8, 0.0)
    k.sgd(value, grad, moments[0], 0.5, 0.0, False, 0.0)
    compiled = [len(getattr(kernel, "signatures", ())) for kernel in (pieces.adam, pieces.sgd)]
    k.adam(value, grad, *moments, rate, none, 0.999, 1e-8, none)
    k.sgd(value, grad, moments[0], rate, none, bool(none), none)
    assert [len(getattr(kernel, "signatures", ())) for kernel in (pieces.adam, pieces.sgd)] == compiled
