"""The table of layers."""

from dataclasses import dataclass

import numpy as np
import pytest

import minicvae as mc
from minicvae.conditions import Classes
from minicvae.layers import Chain, Dense, Flatten, Layer, Reshape
from minicvae.layers.layer import once
from minicvae.parameters import Parameter
from minicvae.summary import summary


def rows(text):
    """name -> the other cells of each row of the table."""
    lines = text.split("\n")
    return {line.split("  ")[0].strip(): line for line in lines[2 : lines.index("")]}


def test_every_layer_has_a_row_with_its_shape_and_its_parameters():
    text = summary(mc.build("gaussian"))
    found = rows(text)
    assert list(found) == [f"{network}.{i}" for network in ("encoder", "decoder") for i in range(3)]
    assert "Dense(794, 512, relu)" in found["encoder.0"]
    assert "(n, 512)" in found["encoder.0"]
    assert found["encoder.0"].endswith(f"{795 * 512:,}")
    assert "Dense(32, 4)" in found["encoder.2"]
    for line in ("encoder     423,588 parameters", "decoder     419,504 parameters", "total       843,092 parameters"):
        assert line in text


@pytest.mark.parametrize("preset", mc.presets())
def test_the_rows_add_up_to_the_totals(preset):
    model = mc.build(preset)
    text = summary(model)
    counts = [int(line.split()[-1].replace(",", "")) for line in rows(text).values()]
    assert sum(counts) == model.parameters.size
    assert text.splitlines()[-1].split(maxsplit=1) == [
        "total",
        f"{model.parameters.size:,} parameters, float32, device cpu",
    ]
    for said in (model.condition, model.likelihood, model.objective):
        assert str(said) in text


@pytest.mark.parametrize("view", [False, True])
def test_models_of_hidden_pixels_have_a_table_too(view, capsys):
    baseline = mc.BaselineNet.build([5], image_shape=(3, 4))
    model = mc.ImageCVAE.build(baseline, [6], latent_dim=2, view=view, alpha=0.5)
    assert list(rows(baseline.summary())) == ["baseline.0", "baseline.1"]
    text = model.summary()
    assert capsys.readouterr().out.endswith(f"{text}\n")
    found = rows(text)
    assert list(found) == [f"{network}.{i}" for network in ("recognition", "prior", "generation") for i in range(2)]
    assert f"Dense({2 + 12 * view}, 6, relu)" in found["generation.0"]
    assert "(n, 12)" in found["generation.1"]
    assert sum(int(line.split()[-1]) for line in found.values()) == model.parameters.size
    assert f"baseline    {12 * 5 + 5 + 5 * 12 + 12} parameters more" in text
    assert f"total       {model.parameters.size} parameters" in text
    assert "alpha 0.5" in text
    assert ("sees too" in text) == view


def test_layers_without_weights_that_change_the_shape_are_shown():
    encoder = Chain([Dense(4 + 2, 4), Reshape((2, 2)), Flatten()])
    model = mc.CVAE(encoder, Dense(2 + 2, 4), Classes(2), latent_dim=2, image_shape=(2, 2))
    found = rows(summary(model))
    assert "(n, 2, 2)" in found["encoder.1"]
    assert found["encoder.1"].endswith(" 0")


def test_looking_changes_nothing(device):
    model = mc.build("mlp-small", device=device)
    before = model.kernels.to_numpy(model.parameters.value)
    assert summary(model) == summary(model)
    np.testing.assert_array_equal(model.kernels.to_numpy(model.parameters.value), before)
    assert not any("forward" in vars(layer) for _, network in model.networks for _, layer in network.named_layers())


@dataclass(eq=False)
class Gated(Layer):
    """A layer of a user's own with a layer within and a weight of its own: y = gate ⊙ inner(x)."""

    inner: Layer

    def __post_init__(self):
        self.gate = Parameter((4,), "standard_normal")

    def forward(self, *x):
        h, inner_backward = self.inner.forward(*x)

        @once
        def backward(dy, need_dx=True):
            self.gate.gradient_sink()[0][...] = (dy * h).sum(axis=0)
            return inner_backward(dy * self.gate.value, need_dx=need_dx)

        return h * self.gate.value, backward


def test_a_weight_beside_a_layer_within_is_counted():
    model = mc.CVAE(Gated(Dense(4 + 2, 4)), Dense(2 + 2, 4), Classes(2), latent_dim=2, image_shape=(2, 2))
    text = summary(model)
    assert "encoder     32 parameters" in text
    assert "total       52 parameters" in text
    assert sum(int(line.split()[-1]) for line in rows(text).values()) == 52
