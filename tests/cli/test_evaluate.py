"""`minicvae evaluate`: the losses of each part of the data, the diagnosis, and the file that keeps them."""

import json
import os
import re

import numpy as np
import pytest

from minicvae import classifier as classifier_module
from minicvae.classifier import trained_on
from minicvae.cli import main
from minicvae.cli import train as train_module
from minicvae.datasets import attributes, binarise
from minicvae.diagnostics import diagnose


@pytest.fixture
def quick_classifier(tmp_path, monkeypatch):
    """A classifier of one epoch, kept where no other test finds it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(classifier_module, "EPOCHS", 1)


@pytest.mark.usefixtures("quick_classifier")
def test_evaluate_measures_each_part_of_the_data_and_writes_what_it_prints(digits, of_classes, run_to_here):
    text = run_to_here("evaluate", of_classes.folder, "--device", "numpy")
    written = (of_classes.folder / "evaluation.json").read_text(encoding="utf-8")
    assert run_to_here("evaluate", of_classes.folder, "--device", "numpy", "--json") == written
    results = json.loads(written)
    losses = results["losses"]
    assert {name: result["images"] for name, result in losses.items()} == {"training": 50, "held-out": 10, "test": 30}
    assert losses["held-out"]["loss"] == pytest.approx(of_classes.history()["val_loss"][-1], rel=1e-6)
    model, (x, y) = of_classes.model("numpy"), digits(30, 1)
    assert losses["test"] == {"images": 30, **model.evaluate(x, y)}
    assert losses["test"] | {"images": None} == of_classes.config["test_losses"] | {"images": None}
    for name, result in losses.items():
        numbers = rf"{result['images']} +{result['loss']:.2f} +{result['reconstruction']:.2f} +{result['kl']:.2f}"
        assert re.search(rf"^{name} +{numbers}$", text, re.MULTILINE)

    x_train, y_train = digits(60, 0)
    classifier = trained_on(x_train, y_train, device="numpy")
    diagnosis = diagnose(model, x, y, training=x_train[:50], classifier=classifier)
    assert results["diagnosis"] == diagnosis.as_dict()
    assert str(diagnosis) in text
    assert results["log_likelihood"] is None


@pytest.mark.usefixtures("quick_classifier")
def test_evaluate_says_when_the_classifier_is_trained_and_only_then(of_classes, capsys):
    said = []
    for _ in range(2):
        assert main(["evaluate", str(of_classes.folder), "--device", "numpy"]) == 0
        said.append(capsys.readouterr().err)
    assert said == ["training a classifier of these images, the first time only ...\n", ""]


def test_evaluate_estimates_the_log_likelihood_where_it_is_asked_to(digits, of_classes, run_to_here):
    words = ("--log-likelihood", "7", "--samples", "20", "--no-classifier", "--device", "numpy")
    text = run_to_here("evaluate", of_classes.folder, *words)
    results = json.loads((of_classes.folder / "evaluation.json").read_text(encoding="utf-8"))
    x, y = digits(30, 1)
    expected = of_classes.model("numpy").log_likelihood(x[:7], y[:7], 20)
    assert results["log_likelihood"] == {
        "images": 7,
        "samples": 20,
        "mean": pytest.approx(expected.mean()),
        "standard_error": pytest.approx(expected.std(ddof=1) / np.sqrt(7)),
    }
    assert f"7 test images, 20 importance samples each: {expected.mean():.2f} nats" in text
    assert results["diagnosis"]["recognised"] is None


def test_evaluate_asks_no_classifier_of_classes_where_attributes_are_the_condition(of_attributes, run_to_here):
    results = json.loads(run_to_here("evaluate", of_attributes.folder, "--device", "numpy", "--json"))
    assert results["diagnosis"]["recognised"] is results["diagnosis"]["leakage"] is None
    assert results["diagnosis"]["spread"]["reference"] > 0


def test_evaluate_sees_the_pixels_of_the_training(digits, bars, quick, tmp_path, run_to_here, monkeypatch):
    monkeypatch.setattr(train_module, "draw", lambda record, model, data: [])
    out = tmp_path / "run"
    run_to_here("train", "mlp-small", "--data", bars, *quick, "--pixels", "static", "--out", out)
    results = json.loads(run_to_here("evaluate", out, "--device", "numpy", "--json", "--no-classifier"))
    x, y = digits(30, 1)
    model = train_module.Run.open(out).model("numpy")
    assert results["losses"]["test"] == {"images": 30, **model.evaluate(binarise(x), y)}
    assert results["diagnosis"] == diagnose(model, binarise(x), y, training=binarise(digits(60, 0)[0])).as_dict()


def test_an_evaluation_that_cannot_be_written_leaves_the_old_one(of_classes, run_to_here, capsys, monkeypatch):
    words = ("evaluate", str(of_classes.folder), "--no-classifier", "--device", "numpy")
    run_to_here(*words)
    before = (of_classes.folder / "evaluation.json").read_bytes(), sorted(os.listdir(of_classes.folder))

    def full(path, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    assert main([*words]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert ((of_classes.folder / "evaluation.json").read_bytes(), sorted(os.listdir(of_classes.folder))) == before


def test_evaluate_takes_other_data_and_an_attribute_stays_what_it_was(digits, of_attributes, tmp_path, run_to_here):
    (x, y), other = digits(100, 2), tmp_path / "other.npz"
    np.savez(other, x_train=x[10:], y_train=y[10:], x_test=x[:10], y_test=y[:10])
    words, written = ("--data", other, "--json", "--device", "numpy"), of_attributes.folder / "evaluation.json"
    written.unlink(missing_ok=True)
    results = json.loads(run_to_here("evaluate", of_attributes.folder, *words))["losses"]
    assert not written.exists()
    entry = of_attributes.config["data"]["attributes"]
    c = (attributes(x[:10]) - entry["mean"]) / entry["scale"]
    assert {name: result["images"] for name, result in results.items()} == {"training": 90, "test": 10}
    assert results["test"]["loss"] == pytest.approx(of_attributes.model("numpy").evaluate(x[:10], c)["loss"], rel=1e-4)
