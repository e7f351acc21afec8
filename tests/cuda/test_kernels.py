"""The CUDA kernels against the reference: built for the host and run thread by thread, and on a GPU if there is one.

The cases and the bound on rounding are those of `test_cpu.py`; images come here.
"""

import re
from pathlib import Path

import numpy as np
import pytest
import standin
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_cpu import CASES, Case, absolute, assert_close, seeds, strided

from minicvae.kernels import OneHot, Reference
from minicvae.kernels.convolution import span
from minicvae.kernels.cuda import launch, products

reference = Reference()
cp = standin.module(standin.RawModule)
ACTIVATIONS = st.sampled_from(["linear", "relu", "tanh", "elu", "sigmoid"])


def image_case(draw, rng):
    """(arguments with an image x, kernel, stride, padding), a kernel that fits into the image where it must."""
    n, c = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 4, 5, 8]))  # by fours they are fetched at once
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


def upsampled_convolution(draw, rng):
    arguments, kernel, factor, padding = image_case(draw, rng)
    x = arguments["x"]
    c_in, c_out, activation = x.shape[3], draw(st.integers(1, 5)), draw(ACTIVATIONS)
    accumulate, need = draw(st.booleans()), draw(st.booleans())
    arguments |= {"W": rng.standard_normal((*kernel, c_in, c_out)), "b": rng.standard_normal(c_out)}
    y = reference.upsample_conv2d(x, arguments["W"], arguments["b"], activation, factor, padding)
    arguments |= {"y": y, "dy": rng.standard_normal(y.shape)}
    arguments |= {"dW": rng.standard_normal(arguments["W"].shape), "db": rng.standard_normal(c_out)}

    def run(k, a, f=activation):
        dW, db = a["dW"].copy(), a["db"].copy()
        y = k.upsample_conv2d(a["x"], a["W"], a["b"], f, factor, padding)
        back = a["dy"], a["x"], a["y"], a["W"], f, factor, padding, dW, db, accumulate, need
        dx = k.upsample_conv2d_backward(*back)
        return {"y": y, "dW": dW, "db": db} | ({} if dx is None else {"dx": dx})

    def sizes(a):
        a = absolute(a)
        found = run(reference, a | {"dy": 2 * a["dy"]}, "linear")
        return found | {"y": 1 + found["y"]}

    return Case(run, arguments, sizes, arguments["W"].size * np.prod(factor) + y.size + 1, ("x", "dy"))


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


def elbo(draw, rng):
    s, n, l = (
        draw(st.integers(1, 3)),
        draw(st.sampled_from([1, 2, 7, 9, 40])),
        draw(st.sampled_from([1, 2, 31, 33, 70])),
    )
    arguments = {"nll": rng.standard_normal((s, n)), "kl": rng.standard_normal((n, l))}
    weight, floor = draw(st.sampled_from([0.0, 0.7])), draw(st.sampled_from([-np.inf, 0.1]))
    # A dimension at its very floor would be above it here and below it there.
    arguments["kl"] += np.where(np.abs(arguments["kl"].mean(axis=0) - floor) < 1e-3, 0.01, 0)

    def run(k, a):
        *losses, dnll, dkl = k.elbo(a["nll"], a["kl"], weight, floor)
        assert [x.dtype for x in losses] == 3 * [np.float64]
        like = a["nll"].dtype  # the losses are in float64 whatever the type; the bound here is that of the type
        return {"dnll": dnll, "dkl": dkl} | {f"loss{i}": x.astype(like) for i, x in enumerate(losses)}

    def sizes(a):
        total = np.abs(a["nll"]).mean() + (np.abs(a["kl"]).mean(axis=0) + 0.1).sum()
        return dict.fromkeys(("loss0", "loss1", "loss2"), total) | {"dnll": 1 / a["nll"].size, "dkl": weight / n}

    return Case(run, arguments, sizes, s * n + n * l, ("nll", "kl"))


def scaled(draw, rng):
    shape, count = (draw(st.integers(1, 40)), draw(st.integers(1, 9))), draw(st.integers(1, 4))
    arguments = {"d": rng.standard_normal(shape)} | {f"a{i}": rng.standard_normal(shape) for i in range(count)}

    def run(k, a):
        return dict(enumerate(k.scaled(*a.values())))

    return Case(run, arguments, lambda a: run(reference, absolute(a)), 1, tuple(arguments))


