"""The CUDA kernels, built for the host and run thread by thread, against the reference.

The cases and the bound on rounding are those of `test_cpu.py`; images come here.
"""

import numpy as np
import pytest
import standin
from hypothesis import given
from hypothesis import strategies as st
from test_cpu import CASES, Case, absolute, assert_close, seeds, strided

from minicvae.kernels import Reference
from minicvae.kernels.convolution import span

reference = Reference()
ACTIVATIONS = st.sampled_from(["linear", "relu", "tanh", "elu", "sigmoid"])


def image_case(draw, rng):
    """(arguments with an image x, kernel, stride, padding), a kernel that fits into the image where it must."""
    n, c = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 5]))
    size = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    kernel, stride = ((draw(st.integers(1, 4)), draw(st.integers(1, 4))) for _ in range(2))
    padding = draw(st.sampled_from(["same", "valid"]))
    if padding == "valid":
        size = tuple(map(max, size, kernel))
    return {"x": rng.standard_normal((n, *size, c))}, kernel, stride, padding


def convolution(name):
    """`name`, conv2d or conv2d_transpose, and its backward, as one case."""

    def case(draw, rng):
        arguments, kernel, stride, padding = image_case(draw, rng)
        c_in, c_out, activation = arguments["x"].shape[3], draw(st.integers(1, 5)), draw(ACTIVATIONS)
        channels = (c_in, c_out) if name == "conv2d" else (c_out, c_in)
        settings, accumulate, need = (stride, padding), draw(st.booleans()), draw(st.booleans())
        arguments |= {"W": rng.standard_normal((*kernel, *channels)), "b": rng.standard_normal(c_out)}
        y = getattr(reference, name)(arguments["x"], arguments["W"], arguments["b"], activation, *settings)
        arguments |= {"y": y, "dy": rng.standard_normal(y.shape)}
        arguments |= {"dW": rng.standard_normal(arguments["W"].shape), "db": rng.standard_normal(c_out)}

        def run(k, a, f=activation):
            dW, db = a["dW"].copy(), a["db"].copy()
            y = getattr(k, name)(a["x"], a["W"], a["b"], f, *settings)
            back = a["dy"], a["x"], a["y"], a["W"], f, *settings, dW, db, accumulate, need
            dx = getattr(k, f"{name}_backward")(*back)
            return {"y": y, "dW": dW, "db": db} | ({} if dx is None else {"dx": dx})

        def sizes(a):
            a = absolute(a)
            found = run(reference, a | {"dy": 2 * a["dy"]}, "linear")
            return found | {"y": 1 + found["y"]}

        return Case(run, arguments, sizes, arguments["W"].size + y.size + 1, ("x", "dy"))

    return case


def pool(name):
    """`name`, max_pool or avg_pool, and its backward; pixels of few levels, so that many are equal."""

    def case(draw, rng):
        arguments, size, stride, _ = image_case(draw, rng)
        n, h, w, c = arguments["x"].shape
        x = arguments["x"] = rng.integers(0, 3, (n, max(h, size[0]), max(w, size[1]), c)) / 2.0
        y = getattr(reference, name)(x, size, stride)
        arguments |= {"y": y, "dy": rng.standard_normal(y.shape)}
        given_x = name == "max_pool"

        def run(k, a):
            inputs = (a["dy"], a["x"], a["y"]) if given_x else (a["dy"], a["x"].shape[1:3])
            return {
                "y": getattr(k, name)(a["x"], size, stride),
                "dx": getattr(k, f"{name}_backward")(*inputs, size, stride),
            }

        return Case(run, arguments, lambda a: run(reference, absolute(a)), np.prod(size), ("x", "dy"))

    return case


def upsampling(draw, rng):
    arguments, _, factor, _ = image_case(draw, rng)
    n, h, w, c = arguments["x"].shape
    arguments["dy"] = rng.standard_normal((n, h * factor[0], w * factor[1], c))

    def run(k, a):
        return {"y": k.upsample(a["x"], factor), "dx": k.upsample_backward(a["dy"], factor)}

    return Case(run, arguments, lambda a: run(reference, absolute(a)), np.prod(factor), ("x", "dy"))


def overlap(draw, rng):
    arguments, kernel, stride, padding = image_case(draw, rng)
    size = arguments.pop("x").shape[1:3]
    (i, *_), (j, *_) = (span(*axis, padding) for axis in zip(size, kernel, stride, strict=True))
    arguments["u"] = rng.standard_normal((2, i, j, *kernel, 3))

    def run(k, a):
        return {"x": k.overlap_add(a["u"], size, stride, padding)}

    return Case(run, arguments, lambda a: run(reference, absolute(a)), np.prod(kernel), ("u",))


def embedding(draw, rng):
    n, classes, d = draw(st.integers(1, 40)), draw(st.integers(1, 12)), draw(st.integers(1, 300))
    arguments = {"E": rng.standard_normal((classes, d)), "labels": rng.integers(0, classes, n)}
    return Case(lambda k, a: {"y": k.embedding(a["E"], a["labels"])}, arguments, lambda a: {"y": 1.0})


def log_mean_exp(draw, rng):
    s, n, scale = draw(st.integers(1, 60)), draw(st.integers(1, 300)), draw(st.sampled_from([0.1, 5.0, 100.0]))
    arguments = {"log_w": scale * rng.standard_normal((s, n))}

    def run(k, a):
        return dict(zip(("bound", "weights"), k.log_mean_exp(a["log_w"]), strict=True))

    def sizes(a):  # an error of log_w is one of the bound, and relative to the weight one of the weight
        reach = 1 + np.abs(a["log_w"]).max(axis=0)
        return {"bound": 1 + reach, "weights": (1 + reach) * run(reference, a)["weights"] + 1e-30}

    return Case(run, arguments, sizes, s, ("log_w",))


