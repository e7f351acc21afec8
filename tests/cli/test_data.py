"""The images of a run: chosen by the arguments, and found again."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.cli.data import class_numbers, prepare, recorded
from minicvae.datasets import ATTRIBUTES, attributes


def test_attributes_are_standardised_on_the_training_images(digits, of_attributes):
    entry = of_attributes.config["data"]["attributes"]
    measured = attributes(digits(60, 0)[0])
    assert entry["names"] == list(ATTRIBUTES)
    assert entry["mean"] == pytest.approx(measured.mean(axis=0).tolist(), rel=1e-5)
    assert entry["scale"] == pytest.approx(measured.std(axis=0).tolist(), rel=1e-4)


@pytest.mark.parametrize("only", [(), ("0", "2")])
@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.parametrize(("limit", "held_out"), [(None, False), (7, True), (None, True)])
def test_a_run_has_the_same_images_again_from_its_config(digits, bars, only, measured, limit, held_out):
    data = prepare(bars, only_classes=only, limit=limit, held_out=held_out, measured=measured)
    again = recorded(json.loads(json.dumps(data.describe())))
    assert (data.held_out is None) == (not held_out)
    for split, other in zip(
        (data.train, data.held_out, data.test), (again.train, again.held_out, again.test), strict=True
    ):
        if split:
            for a, b in zip(data.pair(split), again.pair(other), strict=True):
                np.testing.assert_array_equal(a, b)
            assert set(split.y) <= set(data.shown)
    x, y = digits(60, 0)
    x = x[np.isin(y, data.shown)]
    np.testing.assert_array_equal(data.train.x, x[: len(x) - (len(x) // 6 if held_out else 0)][:limit])
    if held_out:
        np.testing.assert_array_equal(data.held_out.x, x[-(len(x) // 6) :])


@given(labels=st.lists(st.integers(0, 3), max_size=6))
def test_classes_are_meant_by_name_or_number(labels):
    names = ("Ankle boot", "2", "bag", "Ä")
    assert class_numbers([names[k] for k in labels], names) == labels
    assert class_numbers([names[k].upper() for k in labels], names) == labels
    assert class_numbers([str(k) for k in labels if k != 2], names) == [k for k in labels if k != 2]
