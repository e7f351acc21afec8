"""Conditions as planes beside an image, and images laid out plane after plane."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.gradcheck import check_layer
from minicvae.kernels import OneHot
from minicvae.layers import Embedding, FlattenPlanes, JoinPlanes, Pathways, Reshape

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 3)
shapes = st.tuples(sizes, sizes, sizes, sizes)


@st.composite
def joined(draw):
    """(x, parts): an image, and no to three parts of a condition, numbers or labels."""
    shape, rng = draw(shapes), np.random.default_rng(draw(seeds))
    kinds = draw(st.lists(st.tuples(st.booleans(), sizes), max_size=3))
    n = shape[0]
    parts = [OneHot(rng.integers(0, w, n), w) if onehot else rng.standard_normal((n, w)) for onehot, w in kinds]
    return rng.standard_normal(shape), parts


@given(case=joined())
def test_every_pixel_is_joined_by_the_whole_condition(host, case):
    x, parts = case
    layer = JoinPlanes()
    layer.initialise(host.name, "float64")
    y, _ = layer.forward(x, *parts)
    for n, h, w in np.ndindex(x.shape[:3]):
        c = [np.eye(p.classes)[p.labels[n]] if isinstance(p, OneHot) else p[n] for p in parts]
        np.testing.assert_array_equal(y[n, h, w], np.concatenate([x[n, h, w], *c]))
    check_layer(layer, x, *parts, linear=True, max_left_out=0.0).raise_for_failure()


@pytest.mark.parametrize(
    ("need", "expected"),
    [(True, [True, True, False]), (False, [False] * 3), ([True, False, True], [True, False, False])],
)
def test_what_nobody_needs_is_left_out(host, need, expected):
    y, backward = JoinPlanes().forward(np.ones((2, 3, 3, 1)), np.ones((2, 2)), OneHot(np.array([0, 1]), 2))
    assert [d is not None for d in backward(y, need_dx=need)] == expected


@given(shape=shapes, seed=seeds)
def test_without_a_condition_the_image_passes_and_its_gradient_comes_back_alone(host, shape, seed):
    x, dy = np.random.default_rng(seed).standard_normal((2, *shape))
    layer = JoinPlanes()
    layer.initialise(host.name, "float64")
    y, backward = layer.forward(x)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(backward(dy), dy, strict=True)


def test_an_embedded_class_and_a_flat_image_meet_in_pathways(host):
    layer = Pathways([Reshape((2, 3, 1)), Embedding(4, 2), None], JoinPlanes())
    parameters = layer.initialise(host.name, "float64")
    labels = OneHot(np.array([3, 0, 3]), 4)
    rng = np.random.default_rng(0)
    x, c = rng.standard_normal((3, 6)), rng.standard_normal((3, 1))
    y, _ = layer.forward(x, labels, c)
    assert y.shape == (3, 2, 3, 4)
    np.testing.assert_array_equal(y[1, 0, 2], [x[1, 2], *parameters["paths.1.E"][0], c[1, 0]])
    check_layer(layer, x, labels, c, linear=True).raise_for_failure()


@given(shape=shapes, seed=seeds)
def test_one_plane_is_laid_out_after_the_other(host, shape, seed):
    x = np.random.default_rng(seed).standard_normal(shape)
    layer = FlattenPlanes()
    layer.initialise(host.name, "float64")
    y, _ = layer.forward(x)
    np.testing.assert_array_equal(y, np.concatenate([x[..., k].reshape(len(x), -1) for k in range(shape[3])], axis=1))
    check_layer(layer, x, linear=True, max_left_out=0.0).raise_for_failure()


@pytest.mark.parametrize("layer", [JoinPlanes(), FlattenPlanes()], ids=["JoinPlanes", "FlattenPlanes"])
def test_a_second_backward_and_what_is_no_image_are_refused(host, layer):
    y, backward = layer.forward(np.ones((1, 2, 2, 1)))
    backward(y)
    with pytest.raises(RuntimeError, match="backward was called twice"):
        backward(y)
    with pytest.raises(ValueError, match=r"^x: expected images of shape \(n, h, w, c\), got shape \(2, 4\)"):
        layer.forward(np.ones((2, 4)))