def joined_sum(draw, rng):
    shape = draw(st.integers(1, 40)), draw(st.integers(1, 9))
    arguments = {name: rng.standard_normal(shape) for name in ("a1", "a2", "b1", "b2")}

    def run(k, a):
        return {"joined": k.joined_sum((a["a1"], a["a2"]), (a["b1"], a["b2"]))}

    return Case(run, arguments, lambda a: run(reference, absolute(a)), 2, tuple(arguments))


def many_rows(draw, rng):
    """More rows than one block sums, so that several make the bias's gradient together."""
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
    "upsample_conv2d": upsampled_convolution,
    "conv2d_transpose": convolution("conv2d_transpose"),
    "max_pool": pool("max_pool"),
    "avg_pool": pool("avg_pool"),
    "upsample": upsampling,
    "overlap_add": overlap,
    "embedding": embedding,
    "log_mean_exp": log_mean_exp,
    "log_ratio": log_ratio,
    "elbo": elbo,
    "many_rows": many_rows,
    "scaled": scaled,
    "joined_sum": joined_sum,
}
FLAT = {"sgd", "adam"}  # whose buffers have no strides


SMALL, LARGE, NARROW = products.TILES
# How products may be laid out: each kind of tile for all of them, in one piece or in as many as there can be.
LAYOUTS = {
    f"{name} tiles{' in pieces' * shared}": {
        "TILES": (tile,),
        "ADDING": 0 if shared else 10**9,
        "ENDS": 0,
        "LEAST": 1,
    }
    for name, tile in (("small", SMALL), ("large", LARGE), ("narrow", NARROW))
    for shared in (False, True)
}


@pytest.fixture(params=LAYOUTS)
def layout(request, monkeypatch):
    """Lays products out in another way, and says in which."""
    for name, value in LAYOUTS[request.param].items():
        monkeypatch.setattr(products, name, value)
    products.layout.cache_clear()
    yield request.param
    products.layout.cache_clear()


PRODUCTS = ["dense", "dense_backward", "many_rows", "conv2d", "upsample_conv2d", "conv2d_transpose"]


@pytest.mark.parametrize("name", PRODUCTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), seed=seeds, dtype=st.sampled_from(["float32", "float64"]))
def test_products_in_every_layout_give_what_the_reference_gives(kernels_of_cuda, layout, name, data, seed, dtype):
    assert_close(kernels_of_cuda, ALL[name](data.draw, np.random.default_rng(seed)), dtype)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    m=st.sampled_from([1, 31, 33, 65, 130]),
    n=st.sampled_from([1, 4, 31, 33, 65, 130]),
    k=st.sampled_from([1, 15, 16, 17, 64, 255, 700]),
    ways=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=seeds,
)
def test_a_product_is_the_product(kernels_of_cuda, layout, m, n, k, ways, dtype, seed):
    """Of every shape, in pieces and in one, of matrices that lie along rows or columns."""
    rng = np.random.default_rng(seed)
    transposed_a, transposed_b, accumulate = ways
    a, b, c = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n), (m, n)))
    A = kernels_of_cuda.array(a.T.copy()).T if transposed_a else kernels_of_cuda.array(a)
    B = kernels_of_cuda.array(b.T.copy()).T if transposed_b else kernels_of_cuda.array(b)
    C = kernels_of_cuda.array(c)
    found = kernels_of_cuda.products.product(A, B, C, accumulate)
    assert found is C
    assert found.dtype == dtype
    truth = a.astype(np.float64) @ b.astype(np.float64) + accumulate * c
    size = np.abs(a).astype(np.float64) @ np.abs(b) + np.abs(c)
    error = np.abs(kernels_of_cuda.to_numpy(found).astype(np.float64) - truth)
    assert np.all(error <= 8 * np.sqrt(2 * k) * np.finfo(dtype).eps * size)
    assert not kernels_of_cuda.products._tickets.any()  # which the next product needs