def log_ratio(draw, rng):
    s, n, l = draw(st.integers(1, 5)), draw(st.integers(1, 40)), draw(st.integers(1, 9))
    arguments = {"mean": rng.standard_normal((n, l)), "lv": rng.standard_normal((n, l))}
    arguments["eps"] = rng.standard_normal((s, n, l))

    def run(k, a):
        return dict(enumerate(k.log_ratio(a["mean"], a["lv"], a["eps"])))

    def sizes(a):
        step = (1 + np.abs(a["lv"])) * np.exp(a["lv"] / 2) * np.abs(a["eps"])
        reach = np.abs(a["mean"]) + step
        return {0: (reach**2 + a["eps"] ** 2 + np.abs(a["lv"])) / 2, 1: reach, 2: (1 + reach * step) / 2}

    return Case(run, arguments, sizes, 1, ("mean", "lv"))


def many_rows(draw, rng):
    """More rows than one block sums, so that the bias's gradient comes together in two launches."""
    n, d = draw(st.sampled_from([511, 513, 1500])), draw(st.sampled_from([1, 31, 33]))
    y = np.tanh(rng.standard_normal((n, d)))
    arguments = {"dy": rng.standard_normal((n, d)), "y": y, "x": rng.standard_normal((n, 2))}
    arguments |= {"W": rng.standard_normal((2, d)), "dW": rng.standard_normal((2, d)), "db": rng.standard_normal(d)}
    accumulate, f = draw(st.booleans()), draw(ACTIVATIONS)

    def run(k, a, f=f):
        dW, db = a["dW"].copy(), a["db"].copy()
        (dx,) = k.dense_backward(a["dy"], [a["x"]], a["y"], a["W"], f, dW, db, accumulate, [True])
        return {"dW": dW, "db": db, "dx": dx}

    def sizes(a):
        a = absolute(a)
        return run(reference, a | {"dy": 2 * a["dy"]}, "linear")

    return Case(run, arguments, sizes, n + d, ("dy",))


ALL = CASES | {
    "conv2d": convolution("conv2d"),
    "conv2d_transpose": convolution("conv2d_transpose"),
    "max_pool": pool("max_pool"),
    "avg_pool": pool("avg_pool"),
    "upsample": upsampling,
    "overlap_add": overlap,
    "embedding": embedding,
    "log_mean_exp": log_mean_exp,
    "log_ratio": log_ratio,
    "many_rows": many_rows,
}
FLAT = {"sgd", "adam"}  # whose buffers have no strides


@pytest.mark.parametrize("name", ALL)
@given(data=st.data(), seed=seeds, dtype=st.sampled_from(["float32", "float64"]))
def test_a_cuda_kernel_gives_what_the_reference_gives(compiled, name, data, seed, dtype):
    assert_close(compiled, ALL[name](data.draw, np.random.default_rng(seed)), dtype)


@pytest.mark.parametrize("name", sorted(set(ALL) - FLAT))
@given(data=st.data(), seed=seeds)
def test_a_cuda_kernel_takes_views_with_strides(compiled, name, data, seed):
    case = ALL[name](data.draw, np.random.default_rng(seed))

    def run(k, a):
        return case.run(k, a | {key: on_device_with_strides(k, a[key]) for key in case.layouts})

    assert_close(compiled, case._replace(run=run), "float32")


def on_device_with_strides(kernels, a):
    """The same numbers on the device, as every second row and column of a larger array, the last from the right."""
    if kernels is not reference:
        larger = kernels.array(np.zeros([2 * size for size in a.shape], a.dtype))
        view = larger[tuple([slice(None, None, 2)] * (a.ndim - 1) + [slice(None, None, -2)])]
        view[...] = a
        return view
    return strided(a)


@pytest.mark.parametrize("name", ALL)
@given(data=st.data(), seed=seeds)
def test_the_order_of_the_threads_changes_no_bit(compiled, name, data, seed):
    """A barrier that lacks, or a block that reads what another writes, would show."""
    case, found = ALL[name](data.draw, np.random.default_rng(seed)), []
    try:
        for backwards in (False, True):
            standin.ORDER["backwards"] = backwards
            arguments = {key: compiled.array(a) for key, a in case.arguments.items()}
            results = case.run(compiled, arguments)
            found.append({key: compiled.to_numpy(result).tobytes() for key, result in results.items()})
    finally:
        standin.ORDER["backwards"] = False
    assert found[0] == found[1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ALL)
@given(data=st.data(), seed=seeds)
def test_a_cuda_kernel_neither_loses_nor_invents_what_is_not_finite(compiled, name, bad, data, seed):
    rng = np.random.default_rng(seed)
    case = ALL[name](data.draw, rng)
    floats = [n for n, a in case.arguments.items() if a.dtype.kind == "f" and n not in ("y", "like")]
    if not floats:  # pixels are bytes
        return
    arguments = dict(case.arguments)
    planted = data.draw(st.sampled_from(floats))
    arguments[planted] = arguments[planted].copy()
    arguments[planted].flat[rng.integers(arguments[planted].size)] = bad
    with np.errstate(all="ignore"):
        truths = case.run(reference, arguments)
        results = case.run(compiled, {key: compiled.array(a) for key, a in arguments.items()})
    for key, truth in truths.items():
        found, expected = ~np.isfinite(compiled.to_numpy(results[key])), ~np.isfinite(truth)
        assert not np.any(found & ~expected), key
        assert found.any() == expected.any(), key
