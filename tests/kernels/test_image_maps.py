"""The ways in which the `cpu` device convolves: each gives what the definition gives, gradients included."""

from itertools import product
from math import prod

import numba
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from queues import own_queue

from minicvae.gradcheck import assert_gradients
from minicvae.kernels import Reference, cpu_images, image_maps, load
from minicvae.kernels.convolution import is_convolution, turned
from minicvae.kernels.cpu import Cpu
from minicvae.kernels.spread import Helpers

ACTIVATIONS = ("linear", "relu", "tanh", "elu", "sigmoid")
KINDS = ("conv2d", "conv2d_transpose", "upsample_conv2d", "conv2d_max_pool")

reference = Reference()
seeds = st.integers(0, 2**32 - 1)
channels, many, few = (st.sampled_from(sizes) for sizes in ([1, 2, 3, 4, 5, 8, 17], [4, 5, 8, 17], [1, 2, 3]))
small = st.integers(1, 3)
usual = st.one_of(st.just((3, 3)), st.tuples(st.integers(1, 4), st.integers(1, 4)))
wide = st.tuples(st.integers(1, 9), st.integers(6, 11))
ANYTHING = {
    "kernels": usual,
    "strides": st.one_of(st.just((1, 1)), st.tuples(small, small)),
    "paddings": st.sampled_from(["same", "same", "valid"]),
    "factors": st.tuples(small, small),
    "pools": st.sampled_from([(2, 2), (2, 2), (1, 3)]),
    "ins": channels,
    "outs": channels,
    "sides": st.integers(1, 7),
    "examples": st.integers(1, 5),
}
SLIDING = {"strides": st.just((1, 1)), "paddings": st.just("same")}
WAYS = {  # what leads there, and what is drawn for it
    "Windows": (("conv2d", "conv2d_max_pool"), {"paddings": st.just("valid")}),
    "Stamps": (("conv2d_transpose",), {"strides": st.sampled_from([(2, 2), (1, 3), (3, 2)])}),
    "Planes": (("conv2d", "conv2d_max_pool"), {**SLIDING, "ins": st.just(1)}),
    "Winograd": (
        ("conv2d", "conv2d_max_pool", "conv2d_transpose"),
        {**SLIDING, "kernels": st.just((3, 3)), "ins": many, "outs": many},
    ),
    "Upsampled": (("upsample_conv2d",), {"outs": many, "factors": st.sampled_from([(2, 2), (1, 3), (3, 2)])}),
    "UpsampledPlanes": (
        ("conv2d", "conv2d_max_pool", "conv2d_transpose", "upsample_conv2d"),
        {**SLIDING, "kernels": st.sampled_from([(3, 3), (1, 3), (5, 1)]), "ins": many, "outs": few},
    ),
}


class Call:
    """A kernel, its backward and their arguments: x, W, b."""

    def __init__(self, kind, arrays, activation, settings):
        self.kind, self.arrays, self.activation, self.settings = kind, arrays, activation, settings

    def forward(self, kernels, arrays=None):
        """y, and what stands between x and W in the arguments of the backward."""
        result = getattr(kernels, self.kind)(*(arrays or self.arrays), self.activation, *self.settings)
        return (result[0], result) if isinstance(result, tuple) else (result, (result,))

    def backward(self, kernels, dy, kept, dW, db, accumulate=False, need_dx=True, arrays=None):
        """dx."""
        x, W, _ = arrays or self.arrays
        function = getattr(kernels, f"{self.kind}_backward")
        return function(dy, x, *kept, W, self.activation, *self.settings, dW, db, accumulate, need_dx)

    def run(self, kernels, dy, held, accumulate, need_dx):
        """[y, dW, db, dx], copied from a loop of steps, whose arrays a device may use again."""
        with kernels.steps() as begin_step:
            begin_step()
            y, kept = self.forward(kernels)
            dW, db = (a.copy() for a in held)
            dx = self.backward(kernels, dy, kept, dW, db, accumulate, need_dx)
            return [None if a is None else np.array(a) for a in (y, dW, db, dx)]