def beside(kernels, a, shift=0):
    """A matrix on the device whose rows lie apart, by a multiple of 16 bytes, with NaN between them."""
    wide = np.full((len(a) + 4, a.shape[1] // 4 * 4 + 8), np.nan, a.dtype)
    wide[: len(a), shift : shift + a.shape[1]] = a
    return kernels.array(wide)[: len(a), shift : shift + a.shape[1]]


def moved(kernels, a, shift):
    """An array on the device in one piece that begins so many numbers after a multiple of 16 bytes."""
    flat = kernels.array(np.concatenate([np.full(shift, np.nan, a.dtype), a.ravel()]))
    return flat[shift:].reshape(a.shape)


SHIFTS = st.sampled_from([0, 1, 4])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    m=st.integers(1, 40),
    n=st.integers(1, 40),
    k=st.integers(1, 40),
    transposed=st.booleans(),
    shift=SHIFTS,
    seed=seeds,
)
def test_what_lies_beside_a_matrix_is_not_multiplied(kernels_of_cuda, layout, m, n, k, transposed, shift, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)
    A, B = (beside(kernels_of_cuda, x.T if transposed else x, shift) for x in (a, b))
    found = kernels_of_cuda.products.product(*((A.T, B.T) if transposed else (A, B)))
    np.testing.assert_allclose(kernels_of_cuda.to_numpy(found), a @ b, rtol=1e-4, atol=1e-4)


@settings(max_examples=50)
@given(
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 20), st.sampled_from([1, 4, 8, 30])),
    shifts=st.tuples(SHIFTS, SHIFTS, SHIFTS),
    seed=seeds,
)
def test_a_layer_takes_inputs_and_gradients_wherever_they_lie(kernels_of_cuda, sizes, shifts, seed):
    """Inputs with something else beside them, then labels; y and dy that begin anywhere."""
    rng, (m, d, n) = np.random.default_rng(seed), sizes
    x, labels, W = rng.standard_normal((m, d)), rng.integers(0, 3, m), rng.standard_normal((d + 3, n))
    b, dy = rng.standard_normal(n), rng.standard_normal((m, n))
    y = reference.dense([x, OneHot(labels, 3)], W, b, "tanh")

    def run(k, x, y, dy, labels):
        parts, dW, db = [x, OneHot(labels, 3)], k.zeros(W.shape, W.dtype), k.zeros(b.shape, b.dtype)
        found = k.dense(parts, k.array(W), k.array(b), "tanh")
        dx, _ = k.dense_backward(dy, parts, y, k.array(W), "tanh", dW, db, False, [True, False])
        return [k.to_numpy(a) for a in (found, dW, db, dx)]

    k = kernels_of_cuda
    given_ = beside(k, x, shifts[0]), moved(k, y, shifts[1]), moved(k, dy, shifts[2]), k.array(labels)
    for found, expected in zip(run(k, *given_), run(reference, x, y, dy, labels), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("k", [1000, 5000])
def test_a_product_in_pieces_has_the_same_bits_in_whatever_order_they_come(kernels_of_cuda, monkeypatch, k, backwards):
    """Of 1,000 terms in 16 pieces; of 5,000 in 22, which are added up in two goes."""
    rng = np.random.default_rng(0)
    a, b = (kernels_of_cuda.array(rng.standard_normal(shape, np.float32)) for shape in ((40, k), (k, 70)))
    assert products.layout((40, 70, k)).pieces == ({1000: 16, 5000: 22}[k],)
    plain = kernels_of_cuda.products.product(a, b)
    monkeypatch.setitem(standin.ORDER, "backwards", backwards)
    standin.LAUNCHES.clear()
    np.testing.assert_array_equal(kernels_of_cuda.products.product(a, b).get(), plain.get())
    if kernels_of_cuda.xp.ndarray is standin.ndarray:
        assert standin.LAUNCHES == {"product": 1}


def skip_without_tensor_cores(kernels):
    if kernels.xp.ndarray is not standin.ndarray and int(kernels.xp.cuda.Device().compute_capability) < 80:
        pytest.skip("this GPU's tensor cores do not know TF32: products are in float32 proper")


def rounded(a):
    """To TF32, halves away from zero."""
    return ((a.view(np.uint32) + 0x1000) & ~np.uint32(0x1FFF)).view(np.float32)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    m=st.sampled_from([1, 16, 33, 70]),
    n=st.sampled_from([1, 8, 33, 70]),
    k=st.sampled_from([1, 8, 17, 64, 300]),
    transposed=st.booleans(),
    seed=seeds,
)
def test_tensor_cores_multiply_what_is_rounded_to_tf32(kernels_of_cuda, layout, m, n, k, transposed, seed):
    skip_without_tensor_cores(kernels_of_cuda)
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal(shape, np.float32) for shape in ((m, k), (k, n)))
    A, B = (kernels_of_cuda.array(x.T.copy()).T if transposed else kernels_of_cuda.array(x) for x in (a, b))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels_of_cuda.products, "tf32", True)
        found = kernels_of_cuda.to_numpy(kernels_of_cuda.products.product(A, B))
        exact = kernels_of_cuda.products.product(kernels_of_cuda.array(a * 1.0).astype("float64"), B.astype("float64"))
    x, y = rounded(a).astype(np.float64), rounded(b).astype(np.float64)
    size = np.abs(x) @ np.abs(y)
    assert np.all(np.abs(found - x @ y) <= 8 * np.sqrt(2 * k) * np.finfo(np.float32).eps * size)
    assert np.all(np.abs(found - a.astype(np.float64) @ b) <= 2**-10 * size)  # two roundings by 2^-11
    np.testing.assert_allclose(kernels_of_cuda.to_numpy(exact), a.astype(np.float64) @ b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("layout", ["small tiles", "large tiles", "narrow tiles"], indirect=True)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=5)
