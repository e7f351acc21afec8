"""The embedding layer: a row for each label, and gradients that add up over repeated labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.gradcheck import check_layer
from minicvae.kernels import OneHot
from minicvae.layers import Embedding

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 5)


@st.composite
def cases(draw):
    """A layer's sizes and labels (n,) for it, often repeated, some classes perhaps without any."""
    classes = draw(sizes)
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=8))
    return Embedding(classes, draw(sizes)), OneHot(np.array(labels), classes)


@given(case=cases(), seed=seeds)
def test_the_gradient_is_the_slope(host, case, seed):
    layer, c = case
    layer.initialise(host.name, "float64", seed)
    report = check_layer(layer, c, linear=True, max_left_out=0.0).raise_for_failure()
    assert report["E"].checked == layer.classes * layer.dim


@given(case=cases(), seed=seeds)
def test_each_class_gets_the_sum_of_its_examples_gradients(host, case, seed):
    layer, c = case
    parameters = layer.initialise(host.name, "float64", seed)
    y, backward = layer.forward(c)
    np.testing.assert_array_equal(y, parameters["E"][c.labels])
    dy = np.random.default_rng(seed).standard_normal(y.shape)
    assert backward(dy) is None
    for k in range(layer.classes):
        np.testing.assert_allclose(parameters.grads["E"][k], dy[c.labels == k].sum(axis=0), rtol=1e-12, atol=1e-13)


def test_it_starts_standard_normal():
    E = Embedding(100, 500).initialise(dtype="float64")["E"]
    assert E.mean() == pytest.approx(0, abs=0.02)
    assert E.var() == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0), (-1, 2)])
def test_sizes_below_one_are_refused(sizes):
    with pytest.raises(ValueError, match="expected positive sizes"):
        Embedding(*sizes)


@pytest.mark.parametrize("classes", [2, 4])
def test_labels_of_another_number_of_classes_are_refused(classes):
    layer = Embedding(3, 2)
    layer.initialise("numpy")
    with pytest.raises(ValueError, match=rf"^Embedding\(3, 2\) got labels of {classes} classes"):
        layer.forward(OneHot(np.array([0]), classes))