@st.composite
def calls(draw, kind, **chosen):
    """From one pixel upwards, odd and even sizes and kernels, few channels and many; 3x3 and stride 1 more often."""
    drawn = ANYTHING | chosen
    rng = np.random.default_rng(draw(seeds))
    kernel, padding, c_in, c_out = (draw(drawn[name]) for name in ("kernels", "paddings", "ins", "outs"))
    stride = (1, 1) if kind == "upsample_conv2d" else draw(drawn["strides"])
    size = [draw(drawn["sides"]) for _ in range(2)]
    settings = (stride, padding)
    if kind == "conv2d_max_pool":
        pool = draw(drawn["pools"])
        settings = (stride, padding, pool)  # after which there is a window:
        size = [length + s * p + k for length, s, p, k in zip(size, stride, pool, kernel, strict=True)]
    elif padding == "valid":
        size = [max(length, k) for length, k in zip(size, kernel, strict=True)]
    if kind == "upsample_conv2d":
        settings = (draw(drawn["factors"]), padding)
    x = rng.standard_normal((draw(drawn["examples"]), *size, c_in))
    W = rng.standard_normal((*kernel, *((c_out, c_in) if kind == "conv2d_transpose" else (c_in, c_out))))
    return Call(kind, [x, W, rng.standard_normal(c_out)], draw(st.sampled_from(ACTIVATIONS)), settings), rng


def assert_as_the_reference(call, rng, accumulate, need_dx):
    """The `cpu` device's y and gradients are the reference's."""
    y, _ = call.forward(reference)
    dy, held = rng.standard_normal(y.shape), [rng.standard_normal(a.shape) for a in call.arrays[1:]]
    found = call.run(load("cpu"), dy, held, accumulate, need_dx)
    truth = call.run(reference, dy, held, accumulate, need_dx)
    assert (found[3] is None) == (truth[3] is None) == (not need_dx)
    for a, b in zip(found[: 3 + need_dx], truth[: 3 + need_dx], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), accumulate=st.booleans(), need_dx=st.booleans())
def test_every_kernel_gives_what_the_reference_gives(kind, data, accumulate, need_dx):
    assert_as_the_reference(*data.draw(calls(kind)), accumulate, need_dx)


@pytest.mark.parametrize(("way", "kind"), [(way, kind) for way, (kinds, _) in WAYS.items() for kind in kinds])
@given(data=st.data(), accumulate=st.booleans(), images=st.integers(1, 3), parts=st.integers(1, 3))
def test_every_way_gives_what_the_reference_gives_in_blocks_of_any_size(way, kind, data, accumulate, images, parts):
    need_dx = way != "Planes" and data.draw(st.booleans())
    taken = set()

    def recorded(choose):
        def chosen(*arguments, **more):
            made = choose(*arguments, **more)
            taken.add(type(made).__name__)
            return made

        return chosen

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_images, "convolution", recorded(image_maps.convolution))
        patch.setattr(cpu_images, "transposed", recorded(image_maps.transposed))
        patch.setattr(image_maps.ImageMap, "images", lambda self, itemsize: images)
        patch.setattr(cpu_images, "PARTS", parts)
        drawn = calls(kind, **WAYS[way][1], examples=st.integers(3, 7))  # so that there are several blocks in a part
        assert_as_the_reference(*data.draw(drawn), accumulate, need_dx)
    assert taken - {"Windows"} == {way} - {"Windows"}


def counted(way, x, W, channels_out, size):
    """What a way lays out for a block of three images, array by array, and the numbers of one image that count."""
    (h, w), (rows, columns, c_in), cells = size, x.shape[1:], prod(W.shape[:2])
    if way in ("Windows", "Stamps"):
        numbers = h * w * cells * c_in if way == "Windows" else rows * columns * cells * channels_out
        return [3 * numbers], numbers
    if way == "Planes":
        planes = h * w * cells
        return [3 * planes], planes + 2 * h * w * channels_out
    if way == "Winograd":
        up, across = (h + 1) // 2, (w + 1) // 2  # tiles of 2x2, of 16 numbers each
        padded, tiles = (2 * up + 2) * (2 * across + 2), 16 * up * across
        return [3 * count * c for count in (padded, tiles) for c in (c_in, channels_out)], tiles * (c_in + channels_out)
    u, line = rows * columns * cells * channels_out, columns * (W.shape[1] * channels_out if way == "Upsampled" else 1)
    return [3 * u, line], u


