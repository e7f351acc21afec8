"""`minicvae gradcheck`: what it checks, what it prints, and what it says of a wrong gradient."""

import sys

import numpy as np
import pytest

import minicvae as mc
from minicvae.cli import gradcheck, main
from minicvae.gradcheck import check_model
from minicvae.layers import Dense
from minicvae.models.presets import PRESETS


@pytest.fixture
def spoil(monkeypatch):
    """spoil(device, d_in): from now on the bias of a dense layer of that size has a gradient too large by a thousandth.

    Only on that device, for on another may be the truth that it is held to.
    """
    plain = Dense.forward

    def apply(device, d_in):
        def forward(self, *parts):
            y, backward = plain(self, *parts)

            def wrong(dy, need_dx=True):
                dx = backward(dy, need_dx=need_dx)
                if (self.kernels.name, self.d_in) == (device, d_in):
                    gradient = self.b.grad
                    gradient *= 1.001
                return dx

            return y, wrong

        monkeypatch.setattr(Dense, "forward", forward)

    return apply


@pytest.fixture
def checked(monkeypatch):
    """The arguments of every check of a model that the command makes: (model, x, c, eps, elements)."""
    seen = []

    def spy(model, x, c, *, eps, elements, title):
        seen.append((model, x, c, eps, elements))
        return check_model(model, x, c, eps=eps, elements=elements, title=title)

    monkeypatch.setattr(gradcheck, "check_model", spy)
    return seen


def verdicts(table):
    """The last word of each row of a table, by the row's name."""
    rows = [line.split() for line in table.split("\n\n")[0].splitlines()]
    return {row[0]: row[-1] for row in rows[2:] if row[-1] in ("ok", "WRONG")}


def test_a_right_model_ends_with_0_and_has_a_row_for_every_parameter(device, run_to_here):
    text = run_to_here("gradcheck", "mlp-small", "--device", device)
    rows = verdicts(text)
    assert [name for name in rows if name != "together"] == list(mc.build("mlp-small").parameters)
    assert set(rows.values()) == {"ok"}
    assert text.startswith(f"mlp-small on {device}: ok; ")
    assert text.splitlines()[-1].endswith(": every gradient is right")
    assert text.splitlines()[-1].startswith(f"1 of {len(PRESETS)} presets in ")


def test_a_wrong_backward_ends_with_1_and_the_parameter_is_named(device, spoil, capsys):
    spoil(device, d_in=128)
    assert main(["gradcheck", "mlp-small", "--device", device, "--elements", "4"]) == 1
    text = capsys.readouterr().out
    wrong = [name for name, verdict in verdicts(text).items() if verdict == "WRONG" and name != "together"]
    assert wrong == ["encoder.2.b", "decoder.1.b"]
    assert text.startswith(f"mlp-small on {device}: FAILED")
    assert text.endswith(": failed: mlp-small\n")


def test_a_wrong_gradient_is_described(spoil, capsys):
    spoil("numpy", d_in=128)
    assert main(["gradcheck", "mlp-small", "--device", "numpy", "--elements", "4"]) == 1
    sentence = "4 of 4 elements are wrong: the analytic gradient is 1.001 times the numeric one"
    assert f"\nencoder.2.b: {sentence}\ndecoder.1.b: {sentence}\n" in capsys.readouterr().out


def test_all_presets_are_checked_by_default_also_behind_a_wrong_one(spoil, capsys, monkeypatch):
    monkeypatch.setattr(gradcheck, "PRESETS", {name: PRESETS[name] for name in ("mlp-small", "vector")})
    spoil("numpy", d_in=26)  # latent 16 and ten classes: the first layer of mlp-small's decoder
    for words in ([], ["all"]):
        assert main(["gradcheck", *words, "--device", "numpy", "--elements", "2"]) == 1
        wrong, right, verdict = capsys.readouterr().out.split("\n\n")
        assert verdicts(wrong)["decoder.0.b"] == "WRONG"
        assert set(verdicts(right).values()) == {"ok"}
        assert right.startswith("vector on numpy: ok")
        assert verdict.startswith("2 of 2 presets")
        assert verdict.endswith(": failed: mlp-small\n")


def test_examples_and_elements_are_as_many_as_asked_for(checked, run_to_here):
    text = run_to_here("gradcheck", "gaussian", "--examples", 5, "--elements", 3, "--device", "numpy")
    ((model, x, c, eps, elements),) = checked
    assert (len(x), len(c), eps.shape, elements) == (5, 5, (5, 5, 2), 3)
    assert (model.device, model.dtype) == ("numpy", "float64")
    assert f"; {3 * len(model.parameters)} elements compared\n" in text


def test_the_seed_is_that_of_all_that_is_drawn(checked, run_to_here):
    words = ("gradcheck", "vector", "--elements", 3, "--device", "numpy", "--seed")
    one, again, other = (run_to_here(*words, seed).split("\n\n")[0] for seed in (1, 1, 2))
    assert one == again != other
    for a, b, c in zip(*((model.parameters.value, *data) for model, *data, _ in checked), strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)


def test_no_bias_is_near_zero_where_a_mistake_could_hide(checked, run_to_here):
    run_to_here("gradcheck", "pathways", "--elements", 2, "--device", "numpy")
    ((model, *_),) = checked
    biases = [np.abs(value) for name, value in model.parameters.items() if name.endswith(".b")]
    assert len(biases) == 6
    assert all(1 <= bias.min() <= bias.max() <= 2 for bias in biases)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_gradient_of_a_preset_is_within_1e_8_of_the_slopes(preset):
    report = gradcheck.check(preset, "cpu", examples=3, elements=3, seed=0).raise_for_failure()
    rows = {row.name: row for row in report.rows if row.name != "together"}
    assert list(rows) == list(mc.build(preset).parameters)
    assert {name: row.relative for name, row in rows.items() if not row.relative < 1e-8} == {}


def test_a_gpu_that_is_not_there_is_said(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    mc.kernels.load.cache_clear()
    assert main(["gradcheck", "vector", "--device", "cuda"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("minicvae: error: device 'cuda': CuPy is not installed; install CuPy with `pip install")
    assert err.endswith(", or use device='cpu'\n")
