"""The command line as users meet it: what each command does, and what it says to those who err."""

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minicvae as mc
from minicvae.cli import COMMANDS, main
from minicvae.cli import train as train_module
from minicvae.cli.data import class_numbers, prepare, recorded
from minicvae.cli.generate import Wanted, _panels, measures
from minicvae.cli.models import announce_compilation
from minicvae.cli.parser import at_least, number
from minicvae.datasets import ATTRIBUTES, attributes
from minicvae.models.presets import PRESETS
from minicvae.runs import Run

SIZE = (8, 8)
QUICK = ("--device", "numpy", "--epochs", "2", "--batch-size", "20")


def digits(n, seed):
    """n images of three classes: a bar at the left, in the middle or at the right, with some noise."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    x = rng.integers(0, 60, (n, *SIZE), np.uint8)
    for image, label in zip(x, y, strict=True):
        image[rng.integers(0, 3) :, 2 * label + 1 : 2 * label + 3] = 220
    return x, y


@pytest.fixture(scope="session")
def bars(tmp_path_factory):
    """An .npz file of 60 training and 30 test images."""
    file = tmp_path_factory.mktemp("data") / "bars.npz"
    (x, y), (x_test, y_test) = digits(60, 0), digits(30, 1)
    np.savez(file, x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    return str(file)


def trained(folder, *words):
    """A run made by the command itself, pictures and all."""
    assert main(["train", *words, *QUICK, "--quiet", "--out", str(folder)]) == 0
    return Run.open(folder)


@pytest.fixture(scope="session")
def of_classes(bars, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs") / "classes", "mlp-small", "--data", bars, "--validation", "held-out")


@pytest.fixture(scope="session")
def of_attributes(bars, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs") / "attributes", "vector", "--data", bars)


@pytest.fixture
def without_pictures(monkeypatch):
    monkeypatch.setattr(train_module, "draw", lambda record, model, data: [])


def run_to_here(capsys, *words):
    """The output of a command that succeeds."""
    capsys.readouterr()
    assert main([*map(str, words)]) == 0
    return capsys.readouterr().out


def test_help_lists_the_commands_in_the_order_of_a_first_day(capsys):
    text = run_to_here(capsys, "--help")
    assert run_to_here(capsys) == text
    listed = re.findall(r"^  (\w+) +(\S.*)$", text.partition("commands:")[2], re.MULTILINE)[: len(COMMANDS)]
    assert dict(listed) == COMMANDS
    assert next(iter(COMMANDS)) == "train"


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS)])
def test_all_help_ends_with_an_example_and_fits_80_columns(capsys, monkeypatch, words):
    monkeypatch.setenv("COLUMNS", "80")
    text = run_to_here(capsys, *words, "--help")
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"\nexample:\n(  minicvae .*\n)+$", text)
    assert text.isascii()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_in_the_help_are_understood(monkeypatch, name):
    command, seen = import_module(f"minicvae.cli.{name}"), []
    monkeypatch.setattr(command, "run", lambda args: seen.append(args) or 0)
    examples = command.EXAMPLE.splitlines()
    for example in examples:
        program, *words = shlex.split(example)
        assert program == "minicvae"
        assert main(words) == 0
    assert len(seen) == len(examples)


def test_the_version_is_the_packages(capsys):
    assert run_to_here(capsys, "--version") == f"minicvae {mc.__version__}\n"


def test_help_and_the_command_line_load_nothing_heavy():
    code = (
        "import sys; from minicvae.cli import main;"
        "main(['--help']); top = set(sys.modules); main(['train', '--help']);"
        "print({'numpy'} & top, {'numba', 'cupy', 'matplotlib', 'rich', 'safetensors', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set() set()"


def test_a_training_leaves_a_whole_run_folder_and_says_where(bars, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = run_to_here(capsys, "train", "mlp-small", "--data", bars, *QUICK)
    run = Run.open("runs/mlp-small-1")

    config = run.config
    assert config["status"] == "finished"
    assert config["preset"] == "mlp-small"
    assert config["epochs_done"] == 2
    assert config["command"] == shlex.join(["minicvae", "train", "mlp-small", "--data", bars, *QUICK])
    assert config["settings"]["learning_rate"] == 1e-3
    assert config["versions"]["minicvae"] == mc.__version__
    assert config["data"] == {
        "source": bars,
        "training_images": 60,
        "held_out_images": 0,
        "test_images": 30,
        "class_names": ["0", "1", "2"],
        "classes": [0, 1, 2],
    }

    history, model = run.history(), run.model("numpy")
    assert {len(column) for column in history.values()} == {2}
    assert config["model"] == model.config
    assert config["parameters"] == model.parameters.size
    x, y = digits(30, 1)
    assert config["test_losses"] == pytest.approx(model.evaluate(x, y), rel=1e-6)
    assert config["test_losses"]["loss"] == pytest.approx(history["val_loss"][-1], rel=1e-6)

    assert f"{model.parameters.size:,} parameters" in text
    assert "test images: loss" in text
    pictures = re.findall(r"^  (runs/mlp-small-1/figures/\w+\.png)$", text, re.MULTILINE)
    assert {"generated", "losses", "reconstructions"} <= {os.path.basename(path)[:-4] for path in pictures}
    assert sorted(pictures) == sorted(map(str, run.figures.iterdir()))
    for path in pictures:
        with open(path, "rb") as file:
            assert file.read(8) == b"\x89PNG\r\n\x1a\n"


@pytest.mark.usefixtures("without_pictures")
def test_without_a_terminal_there_is_a_line_an_epoch_and_no_control_character(bars, tmp_path, capsys):
    text = run_to_here(capsys, "train", "--data", bars, *QUICK, "--out", tmp_path / "run")
    assert [line[:10] for line in text.splitlines() if line.startswith("epoch")] == ["epoch 1/2 ", "epoch 2/2 "]
    assert all(character == "\n" or character.isprintable() for character in text)


@pytest.mark.usefixtures("without_pictures")
def test_a_quiet_training_prints_the_run_folder_only(bars, tmp_path, capsys):
    out = tmp_path / "run"
    assert run_to_here(capsys, "train", "--data", bars, *QUICK, "--out", out, "--quiet") == f"{out}\n"


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize(
    ("words", "place", "value"),
    [
        ("--latent-dim 3", "model latent_dim", 3),
        ("--beta 0.5", "model objective beta", 0.5),
        ("--free-bits 0.25", "model objective free_bits", 0.25),
        ("--dtype float64", "model dtype", "float64"),
        ("--learning-rate 0.01", "settings learning_rate", 0.01),
        ("--optimizer sgd", "settings optimizer", "sgd"),
        ("--clip-norm 2", "settings clip_norm", 2),
        ("--seed 5", "settings seed", 5),
        ("--limit 31", "data training_images", 31),
        ("--validation held-out", "data held_out_images", 10),
        ("--only-classes 2 0", "data classes", [0, 2]),
        ("--only-classes 1 --limit 15", "data test_images", 10),
    ],
)
def test_each_option_reaches_the_model_or_the_training(bars, tmp_path, words, place, value):
    plain = ["train", "mlp-small", "--data", bars, *QUICK, "--quiet"]
    assert main([*plain, *words.split(), "--out", str(tmp_path / "a")]) == 0
    assert main([*plain, "--out", str(tmp_path / "b")]) == 0
    found = Run.open(tmp_path / "a").config
    for key in place.split():
        found = found[key]
    assert found == value
    a, b = (Run.open(tmp_path / name) for name in "ab")
    assert a.history()["loss"] != b.history()["loss"] or a.model("numpy").dtype != "float32"


@pytest.mark.usefixtures("without_pictures")
def test_the_same_seed_is_the_same_model_and_another_another(bars, tmp_path):
    found = []
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        words = ["train", "mlp-small", "--data", bars, *QUICK, "--quiet", "--seed", seed, "--out", str(tmp_path / name)]
        assert main(words) == 0
        found.append(Run.open(tmp_path / name).model("numpy").parameters.value.tobytes())
    assert found[0] == found[1] != found[2]


@pytest.mark.usefixtures("without_pictures")
def test_the_command_trains_as_the_library_does(bars, tmp_path):
    words = [
        "train",
        "mlp-small",
        "--data",
        bars,
        *QUICK,
        "--quiet",
        "--seed",
        "3",
        "--beta",
        "0.5",
        "--clip-norm",
        "9",
    ]
    assert main([*words, "--optimizer", "adamw", "--out", str(tmp_path / "run")]) == 0
    model = mc.build("mlp-small", image_shape=SIZE, classes=3, beta=0.5, seed=3, device="numpy")
    settings = {"epochs": 2, "batch_size": 20, "seed": 3, "clip_norm": 9, "optimizer": "adamw", "verbose": 0}
    history = model.fit(*digits(60, 0), validation_data=digits(30, 1), **settings).history
    run = Run.open(tmp_path / "run")
    assert run.model("numpy").parameters.value.tobytes() == model.parameters.value.tobytes()
    assert run.history() | {"seconds": None} == history | {"seconds": None}


@pytest.mark.usefixtures("without_pictures")
def test_the_presets_protocol_is_the_default(bars, tmp_path, monkeypatch):
    monkeypatch.setattr(
        train_module, "_fit", lambda model, data, record, history, verbose: history.append({"seconds": 0})
    )
    assert (
        main(["train", "latent2d", "--data", bars, "--quiet", "--device", "numpy", "--out", str(tmp_path / "run")]) == 0
    )
    settings = Run.open(tmp_path / "run").config["settings"]
    assert (settings["epochs"], settings["batch_size"]) == (20, 50)


@pytest.mark.usefixtures("without_pictures")
def test_patience_stops_by_held_out_images_and_keeps_the_best_model(bars, tmp_path, capsys):
    words = [
        "train",
        "mlp-small",
        "--data",
        bars,
        *QUICK,
        "--epochs",
        "9",
        "--patience",
        "2",
        "--learning-rate",
        "1e-30",
    ]
    text = run_to_here(capsys, *words, "--out", tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert run.config["status"] == "stopped early"
    assert run.config["epochs_done"] == len(run.history()["loss"]) == 3
    assert run.config["data"]["held_out_images"] == 10
    assert run.config["data"]["training_images"] == 50
    assert "10 training images held out" in text


@pytest.mark.usefixtures("without_pictures")
def test_patience_keeps_the_model_of_the_best_epoch(bars, tmp_path, monkeypatch):
    class Spoil(train_module.Recorder):
        def on_train_begin(self, model, plan):
            self.model = model

        def on_step_end(self, epoch, step, losses):
            if epoch == 2:
                self.model.parameters["decoder.2.b"] = self.model.parameters["decoder.2.b"] + 3

    monkeypatch.setattr(train_module, "Recorder", Spoil)
    words = ["train", "mlp-small", "--data", bars, *QUICK, "--epochs", "5", "--patience", "2", "--quiet"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    run = Run.open(tmp_path / "run")
    losses = run.history()["val_loss"]
    assert losses[1] < min(losses[0], *losses[2:])
    x, y = digits(60, 0)
    assert run.model("numpy").evaluate(x[50:], y[50:])["loss"] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize(("how", "rises"), [("linear", 1), ("cyclical", 4)])
def test_kl_annealing_raises_the_weight_from_nothing_to_beta(bars, tmp_path, how, rises):
    words = ["train", "mlp-small", "--data", bars, *QUICK, "--epochs", "40", "--batch-size", "60", "--beta", "2"]
    assert main([*words, "--kl-annealing", how, "--quiet", "--out", str(tmp_path / "run")]) == 0
    beta = Run.open(tmp_path / "run").history()["beta"]
    assert beta[0] == 0
    assert beta[-1] == 2
    assert sum(weight == 0 for weight in beta) == rises


@pytest.mark.usefixtures("without_pictures")
def test_a_finished_run_is_replaced_only_when_asked_for(bars, tmp_path, capsys):
    words = ["train", "mlp-small", "--data", bars, *QUICK, "--quiet", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    before = (tmp_path / "run" / "config.json").read_bytes()
    assert main([*words, "--seed", "1"]) == 1
    assert "already holds a run" in capsys.readouterr().err
    assert (tmp_path / "run" / "config.json").read_bytes() == before
    assert main([*words, "--seed", "1", "--overwrite"]) == 0
    assert Run.open(tmp_path / "run").config["settings"]["seed"] == 1
    assert len(Run.open(tmp_path / "run").history()["loss"]) == 2


def test_attributes_are_standardised_on_the_training_images(of_attributes):
    entry = of_attributes.config["data"]["attributes"]
    measured = attributes(digits(60, 0)[0])
    assert entry["names"] == list(ATTRIBUTES)
    assert entry["mean"] == pytest.approx(measured.mean(axis=0).tolist(), rel=1e-5)
    assert entry["scale"] == pytest.approx(measured.std(axis=0).tolist(), rel=1e-4)


@pytest.mark.parametrize("only", [(), ("0", "2")])
@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.parametrize(("limit", "held_out"), [(None, False), (7, True), (None, True)])
def test_a_run_has_the_same_images_again_from_its_config(bars, only, measured, limit, held_out):
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


def test_ctrl_c_keeps_model_and_losses_and_ends_with_130(bars, tmp_path):
    words = ["train", "mlp-small", "--data", bars, "--device", "numpy", "--epochs", "1000000", "--out", "run"]
    child = subprocess.Popen(
        [sys.executable, "-m", "minicvae", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while child.poll() is None and not (tmp_path / "run" / "metrics.csv").exists():
            time.sleep(0.05)
        time.sleep(0.2)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=30)
    finally:
        child.kill()
    assert child.returncode == 130, err
    run = Run.open(tmp_path / "run")
    done = run.config["epochs_done"]
    assert err == (
        f"interrupted: the model so far is in run ({done} of 1000000 epochs done)\n"
        "to draw the pictures: minicvae plot run\n"
    )
    assert run.config["status"] == "interrupted"
    assert done == len(run.history()["loss"]) == sum(line.startswith("epoch") for line in out.splitlines()) > 0
    model = run.model("numpy")
    assert all(np.isfinite(value).all() for value in model.parameters.values())
    assert list(run.figures.iterdir()) == []


def test_ctrl_c_within_an_epoch_keeps_the_weights_of_that_step(bars, tmp_path, capsys, monkeypatch):
    class Press(train_module.Recorder):
        def on_train_begin(self, model, plan):
            self.model = model

        def on_step_end(self, epoch, step, losses):
            if (epoch, step) == (1, 1):
                self.weights = self.model.parameters.value.copy()
                made.append(self)
                raise KeyboardInterrupt

    made = []
    monkeypatch.setattr(train_module, "Recorder", Press)
    assert main(["train", "mlp-small", "--data", bars, *QUICK, "--out", str(tmp_path / "run")]) == 130
    assert "1 of 2 epochs done" in capsys.readouterr().err
    run = Run.open(tmp_path / "run")
    assert run.config["status"] == "interrupted"
    np.testing.assert_array_equal(run.model("numpy").parameters.value, made[0].weights)


def test_ctrl_c_while_the_pictures_are_drawn_loses_nothing(bars, tmp_path, capsys, monkeypatch):
    def interrupted(record, model, data):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_module, "draw", interrupted)
    assert main(["train", "mlp-small", "--data", bars, *QUICK, "--out", str(tmp_path / "run")]) == 130
    assert "2 of 2 epochs done" in capsys.readouterr().err
    run = Run.open(tmp_path / "run")
    assert run.config["status"] == "finished"
    assert run.config["test_losses"]["loss"] > 0
    assert run.model("numpy").preset == "mlp-small"


def test_ctrl_c_elsewhere_is_a_line_and_130(capsys, monkeypatch):
    def interrupted(*args, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_module, "prepare", interrupted)
    assert main(["train"]) == 130
    assert capsys.readouterr().err == "minicvae: interrupted\n"


def test_a_loss_that_is_no_number_ends_with_1_and_without_a_model(bars, tmp_path, capsys):
    words = ["train", "mlp-small", "--data", bars, *QUICK, "--learning-rate", "1e30", "--optimizer", "sgd"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 1
    err = capsys.readouterr().err
    assert re.match(r"minicvae: error: epoch 1, step 2: the loss is .*no model, for no epoch was good\n$", err)
    run = Run.open(tmp_path / "run")
    assert run.config["status"] == "failed"
    assert main(["plot", str(run.folder)]) == 1
    assert "holds no model: its training is failed" in capsys.readouterr().err


def test_a_loss_that_is_no_number_later_leaves_the_last_good_model(bars, tmp_path, capsys, monkeypatch):
    class Poison(train_module.Recorder):
        def on_epoch_end(self, model, epoch, logs):
            super().on_epoch_end(model, epoch, logs)
            if epoch == 1:
                model.parameters.value[...] = np.nan

    monkeypatch.setattr(train_module, "Recorder", Poison)
    words = ["train", "mlp-small", "--data", bars, *QUICK, "--epochs", "5", "--out", str(tmp_path / "run")]
    assert main(words) == 1
    assert "holds the losses so far and the model of the last good epoch" in capsys.readouterr().err
    run = Run.open(tmp_path / "run")
    assert run.config["epochs_done"] == len(run.history()["loss"]) == 2
    x, y = digits(30, 1)
    assert run.model("numpy").evaluate(x, y)["loss"] == pytest.approx(run.history()["val_loss"][-1], rel=1e-6)


def test_generate_draws_ten_of_each_class_by_default(of_classes, tmp_path, capsys):
    text = run_to_here(capsys, "generate", of_classes.folder, "--device", "numpy", "--out", tmp_path / "a.npz")
    assert text == f"{tmp_path / 'a.npz'}\n"
    with np.load(tmp_path / "a.npz") as file:
        np.testing.assert_array_equal(file["c"], [0, 1, 2] * 10)
        np.testing.assert_array_equal(file["x"], of_classes.model("numpy").generate([0, 1, 2] * 10, seed=0))


def test_generate_draws_what_is_asked_for_in_order(of_classes, tmp_path, capsys):
    words = (
        "--classes",
        "2",
        "2",
        "0",
        "--count",
        "2",
        "--seed",
        "4",
        "--device",
        "numpy",
        "--out",
        tmp_path / "a.npz",
    )
    run_to_here(capsys, "generate", of_classes.folder, *words)
    with np.load(tmp_path / "a.npz") as file:
        assert file["c"].tolist() == [2, 2, 0, 2, 2, 0]
        np.testing.assert_array_equal(file["x"], of_classes.model("numpy").generate([2, 2, 0, 2, 2, 0], seed=4))


def test_generate_takes_attributes_as_they_are_measured(of_attributes, tmp_path, capsys):
    words = (
        "--condition",
        "slant=0.25, ink-area=12",
        "--condition",
        "",
        "--device",
        "numpy",
        "--out",
        tmp_path / "a.npz",
    )
    run_to_here(capsys, "generate", of_attributes.folder, *words)
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
def test_generate_makes_pictures(of_classes, capsys, words):
    text = run_to_here(capsys, "generate", of_classes.folder, *words, "--device", "numpy")
    assert text == f"{of_classes.folder / 'generated.png'}\n"
    assert (of_classes.folder / "generated.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_wish_a_model_of_attributes_draws_each_from_low_to_high(of_attributes, tmp_path, capsys):
    run_to_here(
        capsys, "generate", of_attributes.folder, "--device", "numpy", "--out", tmp_path / "a.npz", "--count", 1
    )
    run_to_here(capsys, "generate", of_attributes.folder, "--device", "numpy", "--out", tmp_path / "a.png")
    entry = of_attributes.config["data"]["attributes"]
    with np.load(tmp_path / "a.npz") as file:
        c = (file["c"] - entry["mean"]) / entry["scale"]
    steps = len(c) // 5
    for j in range(5):
        expected = np.zeros((steps, 5))
        expected[:, j] = np.linspace(-2, 2, steps)
        np.testing.assert_allclose(c[j * steps : (j + 1) * steps], expected, atol=1e-6)


def test_reconstruct_shows_test_images_beside_what_the_model_makes_of_them(of_classes, tmp_path, capsys):
    words = ("--indices", "4", "0", "4", "--device", "numpy", "--out", tmp_path / "a.npz")
    run_to_here(capsys, "reconstruct", of_classes.folder, *words)
    x, y = digits(30, 1)
    with np.load(tmp_path / "a.npz") as file:
        np.testing.assert_array_equal(file["x"], x[[4, 0, 4]])
        np.testing.assert_array_equal(file["c"], y[[4, 0, 4]])
        expected = of_classes.model("numpy").reconstruct(x[[4, 0, 4]], y[[4, 0, 4]])
        np.testing.assert_array_equal(file["reconstruction"], expected)


def test_reconstruct_makes_a_picture_also_of_measured_images(of_attributes, capsys):
    text = run_to_here(capsys, "reconstruct", of_attributes.folder, "--device", "numpy")
    assert text == f"{of_attributes.folder / 'reconstructed.png'}\n"
    assert (of_attributes.folder / "reconstructed.png").read_bytes().startswith(b"\x89PNG")


def test_evaluate_measures_each_part_of_the_data(of_classes, capsys):
    table = run_to_here(capsys, "evaluate", of_classes.folder, "--device", "numpy")
    results = json.loads(run_to_here(capsys, "evaluate", of_classes.folder, "--device", "numpy", "--json"))
    assert {name: result["images"] for name, result in results.items()} == {"training": 50, "held-out": 10, "test": 30}
    assert results["held-out"]["loss"] == pytest.approx(of_classes.history()["val_loss"][-1], rel=1e-6)
    expected = of_classes.model("numpy").evaluate(*digits(30, 1))
    assert results["test"] == {"images": 30, **expected}
    assert results["test"] | {"images": None} == of_classes.config["test_losses"] | {"images": None}
    for name, result in results.items():
        numbers = rf"{result['images']} +{result['loss']:.2f} +{result['reconstruction']:.2f} +{result['kl']:.2f}"
        assert re.search(rf"^{name} +{numbers}$", table, re.MULTILINE)


def test_evaluate_takes_other_data_and_an_attribute_stays_what_it_was(of_attributes, tmp_path, capsys):
    (x, y), other = digits(100, 2), tmp_path / "other.npz"
    np.savez(other, x_train=x[10:], y_train=y[10:], x_test=x[:10], y_test=y[:10])
    words = ("--data", other, "--json", "--device", "numpy")
    results = json.loads(run_to_here(capsys, "evaluate", of_attributes.folder, *words))
    entry = of_attributes.config["data"]["attributes"]
    c = (attributes(x[:10]) - entry["mean"]) / entry["scale"]
    assert {name: result["images"] for name, result in results.items()} == {"training": 90, "test": 10}
    assert results["test"]["loss"] == pytest.approx(of_attributes.model("numpy").evaluate(x[:10], c)["loss"], rel=1e-4)


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


def test_pictures_show_test_images_and_all_that_is_known_of_them(of_classes, monkeypatch, capsys):
    seen = {}

    def draw_all(model, x, c, folder, **settings):
        seen.update(settings, x=x, c=c, folder=folder)
        return []

    monkeypatch.setattr("minicvae.plots.draw_all", draw_all)
    run_to_here(capsys, "plot", of_classes.folder, "--device", "numpy", "--seed", "3")
    x, y = digits(30, 1)
    np.testing.assert_array_equal(seen["x"], x)
    np.testing.assert_array_equal(seen["c"], y)
    assert seen["folder"] == of_classes.figures
    assert seen["history"] == of_classes.history()
    assert (seen["names"], seen["seed"], seen["label"]) == (("0", "1", "2"), 3, 0)


def test_plot_draws_every_picture_anew(of_classes, capsys):
    before = sorted(of_classes.figures.iterdir())
    assert before
    for path in before:
        path.unlink()
    text = run_to_here(capsys, "plot", of_classes.folder, "--device", "numpy")
    assert sorted(of_classes.figures.iterdir()) == before == sorted(map(type(before[0]), text.splitlines()))


def test_summary_knows_presets_and_runs(of_classes, capsys):
    assert "total       551,728 parameters" in run_to_here(capsys, "summary", "mlp", "--device", "numpy")
    text = run_to_here(capsys, "summary", of_classes.folder, "--device", "numpy")
    assert f"{of_classes.config['parameters']:,} parameters" in text
    assert f"Dense({8 * 8 + 3}, 256, relu)" in text


def test_presets_are_listed_with_their_sizes_within_80_columns(capsys):
    text = run_to_here(capsys, "presets")
    assert max(map(len, text.splitlines())) <= 80
    for name, preset in PRESETS.items():
        (row,) = re.findall(rf"^{name} .*$", text, re.MULTILINE)
        _, latent, _, epochs, batch, *_ = row.split()
        assert (latent, epochs, batch) == (str(preset.latent_dim), str(preset.epochs), str(preset.batch_size))
    assert "843,092" in text
    words = " ".join(text.split())
    assert all(word in words for preset in PRESETS.values() for word in preset.summary.split())


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("trian", 2, "there is no command 'trian'; did you mean 'train'?"),
        ("--versoin", 2, "there is no option --versoin; did you mean '--version'?"),
        ("train mpl", 2, "did you mean 'mlp'?"),
        ("train --epcohs 3", 2, "there is no option --epcohs; did you mean '--epochs'?"),
        ("train --epoch 3", 2, "there is no option --epoch; did you mean '--epochs'?"),
        ("train mlp mlp", 2, "unrecognized arguments: mlp"),
        ("train --epochs -3", 2, "--epochs: expected a whole number of at least 1, got '-3'"),
        ("train --epochs 0", 2, "--epochs: expected a whole number of at least 1, got '0'"),
        ("train --epochs many", 2, "--epochs: expected a whole number of at least 1, got 'many'"),
        ("train --seed -1", 2, "--seed: expected a whole number of at least 0, got '-1'"),
        ("train --learning-rate 0", 2, "--learning-rate: expected a number above 0, got '0'"),
        ("train --beta nan", 2, "--beta: expected a number of at least 0, got 'nan'"),
        ("train --kl-annealing liner", 2, "did you mean 'linear'?"),
        ("train --device gpu", 2, "did you mean 'cpu'?"),
        ("train --patience 2 --validation test", 2, "--patience: it chooses the model, which the test images must not"),
        ("train --data fashon-mnist", 1, "there is no 'fashon-mnist'"),
        ("train --data {empty}", 1, "lacks train-images-idx3-ubyte"),
        ("train --data {text}", 1, "is neither a folder of IDX files nor an .npz file"),
        ("train --data {broken}", 1, "broken.npz: not an .npz file"),
        ("train --data {bars} --only-classes 7", 1, "there is no class '7'; expected 0, 1, 2"),
        ("train --data {bars} --out {text}", 1, "notes.txt is a file, not a folder"),
        ("train --data {bars} --out {empty}/..", 1, "and no run; choose another folder"),
        ("train --data {bars} --out {classes}", 1, "already holds a run"),
        ("train --data {bars} --device numpy --out {text}/run", 1, "Not a directory"),
        ("generate", 2, "the following arguments are required: RUN"),
        ("generate {classes}x", 1, "there is no run folder"),
        ("generate {empty}", 1, "is no run folder: it has no config.json"),
        ("generate {classes} --out a.jpg", 2, "expected a name that ends in .png or .npz, got 'a.jpg'"),
        ("generate {classes} --classes 3", 1, "there is no class '3'; expected 0, 1, 2"),
        ("generate {classes} --condition slant=1", 2, "--condition: the model of {classes} knows classes"),
        ("generate {attributes} --classes 1", 2, "--classes: the model of {attributes} knows attributes"),
        ("generate {attributes} --condition slnat=1", 2, "got 'slnat=1'; did you mean 'slant'?"),
        ("generate {attributes} --condition slant=x", 2, "expected a number for slant, got 'x'"),
        ("generate {attributes} --condition slant=inf", 2, "expected a finite number for slant, got 'inf'"),
        ("generate {classes} --out {text}/a.png", 1, "File exists"),
        ("reconstruct {classes} --indices 30", 1, "expected 0 to 29, the test images there are, got 30"),
        ("reconstruct {classes} --data mnist", 1, "expected images of shape (n, 64)"),
        ("evaluate {classes} --data nowhere", 1, "there is no 'nowhere'"),
        ("plot {empty}/no", 1, "there is no run folder"),
        ("summary mpl", 1, "there is neither a preset nor a run 'mpl'; did you mean 'mlp'?"),
        ("summary {empty}", 1, "is no run folder"),
        ("presets mlp", 2, "unrecognized arguments: mlp"),
    ],
)
def test_an_error_is_one_line_that_says_what_to_do(
    of_classes, of_attributes, bars, tmp_path, capsys, monkeypatch, words, status, said
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 and nothing more")
    places = {
        "bars": bars,
        "classes": of_classes.folder,
        "attributes": of_attributes.folder,
        "empty": tmp_path / "empty",
        "text": tmp_path / "notes.txt",
        "broken": tmp_path / "broken.npz",
    }
    device = (
        [] if "--device" in words or words.split()[0] in ("trian", "--versoin", "presets") else ["--device", "numpy"]
    )
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    assert main([*words.format(**places).split(), *device]) == status
    err = capsys.readouterr().err
    assert said.format(**places) in err
    assert re.fullmatch(r"minicvae( \w+)?: error: .+\n", err)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_device_that_is_not_there_is_said(bars, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    mc.kernels.load.cache_clear()
    with pytest.raises(RuntimeError, match="CuPy is not installed") as missing:
        mc.kernels.load("cuda")
    assert main(["train", "--data", bars, "--device", "cuda", "--out", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err == f"minicvae: error: {missing.value}\n"
    assert not (tmp_path / "run").exists()


def test_the_traceback_is_there_for_who_wants_it(monkeypatch):
    monkeypatch.setenv("MINICVAE_DEBUG", "1")
    with pytest.raises(FileNotFoundError, match="there is no run folder"):
        main(["plot", "nowhere"])


def test_a_reader_who_has_had_enough_is_no_error():
    command = f"{shlex.quote(sys.executable)} -m minicvae presets | true"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_in_a_terminal_of_80_columns_no_line_is_longer_or_cut(bars, tmp_path):
    words = ["train", "--data", bars, "--device", "numpy", "--epochs", "5000", "--out", "run"]
    terminal, end = pty.openpty()
    environment = os.environ | {"COLUMNS": "80", "LINES": "24", "TERM": "xterm"}
    child = subprocess.Popen(
        [sys.executable, "-m", "minicvae", *words], cwd=tmp_path, stdout=end, stderr=end, env=environment
    )
    os.close(end)
    screen = b""
    try:
        while not (b"images/s" in screen and b"  12/5000  loss" in screen) and (part := _read(terminal)):
            screen += part
        child.send_signal(signal.SIGINT)
        while part := _read(terminal):
            screen += part
        assert child.wait(timeout=30) == 130
    finally:
        child.kill()
        os.close(terminal)
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", screen.decode())
    lines = re.split(r"[\r\n]+", text)
    bars_drawn = [line for line in lines if "━" in line]
    assert any(re.search(r"loss \d+\.\d\d  KL \d+\.\d\d  [\d,]+ images/s \d\d:\d\d left$", line) for line in bars_drawn)
    assert any(re.fullmatch(r"epoch   12/5000  loss .* = .* \+ KL .*  val .* s", line) for line in lines)
    assert max(len(line) for line in lines if line.startswith("epoch")) <= 80
    assert "…" not in text


def _read(terminal):
    """What a terminal shows next; nothing once the other end is closed."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


