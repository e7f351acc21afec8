"""Convolutions block by block and in parts: many images give what the reference gives for all of them at once."""

from math import prod
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.kernels import Reference, load
from minicvae.kernels import image_maps as module
from minicvae.kernels.cpu import Cpu
from minicvae.kernels.cpu_images import FEWEST, PARTS, SUMS, cut
from minicvae.kernels.spread import Helpers

reference = Reference()


def results(kernels, kind, rng, n, channels, stride, padding, accumulate):
    """y, dx, dW and db of a convolution or its transpose; the same numbers for the same state of rng."""
    c_in, c_out = channels
    x, b = rng.standard_normal((n, 12, 10, c_in)), rng.standard_normal(c_out)
    W = rng.standard_normal((3, 3, c_in, c_out) if kind == "conv2d" else (3, 3, c_out, c_in))
    y = getattr(kernels, kind)(x, W, b, "relu", stride, padding)
    dy, dW, db = rng.standard_normal(y.shape), rng.standard_normal(W.shape), rng.standard_normal(c_out)
    settings = "relu", stride, padding
    dx = getattr(kernels, f"{kind}_backward")(dy, x, y, W, *settings, dW, db, accumulate, True)
    return [np.array(a) for a in (y, dx, dW, db)]


@pytest.mark.parametrize("kind", ["conv2d", "conv2d_transpose"])
@pytest.mark.parametrize("channels", [(1, 5), (6, 1), (4, 3)])
@pytest.mark.parametrize(("stride", "padding"), [((1, 1), "same"), ((2, 1), "valid")])
@pytest.mark.parametrize("accumulate", [False, True])
def test_blocks_of_images_give_what_all_at_once_give(monkeypatch, kind, channels, stride, padding, accumulate):
    monkeypatch.setattr(module, "BLOCK", 40_000)  # a few images
    k, arguments = load("cpu"), (23, channels, stride, padding, accumulate)
    with k.steps() as begin_step:
        begin_step()
        found = results(k, kind, np.random.default_rng(1), *arguments)
    truth = results(reference, kind, np.random.default_rng(1), *arguments)
    for a, b in zip(found, truth, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


def test_pooling_and_upsampling_give_what_the_reference_gives():
    rng, k = np.random.default_rng(0), load("cpu")
    x = rng.integers(0, 4, (11, 7, 9, 5)).astype(float)  # many ties
    found = []
    for kernels in (k, reference):
        with kernels.steps() as begin_step:
            begin_step()
            y = kernels.max_pool(x, (2, 3), (2, 2))
            dx = kernels.max_pool_backward(np.sin(np.arange(y.size)).reshape(y.shape), x, y, (2, 3), (2, 2))
            up = kernels.upsample(x, (3, 2))
            found.append([np.array(a) for a in (y, dx, up, kernels.upsample_backward(up * 1.5, (3, 2)))])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)


def pooled_or_not(kernels, pool, x, W, b):
    """y and dW of a convolution, pooled where there is a pool."""
    dW, db, settings = np.zeros_like(W), np.zeros_like(b), ("tanh", (1, 1), "valid")
    if pool is None:
        y = kernels.conv2d(x, W, b, *settings)
        kernels.conv2d_backward(np.ones_like(y), x, y, W, *settings, dW, db, False, True)
        return y, dW
    y, kept = kernels.conv2d_max_pool(x, W, b, *settings, pool)
    kernels.conv2d_max_pool_backward(np.ones_like(y), x, y, kept, W, *settings, pool, dW, db, False, True)
    return y, dW


def drawn(rng, n=7):
    return rng.standard_normal((n, 8, 9, 2)), rng.standard_normal((3, 2, 2, 5)), rng.standard_normal(5)