@pytest.mark.parametrize(("way", "kind"), [(way, kind) for way, (kinds, _) in WAYS.items() for kind in kinds])
@given(data=st.data(), itemsize=st.sampled_from([4, 8, image_maps.BLOCK]))
def test_a_way_lays_out_what_it_says_and_takes_as_many_images_as_a_block_has_room_for(way, kind, data, itemsize):
    """By this the work stays in the cache; no result tells whether it is right."""
    (call, _) = data.draw(calls(kind, **WAYS[way][1]))
    (x, W, b), (stride, padding, *_) = call.arrays, call.settings
    if kind == "conv2d_transpose":
        chosen = image_maps.transposed(x, W, stride, padding)
    elif kind == "upsample_conv2d":
        chosen = image_maps.convolution(x, W, (1, 1), padding, stride, need_dx=True)
    else:
        chosen = image_maps.convolution(x, W, stride, padding, need_dx=way != "Planes")
    laid_out, numbers = counted(way, x, W, len(b), chosen.size[:2])
    assert type(chosen).__name__ == way
    assert [prod(shape) for shape in chosen.room_back(3)] == laid_out
    del laid_out[1 : 1 + (way == "Winograd")]  # the phases of g
    assert [prod(shape) for shape in chosen.room(3)] == laid_out
    assert chosen.numbers == numbers
    images = chosen.images(itemsize)
    assert (images + 1) * chosen.numbers * itemsize > image_maps.BLOCK
    assert images == 1 or images * chosen.numbers * itemsize <= image_maps.BLOCK


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40)
@given(data=st.data())
def test_a_kernel_may_be_wider_than_the_image(kind, data):
    drawn = calls(kind, kernels=wide, ins=st.sampled_from([1, 1, 4]), sides=st.integers(2, 3))
    assert_as_the_reference(*data.draw(drawn), False, True)


@pytest.mark.parametrize("kind", KINDS[:3])  # of nearly equal maxima either may be taken, as the rounding has it
@given(data=st.data())
def test_in_float32_it_errs_by_no_more_than_its_rounding(kind, data):
    """By 8 √k units of the sum of the k magnitudes behind a result, and Winograd's tiles by four times as many."""
    call, rng = data.draw(calls(kind))
    call.activation, exact = "linear", [a.astype("float32").astype("float64") for a in call.arrays]
    call.arrays = exact
    dy = rng.standard_normal(call.forward(reference)[0].shape).astype("float32")
    held = [np.zeros_like(a) for a in exact[1:]]
    truth = call.run(reference, dy.astype("float64"), held, False, True)
    call.arrays = [np.abs(a) for a in exact]
    sizes = call.run(reference, np.abs(dy).astype("float64"), held, False, True)
    call.arrays = [a.astype("float32") for a in exact]
    found = call.run(load("cpu"), dy, [a.astype("float32") for a in held], False, True)
    terms = max(prod(exact[1].shape[:2]) * max(exact[1].shape[2:]), prod(dy.shape[:3]))
    for a, b, size in zip(found, truth, sizes, strict=True):
        assert a.dtype == "float32"
        # A tile's numbers are sums and differences of its neighbours: what counts is the largest of them.
        assert np.all(np.abs(a - b) <= 32 * np.sqrt(terms) * np.finfo("float32").eps / 2 * size.max())


@given(data=st.data())
def test_a_product_before_the_upsampling_is_the_product_after_it(data):
    """Σ_ab of upsample(x W_ab), shifted by (a, b): spelled out, pixel by pixel, with the zeros around the image."""
    call, _ = data.draw(calls("upsample_conv2d"))
    call.activation = "linear"
    (x, W, b), (factor, padding) = call.arrays, call.settings
    y, _ = call.forward(load("cpu"))
    top, left = ((k - 1) // 2 if padding == "same" else 0 for k in W.shape[:2])
    expected = np.zeros(y.shape) + b
    for a, e in np.ndindex(W.shape[:2]):
        products = (x @ W[a, e]).repeat(factor[0], axis=1).repeat(factor[1], axis=2)
        for r, s in product(range(y.shape[1]), range(y.shape[2])):
            row, column = r - top + a, s - left + e
            if 0 <= row < products.shape[1] and 0 <= column < products.shape[2]:
                expected[:, r, s] += products[:, row, column]
    np.testing.assert_allclose(y, expected, rtol=1e-11, atol=1e-11)


def test_winograds_identity():
    """Along an axis: Aᵀ (G w ⊙ Bᵀ d) is the correlation of four pixels with three cells, for every pixel and cell."""
    input_transform = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
    output_transform = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])
    for d, w in product(np.eye(4), np.eye(3)):
        tile = output_transform @ ((image_maps.Winograd.G @ w) * (input_transform @ d))
        np.testing.assert_array_equal(tile, np.correlate(d, w))


