"""The images of a run: chosen by the arguments, and found again."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.cli import main
from minicvae.cli.data import PIXELS, class_numbers, prepare, recorded, rows
from minicvae.datasets import ATTRIBUTES, attributes, binarise


def test_attributes_are_standardised_on_the_training_images(digits, of_attributes):
    entry = of_attributes.config["data"]["attributes"]
    measured = attributes(digits(60, 0)[0])
    assert entry["names"] == list(ATTRIBUTES)
    assert entry["mean"] == pytest.approx(measured.mean(axis=0).tolist(), rel=1e-5)
    assert entry["scale"] == pytest.approx(measured.std(axis=0).tolist(), rel=1e-4)


def assert_same_images(data, again):
    for split, other in zip(
        (data.train, data.held_out, data.test), (again.train, again.held_out, again.test), strict=True
    ):
        if split:
            for a, b in zip(data.pair(split), again.pair(other), strict=True):
                np.testing.assert_array_equal(a, b)
            assert set(split.y) <= set(data.shown)


@pytest.mark.parametrize("only", [(), ("0", "2")])
@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.parametrize(
    ("limit", "held_out", "pixels"), [(None, False, "grey"), (7, True, "static"), (None, True, "dynamic")]
)
def test_a_run_has_the_same_images_again_from_its_config(digits, bars, only, measured, limit, held_out, pixels):
    data = prepare(bars, only_classes=only, limit=limit, held_out=held_out, measured=measured, pixels=pixels)
    again = recorded(json.loads(json.dumps(data.describe())))
    assert (data.held_out is None) == (not held_out)
    assert_same_images(data, again)
    x, y = digits(60, 0)
    x = x[np.isin(y, data.shown)]
    np.testing.assert_array_equal(data.train.x, x[: len(x) - (len(x) // 6 if held_out else 0)][:limit])
    if held_out:
        np.testing.assert_array_equal(data.held_out.x, x[-(len(x) // 6) :])


def save(folder, x, y, x_test, y_test):
    file = folder / "own.npz"
    np.savez(file, x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    return str(file)


@pytest.mark.parametrize("label", [-1, 1000, 10**9, 2**62, 2**63])
@pytest.mark.parametrize("part", ["training", "test"])
def test_a_label_that_is_none_is_refused_at_once(digits, tmp_path, label, part):
    (x, y), (x_test, y_test) = digits(12, 0), digits(6, 1)
    if label > np.iinfo(y.dtype).max:
        y, y_test = (y, y_test.astype(np.uint64)) if part == "test" else (y.astype(np.uint64), y_test)
    (y if part == "training" else y_test)[3] = label
    with pytest.raises(ValueError, match=f"^data: expected labels 0 to 999, got {label}$"):
        prepare(save(tmp_path, x, y, x_test, y_test))


def test_classes_without_a_training_image_are_left_out_and_said(digits, tmp_path, capsys):
    (x, y), (x_test, y_test) = digits(60, 0), digits(30, 1)
    y[y == 2], y_test[:6] = 40, [2, 40, 0, 3, 3, 1]
    data = prepare(save(tmp_path, x, y, x_test, y_test), held_out=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("left out 38 of 41 classes, for want of training images: 2, 3, 4, 5, ")
    assert len(err) < 150
    assert data.shown == (0, 1, 40)
    assert set(data.test.y) == {0, 1, 40}
    assert len(data.test) == np.isin(y_test, data.shown).sum()
    assert data.names[:4] == ("0", "1", "(2)", "(3)")
    assert_same_images(data, recorded(json.loads(json.dumps(data.describe()))))


@pytest.mark.parametrize("pixels", PIXELS)
def test_what_a_limit_leaves_no_image_of_is_left_out_and_comes_not_back(digits, tmp_path, capsys, pixels):
    (x, y), (x_test, y_test) = digits(60, 0), digits(30, 1)
    y[:20] = np.arange(20) % 2
    data = prepare(save(tmp_path, x, y, x_test, y_test), held_out=True, limit=15, pixels=pixels)
    assert capsys.readouterr().err == "left out 1 of 3 classes, for want of training images: 2\n"
    assert data.shown == (0, 1)
    assert set(data.held_out.y) == set(data.test.y) == {0, 1}
    np.testing.assert_array_equal(data.train.x, x[:15])
    assert_same_images(data, recorded(json.loads(json.dumps(data.describe()))))


def test_a_model_of_attributes_leaves_no_class_out(digits, tmp_path, capsys):
    (x, y), test = digits(60, 0), digits(30, 1)
    data = prepare(save(tmp_path, x[y < 2], y[y < 2], *test), measured=True)
    assert capsys.readouterr().err == ""
    assert len(data.test) == 30


def test_test_images_of_other_classes_only_are_refused(digits, tmp_path):
    x, y = digits(60, 0)
    with pytest.raises(ValueError, match="data: expected training and test images of the classes in use"):
        prepare(save(tmp_path, x[y < 2], y[y < 2], x[y == 2], y[y == 2]))


def test_other_data_of_more_classes_suits_a_model_of_attributes(digits, of_attributes, tmp_path):
    (x, y), (x_test, y_test) = digits(12, 0), digits(6, 1)
    file = save(tmp_path, x, y + 20, x_test, y_test + 20)
    data = recorded(of_attributes.config["data"], file)
    assert [data.class_names[k] for k in data.test.y] == ["20", "21", "22"] * 2


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"source": None}, "source"),
        ({"training_images": None, "held_out_images": "0"}, "training_images, held_out_images"),
        ({"class_names": None}, "class_names"),
        ({"classes": [0, 3]}, "classes"),
        ({"classes": [[]]}, "classes"),
        ({"pixels": "green"}, "pixels"),
        ({"attributes": {"mean": [0.0] * 5}}, "attributes"),
        ({"attributes": {"mean": [0.0] * 5, "scale": [1.0] * 4}}, "attributes"),
        ({"attributes": {"mean": [0.0] * 5, "scale": ["1"] * 5}}, "attributes"),
        ({"attributes": 3}, "attributes"),
    ],
)
@pytest.mark.parametrize("command", ["generate", "reconstruct", "evaluate", "plot"])
def test_an_incomplete_config_is_an_error_of_one_line(of_classes, tmp_path, capsys, command, changes, wrong):
    config = json.loads(of_classes.config_file.read_text())
    config["data"] = {name: value for name, value in (config["data"] | changes).items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert main([command, str(tmp_path), "--device", "numpy"]) == 1
    assert capsys.readouterr().err == (
        f"minicvae: error: {tmp_path}/config.json: data: missing or not as `minicvae train` writes it: {wrong}\n"
    )


@pytest.mark.parametrize("entry", [None, [], "mnist"])
def test_data_that_is_no_object_is_refused(of_classes, tmp_path, capsys, entry):
    config = json.loads(of_classes.config_file.read_text()) | {"data": entry}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert main(["evaluate", str(tmp_path), "--device", "numpy"]) == 1
    assert "data: missing or not as `minicvae train` writes it: source, " in capsys.readouterr().err


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