@given(n=st.integers(0, 300), room=st.integers(1, 40), numbers=st.integers(1, SUMS))
def test_images_are_cut_into_parts_whose_sums_are_not_too_large_and_these_evenly_into_blocks(n, room, numbers):
    way = SimpleNamespace(images=lambda itemsize: room, sum_shape=(numbers,))
    parts, images = cut(way, n, np.dtype(np.float32))
    assert min(FEWEST, max(n, 1)) <= parts <= max(min(PARTS, n), 1)
    assert parts <= FEWEST or parts * numbers * 4 <= SUMS
    assert parts in (PARTS, max(n, 1)) or parts < FEWEST or (parts + 1) * numbers * 4 > SUMS
    of_part = max(-(-n // parts), 1)
    assert 1 <= images <= room
    blocks = -(-of_part // images)
    assert blocks == -(-of_part // room)  # as few as there is room for
    assert images == -(-of_part // blocks)  # and none much smaller than the others


@pytest.mark.parametrize("pool", [None, (2, 2)])
@given(n=st.integers(1, 30), room=st.integers(1, 4), threads=st.integers(1, 3))
def test_each_thread_has_room_for_a_block_of_its_own_and_each_part_sums_of_its_own(pool, n, room, threads):
    k, rooms, runs = type("Several", (Cpu,), {"threads": threads})(), [], []
    k.helpers = Helpers(threads)
    arrays = drawn(np.random.default_rng(n), n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.ImageMap, "images", lambda self, itemsize: room)
        run = k.run

        def recorded(kernel, *args):
            if "windowed" in kernel.__name__:
                forward = kernel.__name__ == "windowed"
                part = (module.Forward if forward else module.Backward)._make(args[: 6 if forward else 11])
                block = part.h if forward else part.g
                maxima = block if forward else part.of_maxima
                rooms.append([len(block), *(a.shape[1] for a in (block, maxima)), len(args[-1])])
                runs.append(len(part.b) if forward else part.db.shape[1])
                if not forward:
                    assert len(part.total) == len(part.db) == min(PARTS, n)
                    assert {len(a) for a in (block, maxima, args[-1])} == {threads}
            run(kernel, *args)

        patch.setattr(k, "run", recorded)
        found = pooled_or_not(k, pool, *arrays)
    images = cut(SimpleNamespace(images=lambda itemsize: room, sum_shape=(1,)), n, np.dtype(float))[1]
    forward = [images, images, threads]
    assert [r[1:] for r in rooms] == [forward, [images, images if pool else 0, threads]]
    assert [r[0] for r in rooms] == [threads] * 2
    # A row of an image: pixel by pixel, biases would be slow to add.
    assert runs == [prod(k.conv2d(*arrays, "tanh", (1, 1), "valid").shape[2:]) // (2 if pool else 1)] * 2
    for a, b in zip(found, pooled_or_not(reference, pool, *arrays), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("pool", [(2, 2), (3, 2), (2, 3), (1, 1)])
def test_pools_of_other_sizes_are_pooled_as_the_reference_does(pool):
    k, arrays = load("cpu"), drawn(np.random.default_rng(1))
    for a, b in zip(pooled_or_not(k, pool, *arrays), pooled_or_not(reference, pool, *arrays), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)
    _, kept = k.conv2d_max_pool(*arrays, "tanh", (1, 1), "valid", pool)
    assert kept.nbytes == (7 * 3 * 4 * 5 if pool == (2, 2) else 7 * 6 * 8 * 5 * 8)  # a byte for each maximum


@pytest.mark.parametrize("need_dx", [False, True])
def test_an_upsampling_by_one_is_a_convolution(need_dx):
    """Of one channel too, whose shortest way has no way back."""
    rng, k = np.random.default_rng(0), load("cpu")
    x, W, b = rng.standard_normal((3, 5, 4, 1)), rng.standard_normal((3, 3, 1, 6)), rng.standard_normal(6)
    found = []
    for kernels in (k, reference):
        dW, db = np.zeros_like(W), np.zeros_like(b)
        y = kernels.upsample_conv2d(x, W, b, "tanh", (1, 1), "same")
        settings = "tanh", (1, 1), "same"
        dx = kernels.upsample_conv2d_backward(np.ones_like(y), x, y, W, *settings, dW, db, False, need_dx)
        assert (dx is not None) == need_dx
        found.append([y, dW, db, dx if need_dx else np.zeros_like(x)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("shape", [(0, 8, 9, 2), (2, 3, 9, 2), (2, 8, 2, 2), (2, 4, 3, 2)])
def test_without_an_image_or_a_window_of_the_pool_or_with_a_single_one_it_is_as_the_reference_says(shape):
    rng, k = np.random.default_rng(0), load("cpu")
    x, W, b, settings = rng.standard_normal(shape), rng.standard_normal((3, 2, 2, 5)), np.ones(5), ("tanh", (1, 1))
    for pool in (None, (2, 2)):
        found = []
        for kernels in (k, reference):
            call = (*settings, "valid") if pool is None else (*settings, "valid", pool)
            made = kernels.conv2d(x, W, b, *call) if pool is None else kernels.conv2d_max_pool(x, W, b, *call)
            y, *kept = (made,) if pool is None else made
            dW, db = np.full_like(W, np.nan), np.full_like(b, np.nan)
            back = kernels.conv2d_backward if pool is None else kernels.conv2d_max_pool_backward
            found.append([y, back(np.ones_like(y), x, y, *kept, W, *call, dW, db, False, True), dW, db])
        for one, other in zip(*found, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