@given(value=st.integers(), least=st.integers(0, 3))
def test_a_whole_number_is_taken_if_it_is_large_enough(value, least):
    if value >= least:
        assert at_least(least)(str(value)) == value
    else:
        with pytest.raises(Exception, match=f"at least {least}"):
            at_least(least)(str(value))


@given(value=st.floats(), zero=st.booleans())
def test_a_number_is_taken_if_it_is_finite_and_not_negative(value, zero):
    if (0 < value < np.inf) or (zero and value == 0):
        assert number(zero=zero)(repr(value)) == value
    else:
        with pytest.raises(Exception, match="expected a number"):
            number(zero=zero)(repr(value))


@given(values=st.dictionaries(st.sampled_from(ATTRIBUTES), st.floats(allow_nan=False, allow_infinity=False)))
def test_a_condition_is_read_as_it_is_written(values):
    assert measures(", ".join(f"{name} = {value!r}" for name, value in values.items())) == values
    assert measures(",".join(f"{name.upper().replace(' ', '_')}={value!r}" for name, value in values.items())) == values


@given(labels=st.lists(st.integers(0, 3), max_size=6))
def test_classes_are_meant_by_name_or_number(labels):
    names = ("Ankle boot", "2", "bag", "Ä")
    assert class_numbers([names[k] for k in labels], names) == labels
    assert class_numbers([names[k].upper() for k in labels], names) == labels
    assert class_numbers([str(k) for k in labels if k != 2], names) == [k for k in labels if k != 2]


def test_compilation_is_announced_once(capsys, monkeypatch):
    from numba.core import event

    listeners = []
    monkeypatch.setattr(event, "register", lambda kind, listener: listeners.append((kind, listener)))
    announce_compilation.cache_clear()
    announce_compilation("numpy")
    assert listeners == []
    announce_compilation("cpu")
    announce_compilation("cpu")
    ((kind, listener),) = listeners
    listener.on_start(None)
    listener.on_start(None)
    assert kind == "numba:compile"
    assert capsys.readouterr().err.count("compiling the kernels") == 1
