"""`minicvae generate`: which images it draws, in which order, and how they are labelled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.cli import main
from minicvae.cli.generate import Wanted, _panels, measures
from minicvae.datasets import ATTRIBUTES


def test_generate_draws_ten_of_each_class_by_default(of_classes, tmp_path, run_to_here):
    text = run_to_here("generate", of_classes.folder, "--device", "numpy", "--out", tmp_path / "a.npz")
    assert text == f"{tmp_path / 'a.npz'}\n"
    with np.load(tmp_path / "a.npz") as file:
        np.testing.assert_array_equal(file["c"], [0, 1, 2] * 10)
        np.testing.assert_array_equal(file["x"], of_classes.model("numpy").generate([0, 1, 2] * 10, seed=0))


def test_generate_draws_what_is_asked_for_in_order(of_classes, tmp_path, run_to_here):
    words = ("--classes", "2", "2", "0", "--count", "2", "--seed", "4", "--device", "numpy")
    run_to_here("generate", of_classes.folder, *words, "--out", tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as file:
        assert file["c"].tolist() == [2, 2, 0, 2, 2, 0]
        np.testing.assert_array_equal(file["x"], of_classes.model("numpy").generate([2, 2, 0, 2, 2, 0], seed=4))


def test_generate_takes_attributes_as_they_are_measured(of_attributes, tmp_path, run_to_here):
    words = ("--condition", "slant=0.25, ink-area=12", "--condition", "", "--device", "numpy")
    run_to_here("generate", of_attributes.folder, *words, "--out", tmp_path / "a.npz")
    entry = of_attributes.config["data"]["attributes"]
    mean, scale = np.array(entry["mean"]), np.array(entry["scale"])
    asked = np.stack([mean, mean])
    asked[0, [0, 2]] = 12, 0.25
    with np.load(tmp_path / "a.npz") as file:
        np.testing.assert_allclose(file["c"], asked, rtol=1e-6)
        c = ((asked - mean) / scale).astype(np.float32)
        np.testing.assert_allclose(file["x"], of_attributes.model("numpy").generate(c, seed=0), atol=1e-6)


@pytest.mark.parametrize(
    "words", [(), ("--classes", "1"), ("--classes", "1", "--count", "12"), ("--classes", *"0120120120120")]
)
def test_generate_makes_pictures(of_classes, run_to_here, words):
    text = run_to_here("generate", of_classes.folder, *words, "--device", "numpy")
    assert text == f"{of_classes.folder / 'generated.png'}\n"
    assert (of_classes.folder / "generated.png").read_bytes().startswith(b"\x89PNG")


def test_a_class_that_the_model_was_not_trained_on_is_drawn_in_brackets_and_with_a_word(
    bars, quick, tmp_path, capsys, monkeypatch
):
    run, panels = str(tmp_path / "even"), []
    words = ["--data", bars, "--only-classes", "0", "2", *quick, "--quiet", "--out", run]
    assert main(["train", "mlp-small", *words]) == 0
    monkeypatch.setattr("minicvae.cli.generate.write", lambda file, arrays, title, shown: panels.append(shown))
    for classes, heading, said in (
        (
            ["--classes", "2", "1", "1"],
            ["2", "(1)", "(1)"],
            "the model was not trained on these, what it draws is a guess: 1\n",
        ),
        (["--classes", "2", "0"], ["2", "0"], ""),
        ([], ["0", "2"], ""),
    ):
        capsys.readouterr()
        assert main(["generate", run, *classes, "--device", "numpy"]) == 0
        assert panels.pop()[0].column_labels == heading
        assert capsys.readouterr().err == said


def test_without_a_wish_a_model_of_attributes_draws_each_from_low_to_high(of_attributes, tmp_path, run_to_here):
    run_to_here("generate", of_attributes.folder, "--device", "numpy", "--out", tmp_path / "a.npz", "--count", 1)
    run_to_here("generate", of_attributes.folder, "--device", "numpy", "--out", tmp_path / "a.png")
    entry = of_attributes.config["data"]["attributes"]
    with np.load(tmp_path / "a.npz") as file:
        c = (file["c"] - entry["mean"]) / entry["scale"]
    steps = len(c) // 5
    for j in range(5):
        expected = np.zeros((steps, 5))
        expected[:, j] = np.linspace(-2, 2, steps)
        np.testing.assert_allclose(c[j * steps : (j + 1) * steps], expected, atol=1e-6)


@given(count=st.integers(1, 3), sizes=st.lists(st.integers(1, 23), min_size=1, max_size=3))
def test_the_picture_shows_every_image_once_below_its_own_label(count, sizes):
    wanted = [Wanted([f"{i} {j}" for j in range(size)], np.zeros(size), str(i)) for i, size in enumerate(sizes)]
    k = sum(sizes)
    rows = np.arange(count * k, dtype=float).reshape(count, k, 1, 1)
    panels = _panels(wanted, rows)
    if k == 1:
        assert panels[0].images.ravel().tolist() == list(range(count))
        return
    labels = [label for part in wanted for label in part.labels]
    shown = [
        (panel.column_title, panel.column_labels[i % panel.columns], image.item())
        for panel in panels
        for i, image in enumerate(panel.images)
    ]
    assert all(len(panel.column_labels) == panel.columns <= 10 for panel in panels)
    expected = [(labels[j].split()[0], labels[j], float(row * k + j)) for row in range(count) for j in range(k)]
    assert sorted(shown) == sorted(expected)


@given(values=st.dictionaries(st.sampled_from(ATTRIBUTES), st.floats(allow_nan=False, allow_infinity=False)))
def test_a_condition_is_read_as_it_is_written(values):
    assert measures(", ".join(f"{name} = {value!r}" for name, value in values.items())) == values
    assert measures(",".join(f"{name.upper().replace(' ', '_')}={value!r}" for name, value in values.items())) == values


def test_a_model_without_a_condition_draws_a_row_and_refuses_to_be_asked_for_a_class(bars, quick, tmp_path, capsys):
    run = str(tmp_path / "run")
    assert main(["train", "iwae", "--data", bars, *quick, "--epochs", "1", "--quiet", "--out", run]) == 0
    assert main(["generate", run, "--device", "numpy", "--out", str(tmp_path / "made.npz")]) == 0
    with np.load(tmp_path / "made.npz") as made:
        assert made["x"].shape == (10, 8, 8)
    assert main(["generate", run, "--classes", "1"]) == 2
    assert "argument --classes: the model of" in capsys.readouterr().err