@given(data=st.data())
def test_a_transposed_convolution_that_slides_is_a_convolution_by_the_turned_kernel(data):
    call, _ = data.draw(calls("conv2d_transpose"))
    (x, W, b), (stride, padding) = call.arrays, call.settings
    if is_convolution(W.shape[:2], stride, padding):
        y = reference.conv2d(x, turned(W), b, call.activation, stride, padding)
        np.testing.assert_allclose(y, call.forward(reference)[0], rtol=1e-11, atol=1e-11)
    np.testing.assert_array_equal(turned(turned(W)), W)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "expected"),
    [
        ((3, 3), (1, 1), "same", True),
        ((1, 5), (1, 1), "same", True),
        ((3, 2), (1, 1), "same", False),
        ((3, 3), (1, 2), "same", False),
        ((3, 3), (1, 1), "valid", False),
    ],
)
def test_which_transposed_convolutions_slide(kernel, stride, padding, expected):
    assert is_convolution(kernel, stride, padding) is expected


@pytest.mark.parametrize(
    ("shape", "stride", "padding", "factor", "need_dx", "expected"),
    [
        ((3, 3, 4, 4), (1, 1), "same", (1, 1), True, "Winograd"),
        ((3, 3, 4, 3), (1, 1), "same", (1, 1), True, "UpsampledPlanes"),
        ((3, 3, 3, 4), (1, 1), "same", (1, 1), True, "Windows"),
        ((3, 5, 4, 4), (1, 1), "same", (1, 1), True, "Windows"),
        ((3, 3, 4, 4), (1, 1), "valid", (1, 1), True, "Windows"),
        ((3, 3, 4, 4), (2, 1), "same", (1, 1), True, "Windows"),
        ((3, 3, 1, 4), (1, 1), "same", (1, 1), False, "Planes"),
        ((3, 3, 1, 4), (1, 1), "same", (1, 1), True, "Windows"),
        ((3, 3, 4, 4), (1, 1), "same", (1, 2), True, "Upsampled"),
        ((3, 3, 4, 3), (1, 1), "valid", (2, 1), True, "UpsampledPlanes"),
    ],
)
def test_the_shortest_way_is_taken(shape, stride, padding, factor, need_dx, expected):
    x = np.zeros((1, 6, 6, shape[2]))
    way = image_maps.convolution(x, np.zeros(shape), stride, padding, factor, need_dx=need_dx)
    assert type(way).__name__ == expected


@given(n=st.integers(1, 3), c=st.integers(1, 40), levels=st.integers(1, 3), seed=seeds)
@example(n=1, c=33, levels=1, seed=0)
def test_of_equal_maxima_the_first_has_the_gradient(n, c, levels, seed):
    """By a kernel that copies, so that windows of a few values have several maxima."""
    rng, k = np.random.default_rng(seed), load("cpu")
    x, W, b = rng.integers(0, levels, (n, 5, 6, c)).astype(float), np.eye(c)[None, None], np.zeros(c)
    settings = "linear", (1, 1), "same", (2, 2)
    dW, db = np.zeros_like(W), np.zeros_like(b)
    results = []
    for kernels in (k, reference):
        y, kept = kernels.conv2d_max_pool(x, W, b, *settings)
        dy = 1.0 + np.arange(y.size).reshape(y.shape)
        results.append(
            [y, kernels.conv2d_max_pool_backward(dy, x, y, kept, W, *settings, dW, db, False, True), db.copy()]
        )
    for found, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("place", range(4))
