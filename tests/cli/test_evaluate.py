"""`minicvae evaluate`: the losses of each part of the data."""

import json
import re

import numpy as np
import pytest

from minicvae.datasets import attributes


def test_evaluate_measures_each_part_of_the_data(digits, of_classes, run_to_here):
    table = run_to_here("evaluate", of_classes.folder, "--device", "numpy")
    results = json.loads(run_to_here("evaluate", of_classes.folder, "--device", "numpy", "--json"))
    assert {name: result["images"] for name, result in results.items()} == {"training": 50, "held-out": 10, "test": 30}
    assert results["held-out"]["loss"] == pytest.approx(of_classes.history()["val_loss"][-1], rel=1e-6)
    expected = of_classes.model("numpy").evaluate(*digits(30, 1))
    assert results["test"] == {"images": 30, **expected}
    assert results["test"] | {"images": None} == of_classes.config["test_losses"] | {"images": None}
    for name, result in results.items():
        numbers = rf"{result['images']} +{result['loss']:.2f} +{result['reconstruction']:.2f} +{result['kl']:.2f}"
        assert re.search(rf"^{name} +{numbers}$", table, re.MULTILINE)


def test_evaluate_takes_other_data_and_an_attribute_stays_what_it_was(digits, of_attributes, tmp_path, run_to_here):
    (x, y), other = digits(100, 2), tmp_path / "other.npz"
    np.savez(other, x_train=x[10:], y_train=y[10:], x_test=x[:10], y_test=y[:10])
    words = ("--data", other, "--json", "--device", "numpy")
    results = json.loads(run_to_here("evaluate", of_attributes.folder, *words))
    entry = of_attributes.config["data"]["attributes"]
    c = (attributes(x[:10]) - entry["mean"]) / entry["scale"]
    assert {name: result["images"] for name, result in results.items()} == {"training": 90, "test": 10}
    assert results["test"]["loss"] == pytest.approx(of_attributes.model("numpy").evaluate(x[:10], c)["loss"], rel=1e-4)