@given(data=st.data(), seed=seeds)
def test_layers_by_tensor_cores_are_the_reference_up_to_rounding(kernels_of_cuda, layout, name, data, seed):
    case = ALL[name](data.draw, np.random.default_rng(seed))
    truth, sizes = case.run(reference, case.arguments), case.sizes(case.arguments)
    arguments = {
        key: kernels_of_cuda.array(a.astype(np.float32) if a.dtype.kind == "f" else a)
        for key, a in case.arguments.items()
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels_of_cuda.products, "tf32", True)
        found = case.run(kernels_of_cuda, arguments)
    for key, expected in truth.items():
        assert np.all(np.abs(kernels_of_cuda.to_numpy(found[key]) - expected) <= 2**-8 * sizes[key] + 1e-6), key


def test_how_many_numbers_a_tile_has_and_what_its_blocks_share_is_the_same_on_both_sides():
    header = (Path(launch.__file__).parent / "product.cuh").read_text()
    assert int(re.search(r"#define GROUP (\d+)", header)[1]) == products.GROUP
    for tile, text in zip(products.TILES, re.findall(r"enum \{ (M = .*?) \}", header), strict=True):
        sizes = {key: int(value) for key, value in (pair.split(" = ") for pair in text.split(", "))}
        team = tile.m // sizes["M_EACH"] * (tile.n // sizes["N_EACH"])
        assert (sizes["M"], sizes["N"], team * sizes["TEAMS"], sizes["BLOCKS"]) == tile[1:5]