def test_a_maximum_that_is_nan_stays_nan(place):
    x = np.arange(4.0).reshape(1, 2, 2, 1)
    x[0, place // 2, place % 2] = np.nan
    y, _ = load("cpu").conv2d_max_pool(x, np.ones((1, 1, 1, 1)), np.zeros(1), "linear", (1, 1), "same", (2, 2))
    assert np.isnan(y).all()


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="takes minutes without the compiler")
@pytest.mark.parametrize("kind", ["upsample_conv2d", "conv2d_max_pool"])
@settings(max_examples=6)  # the values of all gradients are the reference's, by the tests above
@given(data=st.data())
def test_the_gradients_of_what_is_fused_are_the_slopes(host, kind, data):
    call, _ = data.draw(calls(kind, ins=st.sampled_from([1, 3, 4]), outs=st.sampled_from([1, 3, 4])))
    call.activation = data.draw(st.sampled_from(["linear", "tanh", "elu"]))
    call.arrays = [
        a / max(1, prod(call.arrays[1].shape[:3]) ** 0.5) if i == 0 else a for i, a in enumerate(call.arrays)
    ]

    def forward(*arrays):
        y, kept = call.forward(host, arrays)

        def backward(dy):
            dW, db = np.full_like(arrays[1], np.nan), np.full_like(arrays[2], np.nan)
            return call.backward(host, dy, kept, dW, db, arrays=arrays), dW, db

        return y, backward

    assert_gradients(forward, call.arrays, linear=call.activation == "linear" and kind == "upsample_conv2d")


def drawn_for(way, rng, n=21):
    """A call that goes this way, and its results' gradients: some images, of two blocks a part."""
    kind, (c_in, c_out) = WAYS[way][0][-1], {"Planes": (1, 5), "UpsampledPlanes": (6, 2)}.get(way, (6, 5))
    kernel = (3, 3, c_out, c_in) if kind == "conv2d_transpose" else (3, 3, c_in, c_out)
    before = {"Windows": ((1, 1), "valid"), "Stamps": ((2, 2), "same")}.get(way, ((1, 1), "same"))
    settings = {"conv2d_max_pool": (*before, (2, 2)), "upsample_conv2d": ((2, 2), "same")}.get(kind, before)
    arrays = rng.standard_normal((n, 6, 7, c_in)), rng.standard_normal(kernel), rng.standard_normal(c_out)
    return Call(kind, list(arrays), "tanh", settings)


@pytest.mark.parametrize("way", WAYS)
def test_a_thread_keeps_to_its_own_room(way):
    """By the thread of number 1 alone, which takes its own pieces and then those that number 0 has not taken."""
    k, rng, ran = type("Two", (Cpu,), {"threads": 2})(), np.random.default_rng(0), []
    k.helpers = Helpers(2)
    call = drawn_for(way, rng)

    def run(kernel, *args):
        if "compiled_maps" not in kernel.__module__:
            Cpu.run(k, kernel, *args)
            return
        scratch = [a for a in args if isinstance(a, np.ndarray) and a.size and np.may_share_memory(a, k.scratch._room)]
        rooms = [room for room in scratch if len(room) == 2]  # of two threads; sums are of more parts
        assert not any(a is None for a in args)  # which a job would refuse
        for room in rooms:
            room[0] = np.nan
        kernel(own_queue(shares=2, own=1), *args)
        assert all(np.isnan(room[0]).all() for room in rooms)
        ran.append(len(rooms))

    k.run = run
    y, kept = call.forward(k)
    dy, held = rng.standard_normal(y.shape), [np.zeros_like(a) for a in call.arrays[1:]]
    call.backward(k, dy, kept, *held, need_dx=way != "Planes")
    assert len(ran) == 2
    assert min(ran) >= 2
    truth = call.run(reference, dy, held, False, way != "Planes")
    for found, expected in zip((y, *held), truth[:3], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("way", WAYS)
def test_the_bits_of_a_way_do_not_depend_on_who_does_what(way):
    found = []
    for size in (1, 2, 4):
        rng, k = np.random.default_rng(0), Cpu()
        k.helpers = Helpers(size)
        call = drawn_for(way, rng)
        call.arrays = [a.astype("float32") for a in call.arrays]
        for _ in range(20 if size > 1 else 1):  # a helper may come late
            y, kept = call.forward(k)
            held = [np.zeros_like(a) for a in call.arrays[1:]]
            dx = call.backward(k, np.cos(y), kept, *held, need_dx=way != "Planes")
            found.append([y, *held, *([] if dx is None else [dx])])
    for other in found[1:]:
        for one, same in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, same)
