"""Convolutions block by block and shared out: many images give what the reference gives for all of them at once."""

import numpy as np
import pytest

from minicvae.kernels import Reference, load
from minicvae.kernels import image_maps as module

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
def test_blocks_of_images_shared_out_give_what_all_at_once_give(
    monkeypatch, kind, channels, stride, padding, accumulate
):
    monkeypatch.setattr(module, "BLOCK", 40_000)  # a few images
    monkeypatch.setattr("minicvae.kernels.cpu.WORTH_SHARING", 0)
    shared = []
    k, plain = load("cpu"), load("cpu").team.share
    monkeypatch.setattr(k.team, "share", lambda work, length: (shared.append(length), plain(work, length)))
    arguments = 23, channels, stride, padding, accumulate
    with k.steps() as begin_step:
        begin_step()
        found = results(k, kind, np.random.default_rng(1), *arguments)
    assert shared.count(23) == 2
    truth = results(reference, kind, np.random.default_rng(1), *arguments)
    for a, b in zip(found, truth, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


def test_pooling_and_upsampling_shared_out_give_what_the_reference_gives(monkeypatch):
    monkeypatch.setattr("minicvae.kernels.cpu.WORTH_SHARING", 0)
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
