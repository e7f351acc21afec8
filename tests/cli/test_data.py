"""The images of a run: chosen by the arguments, and found again."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.cli.data import PIXELS, class_numbers, prepare, recorded, rows
from minicvae.datasets import ATTRIBUTES, attributes, binarise


def test_attributes_are_standardised_on_the_training_images(digits, of_attributes):
    entry = of_attributes.config["data"]["attributes"]
    measured = attributes(digits(60, 0)[0])
    assert entry["names"] == list(ATTRIBUTES)
    assert entry["mean"] == pytest.approx(measured.mean(axis=0).tolist(), rel=1e-5)
    assert entry["scale"] == pytest.approx(measured.std(axis=0).tolist(), rel=1e-4)


@pytest.mark.parametrize("only", [(), ("0", "2")])
@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.parametrize(
    ("limit", "held_out", "pixels"), [(None, False, "grey"), (7, True, "static"), (None, True, "dynamic")]
)
def test_a_run_has_the_same_images_again_from_its_config(digits, bars, only, measured, limit, held_out, pixels):
    data = prepare(bars, only_classes=only, limit=limit, held_out=held_out, measured=measured, pixels=pixels)
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


@pytest.mark.parametrize("measured", [False, True])
def test_black_and_white_pixels_are_drawn_once_but_those_of_dynamic_training_which_stay_grey_till_then(bars, measured):
    grey, static, dynamic = (prepare(bars, held_out=True, measured=measured, pixels=how) for how in PIXELS)
    assert len(np.unique(grey.pair(grey.test)[0])) > 2
    for name in ("train", "held_out", "test"):
        for data in (static, dynamic):
            x, c = data.pair(getattr(data, name))
            np.testing.assert_array_equal(x, binarise(getattr(grey, name).x))
            np.testing.assert_array_equal(c, grey.condition(getattr(grey, name)))  # measured on the grey images
        some = [2, 0]
        np.testing.assert_array_equal(static.pair(rows(getattr(static, name), some))[0], x[some])
    for data, expected in ((grey, grey.train.x), (static, binarise(grey.train.x)), (dynamic, grey.train.x)):
        np.testing.assert_array_equal(data.training_pair()[0], expected)
        np.testing.assert_array_equal(data.training_pair()[1], grey.condition(grey.train))


def test_runs_from_before_there_was_a_choice_of_pixels_are_grey(bars):
    entry = prepare(bars).describe()
    del entry["pixels"]
    assert recorded(entry).pixels == "grey"


@given(labels=st.lists(st.integers(0, 3), max_size=6))
def test_classes_are_meant_by_name_or_number(labels):
    names = ("Ankle boot", "2", "bag", "Ä")
    assert class_numbers([names[k] for k in labels], names) == labels
    assert class_numbers([names[k].upper() for k in labels], names) == labels
    assert class_numbers([str(k) for k in labels if k != 2], names) == [k for k in labels if k != 2]