@given(
    sizes=st.lists(st.tuples(*[st.integers(0, 10**5)] * 3), min_size=1, max_size=2),
    tile=st.sampled_from(products.TILES),
)
def test_a_layout_has_tickets_and_blocks_enough(sizes, tile):
    chosen = products.layout(*sizes)
    for which, (m, n, k) in enumerate(sizes):
        tiles, pieces = products._tiles((m, n, k), chosen.tile), chosen.pieces[which]
        assert tiles * chosen.tile.m * chosen.tile.n >= m * n
        assert 1 <= pieces <= products.GROUP**2
        if pieces > 1:
            assert tiles * pieces <= products.MULTIPROCESSORS * chosen.tile.resident
            assert tiles * (1 + -(-pieces // products.GROUP)) <= products.TICKETS
            assert pieces * products.LEAST < k + products.LEAST


@pytest.mark.parametrize(
    ("sizes", "tile", "pieces"),
    [
        ((128, 256, 256), SMALL, 4),
        ((128, 256, 784), SMALL, 4),
        ((795, 256, 128), SMALL, 1),
        ((1024, 256, 784), LARGE, 8),
        ((100_352, 32, 9), LARGE, 1),
        ((25_088, 64, 288), LARGE, 1),
        ((25_088, 32, 576), LARGE, 1),
        ((100_352, 1, 288), NARROW, 1),
        ((288, 64, 25_088), LARGE, 104),
        ((2048, 2048, 2048), LARGE, 1),
    ],
)
def test_layouts_of_some_layers(sizes, tile, pieces):
    assert products.layout(sizes) == (tile, (pieces,))


@pytest.mark.parametrize("name", ALL)
@given(data=st.data(), seed=seeds, dtype=st.sampled_from(["float32", "float64"]))
def test_a_cuda_kernel_gives_what_the_reference_gives(kernels_of_cuda, name, data, seed, dtype):
    assert_close(kernels_of_cuda, ALL[name](data.draw, np.random.default_rng(seed)), dtype)


@pytest.mark.parametrize("name", sorted(set(ALL) - FLAT))
@given(data=st.data(), seed=seeds)
def test_a_cuda_kernel_takes_views_with_strides(kernels_of_cuda, name, data, seed):
    case = ALL[name](data.draw, np.random.default_rng(seed))

    def run(k, a):
        return case.run(k, a | {key: on_device_with_strides(k, a[key]) for key in case.layouts})

    assert_close(kernels_of_cuda, case._replace(run=run), "float32")


def on_device_with_strides(kernels, a):
    """The same numbers on the device, as every second row and column of a larger array, the last from the right."""
    if kernels is not reference:
        larger = kernels.array(np.zeros([2 * size for size in a.shape], a.dtype))
        view = larger[tuple([slice(None, None, 2)] * (a.ndim - 1) + [slice(None, None, -2)])]
        view[...] = a
        return view
    return strided(a)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_kl_keeps_its_digits_near_the_prior(kernels_of_cuda, dtype):
    lv = np.array([[1e-3, -1e-4, 1e-6, -1e-7, 0.0]], dtype)
    _, _, slope = kernels_of_cuda.kl_standard(*(kernels_of_cuda.array(a) for a in (np.zeros_like(lv), lv)))
    np.testing.assert_allclose(slope.get(), np.expm1(lv.astype(np.float64)) / 2, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("offset", [-1e4, 0.0, 1e4])
def test_a_log_mean_exp_neither_overflows_nor_loses_its_sum(kernels_of_cuda, offset, dtype):
    log_w = np.array([[0.0, -2.0], [1.0, -np.inf], [-3.0, 5.0]], dtype) + np.array(offset, dtype)
    bound, weights = (x.get() for x in kernels_of_cuda.log_mean_exp(kernels_of_cuda.array(log_w)))
    expected, expected_weights = reference.log_mean_exp(log_w.astype(np.float64))
    np.testing.assert_allclose(bound, expected, rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_allclose(weights, expected_weights, rtol=8 * np.finfo(dtype).eps, atol=1e-30)


@given(seed=seeds, share=st.sampled_from([0.1, 0.5]), size=st.integers(1, 3), stride=st.integers(1, 3))
def test_a_pool_passes_nan_on_and_back(kernels_of_cuda, seed, share, size, stride):
    rng, pool, steps = np.random.default_rng(seed), (size, size), (stride, stride)
    x = np.where(rng.random((2, 5, 6, 2)) < share, np.nan, rng.integers(0, 3, (2, 5, 6, 2)))
    y = reference.max_pool(x, pool, steps)
    dy = rng.standard_normal(y.shape)
    found = kernels_of_cuda.max_pool(kernels_of_cuda.array(x), pool, steps)
    np.testing.assert_array_equal(found.get(), y)
    dx = kernels_of_cuda.max_pool_backward(kernels_of_cuda.array(dy), kernels_of_cuda.array(x), found, pool, steps)
    np.testing.assert_allclose(dx.get(), reference.max_pool_backward(dy, x, y, pool, steps), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ALL)
@given(data=st.data(), seed=seeds)
def test_the_order_of_the_threads_changes_no_bit(kernels_of_cuda, name, data, seed):
    """A barrier that lacks, or a block that reads what another writes, would show."""
    case, found = ALL[name](data.draw, np.random.default_rng(seed)), []
    try:
        for backwards in (False, True):
            standin.ORDER["backwards"] = backwards
            arguments = {key: kernels_of_cuda.array(a) for key, a in case.arguments.items()}
            results = case.run(kernels_of_cuda, arguments)
            found.append({key: kernels_of_cuda.to_numpy(result).tobytes() for key, result in results.items()})
    finally:
        standin.ORDER["backwards"] = False
    assert found[0] == found[1]


# Transposes of windows that are windows of another image.
AS_A_CONVOLUTION = {("conv2d", "dx"), ("upsample_conv2d", "dx"), ("conv2d_transpose", "y")}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ALL)
@given(data=st.data(), seed=seeds)
def test_a_cuda_kernel_neither_loses_nor_invents_what_is_not_finite(kernels_of_cuda, name, bad, data, seed):
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
        results = case.run(kernels_of_cuda, {key: kernels_of_cuda.array(a) for key, a in arguments.items()})
    for key, truth in truths.items():
        if planted == "W" and (name, key) in AS_A_CONVOLUTION:
            continue  # zeros around the image are multiplied with W too, as they are in the forward of `conv2d`
        found, expected = ~np.isfinite(kernels_of_cuda.to_numpy(results[key])), ~np.isfinite(truth)
        assert not np.any(found & ~expected), key
        assert found.any() == expected.any(), key
