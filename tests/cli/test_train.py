"""`minicvae train`: what it leaves behind, what its options do, and how it can be interrupted."""

import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import minicvae as mc
from minicvae.cli import main
from minicvae.cli import train as train_module
from minicvae.datasets import binarise
from minicvae.description import describe
from minicvae.objectives import ELBO
from minicvae.runs import OURS, Run


def test_a_training_leaves_a_whole_run_folder_and_says_where(digits, bars, quick, tmp_path, run_to_here, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = run_to_here("train", "mlp-small", "--data", bars, *quick)
    run = Run.open("runs/mlp-small-1")

    config = run.config
    assert config["status"] == "finished"
    assert config["preset"] == "mlp-small"
    assert config["epochs_done"] == 2
    assert config["command"] == shlex.join(["minicvae", "train", "mlp-small", "--data", bars, *quick])
    assert config["settings"]["learning_rate"] == 1e-3
    assert config["versions"]["minicvae"] == mc.__version__
    assert config["data"] == {
        "source": bars,
        "training_images": 60,
        "held_out_images": 0,
        "test_images": 30,
        "pixels": "grey",
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
def test_without_a_terminal_there_is_a_line_an_epoch_and_no_control_character(bars, quick, tmp_path, run_to_here):
    text = run_to_here("train", "--data", bars, *quick, "--out", tmp_path / "run")
    assert [line[:10] for line in text.splitlines() if line.startswith("epoch")] == ["epoch 1/2 ", "epoch 2/2 "]
    assert all(character == "\n" or character.isprintable() for character in text)


@pytest.mark.usefixtures("without_pictures")
def test_a_quiet_training_prints_the_run_folder_only(bars, quick, tmp_path, run_to_here):
    out = tmp_path / "run"
    assert run_to_here("train", "--data", bars, *quick, "--out", out, "--quiet") == f"{out}\n"


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
        ("--pixels static", "data pixels", "static"),
        ("--pixels dynamic", "data pixels", "dynamic"),
        ("--objective iwae", "model objective", {"type": "IWAE", "samples": 50, "beta": 1.0}),
        ("--objective iwae --samples 3 --beta 2", "model objective", {"type": "IWAE", "samples": 3, "beta": 2.0}),
        ("--samples 3", "model objective samples", 3),
        ("--validation held-out", "data held_out_images", 10),
        ("--only-classes 2 0", "data classes", [0, 2]),
        ("--only-classes 1 --limit 15", "data test_images", 10),
    ],
)
def test_each_option_reaches_the_model_or_the_training(bars, quick, tmp_path, words, place, value):
    plain = ["train", "mlp-small", "--data", bars, *quick, "--quiet"]
    assert main([*plain, *words.split(), "--out", str(tmp_path / "a")]) == 0
    assert main([*plain, "--out", str(tmp_path / "b")]) == 0
    found = Run.open(tmp_path / "a").config
    for key in place.split():
        found = found[key]
    assert found == value
    a, b = (Run.open(tmp_path / name) for name in "ab")
    assert a.history()["loss"] != b.history()["loss"] or a.model("numpy").dtype != "float32"


@pytest.mark.usefixtures("without_pictures")
def test_the_same_seed_is_the_same_model_and_another_another(bars, quick, tmp_path):
    found = []
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        words = ["train", "mlp-small", "--data", bars, *quick, "--quiet", "--seed", seed, "--out", str(tmp_path / name)]
        assert main(words) == 0
        found.append(Run.open(tmp_path / name).model("numpy").parameters.value)
    one, same, other = found
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.usefixtures("without_pictures")
def test_the_command_trains_as_the_library_does(digits, bars, quick, tmp_path):
    words = ["train", "mlp-small", "--data", bars, *quick, "--quiet", "--out", str(tmp_path / "run")]
    assert main([*words, "--seed", "3", "--beta", "0.5", "--clip-norm", "9", "--optimizer", "adamw"]) == 0
    model = mc.build("mlp-small", image_shape=(8, 8), classes=3, beta=0.5, seed=3, device="numpy")
    settings = {"epochs": 2, "batch_size": 20, "seed": 3, "clip_norm": 9, "optimizer": "adamw", "verbose": 0}
    history = model.fit(*digits(60, 0), validation_data=digits(30, 1), **settings).history
    run = Run.open(tmp_path / "run")
    np.testing.assert_array_equal(run.model("numpy").parameters.value, model.parameters.value)
    assert run.history() | {"seconds": None} == history | {"seconds": None}


@pytest.mark.usefixtures("without_pictures")
def test_a_run_is_trained_and_measured_on_the_pixels_that_were_asked_for(digits, bars, quick, tmp_path):
    out = tmp_path / "run"
    assert (
        main(["train", "mlp-small", "--data", bars, *quick, "--quiet", "--pixels", "dynamic", "--out", str(out)]) == 0
    )
    model = mc.build("mlp-small", image_shape=(8, 8), classes=3, device="numpy")
    model.fit(*digits(60, 0), epochs=2, batch_size=20, verbose=0, binarise=True)
    np.testing.assert_array_equal(Run.open(out).model("numpy").parameters.value, model.parameters.value)
    x, y = digits(30, 1)
    assert Run.open(out).config["test_losses"] == pytest.approx(model.evaluate(binarise(x), y), rel=1e-6)


@pytest.mark.usefixtures("without_pictures")
def test_the_presets_protocol_is_the_default(bars, tmp_path, monkeypatch):
    monkeypatch.setattr(train_module, "_fit", lambda model, data, record, history, until, verbose: None)
    words = ["train", "latent2d", "--data", bars, "--quiet", "--device", "numpy"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    settings = Run.open(tmp_path / "run").config["settings"]
    assert (settings["epochs"], settings["batch_size"]) == (20, 50)


@pytest.mark.usefixtures("without_pictures")
def test_patience_stops_by_held_out_images_and_keeps_the_best_model(bars, quick, tmp_path, run_to_here):
    words = ["train", "mlp-small", "--data", bars, *quick, "--out", tmp_path / "run"]
    text = run_to_here(*words, "--epochs", "9", "--patience", "2", "--learning-rate", "1e-30")
    run = Run.open(tmp_path / "run")
    assert run.config["status"] == "stopped early"
    assert run.config["epochs_done"] == len(run.history()["loss"]) == 3
    assert run.config["data"]["held_out_images"] == 10
    assert run.config["data"]["training_images"] == 50
    assert "10 training images held out" in text


@pytest.mark.usefixtures("without_pictures")
def test_patience_keeps_the_model_of_the_best_epoch(digits, bars, quick, tmp_path, monkeypatch):
    class Spoil(train_module.Recorder):
        def on_train_begin(self, model, plan):
            self.model = model

        def on_step_end(self, epoch, step, losses):
            if epoch == 2:
                self.model.parameters["decoder.2.b"] = self.model.parameters["decoder.2.b"] + 3

    monkeypatch.setattr(train_module, "Recorder", Spoil)
    words = ["train", "mlp-small", "--data", bars, *quick, "--epochs", "5", "--patience", "2", "--quiet"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    run = Run.open(tmp_path / "run")
    losses = run.history()["val_loss"]
    assert losses[1] < min(losses[0], *losses[2:])
    x, y = digits(60, 0)
    assert run.model("numpy").evaluate(x[50:], y[50:])["loss"] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize(("how", "rises"), [("linear", 1), ("cyclical", 4)])
def test_kl_annealing_raises_the_weight_from_nothing_to_beta(bars, quick, tmp_path, how, rises):
    words = ["train", "mlp-small", "--data", bars, *quick, "--epochs", "40", "--batch-size", "60", "--beta", "2"]
    assert main([*words, "--kl-annealing", how, "--quiet", "--out", str(tmp_path / "run")]) == 0
    beta = Run.open(tmp_path / "run").history()["beta"]
    assert beta[0] == 0
    assert beta[-1] == 2
    assert sum(weight == 0 for weight in beta) == rises


@pytest.mark.usefixtures("without_pictures")
def test_a_finished_run_is_replaced_only_when_asked_for(bars, quick, tmp_path, capsys):
    words = ["train", "mlp-small", "--data", bars, *quick, "--quiet", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    before = (tmp_path / "run" / "config.json").read_bytes()
    assert main([*words, "--seed", "1"]) == 1
    assert "already holds a run; choose another folder, or --overwrite it" in capsys.readouterr().err
    assert (tmp_path / "run" / "config.json").read_bytes() == before
    for command in ("generate", "reconstruct"):
        assert main([command, str(tmp_path / "run"), "--device", "numpy"]) == 0
    assert main([*words, "--seed", "1", "--overwrite"]) == 0
    assert not list((tmp_path / "run").rglob("*.png"))
    assert Run.open(tmp_path / "run").config["settings"]["seed"] == 1
    assert len(Run.open(tmp_path / "run").history()["loss"]) == 2


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
        "to draw the pictures: minicvae plot run; to go on: the same command with --resume\n"
    )
    assert run.config["status"] == "interrupted"
    assert run.config["seconds"] == pytest.approx(sum(run.history()["seconds"]))
    assert done == len(run.history()["loss"]) == sum(line.startswith("epoch") for line in out.splitlines()) > 0
    model = run.model("numpy")
    assert all(np.isfinite(value).all() for value in model.parameters.values())
    assert list(run.figures.iterdir()) == []


def test_ctrl_c_within_an_epoch_keeps_the_weights_of_that_step(bars, quick, tmp_path, capsys, monkeypatch):
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
    assert main(["train", "mlp-small", "--data", bars, *quick, "--out", str(tmp_path / "run")]) == 130
    assert "1 of 2 epochs done" in capsys.readouterr().err
    run = Run.open(tmp_path / "run")
    assert run.config["status"] == "interrupted"
    np.testing.assert_array_equal(run.model("numpy").parameters.value, made[0].weights)


@pytest.mark.parametrize(("until", "done"), [([], 2), (["--until", "1"], 1)])
def test_ctrl_c_while_the_pictures_are_drawn_loses_nothing(bars, quick, tmp_path, capsys, monkeypatch, until, done):
    def interrupted(record, model, data):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_module, "draw", interrupted)
    assert main(["train", "mlp-small", "--data", bars, *quick, *until, "--out", str(tmp_path / "run")]) == 130
    more = "; to go on: the same command with --resume" if until else ""
    err = capsys.readouterr().err
    assert f"{done} of 2 epochs done" in err
    assert err.endswith(f"to draw the pictures: minicvae plot {tmp_path / 'run'}{more}\n")
    run = Run.open(tmp_path / "run")
    assert run.config["status"] == ("paused" if until else "finished")
    assert run.config["test_losses"]["loss"] > 0
    assert run.model("numpy").preset == "mlp-small"


def test_a_loss_that_is_no_number_ends_with_1_and_without_a_model(bars, quick, tmp_path, capsys):
    words = ["train", "mlp-small", "--data", bars, *quick, "--learning-rate", "1e30", "--optimizer", "sgd"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 1
    err = capsys.readouterr().err
    assert re.match(r"minicvae: error: epoch 1, step 2: the loss is .*no model, for no epoch was good\n$", err)
    run = Run.open(tmp_path / "run")
    assert run.config["status"] == "failed"
    assert main(["plot", str(run.folder)]) == 1
    assert "holds no model; status of its training: failed" in capsys.readouterr().err


def test_a_loss_that_is_no_number_later_leaves_the_last_good_model(digits, bars, quick, tmp_path, capsys, monkeypatch):
    class Poison(train_module.Recorder):
        def on_epoch_end(self, model, epoch, logs):
            super().on_epoch_end(model, epoch, logs)
            if epoch == 1:
                model.parameters.value[...] = np.nan

    monkeypatch.setattr(train_module, "Recorder", Poison)
    words = ["train", "mlp-small", "--data", bars, *quick, "--epochs", "5", "--out", str(tmp_path / "run")]
    assert main(words) == 1
    assert "holds the losses so far and the model of the last good epoch" in capsys.readouterr().err
    run = Run.open(tmp_path / "run")
    assert run.config["epochs_done"] == len(run.history()["loss"]) == 2
    x, y = digits(30, 1)
    assert run.model("numpy").evaluate(x, y)["loss"] == pytest.approx(run.history()["val_loss"][-1], rel=1e-6)


@pytest.mark.usefixtures("without_pictures")
def test_the_importance_weighted_protocol_is_the_presets_and_the_decoder_starts_at_the_mean(bars, tmp_path):
    words = ["train", "iwae", "--data", bars, "--device", "numpy", "--quiet", "--until", "1", "--out"]
    assert main([*words, str(tmp_path / "run"), "--objective", "elbo", "--samples", "3"]) == 0
    config, history = Run.open(tmp_path / "run").config, Run.open(tmp_path / "run").history()
    assert config["settings"]["learning_rate"] == {"type": "Tripling", "start": 1e-3, "stages": 8}
    assert config["settings"]["optimizer"]["epsilon"] == 1e-4
    assert (config["settings"]["epochs"], config["data"]["pixels"]) == (3280, "dynamic")
    assert config["model"]["objective"] == describe(ELBO(samples=3))
    with np.load(bars) as data:
        mean = data["x_train"].mean(axis=0).ravel() / 255
    bias = Run.open(tmp_path / "run").model("numpy").parameters["decoder.2.b"]
    np.testing.assert_allclose(bias, np.log(mean / (1 - mean)), atol=0.02)  # three steps of 1e-3 away
    assert history["learning_rate"] == [1e-3]


def test_all_files_that_a_run_leaves_are_known_as_its_own(of_classes, of_attributes):
    for run in (of_classes, of_attributes):
        files = [file.relative_to(run.folder).as_posix() for file in run.folder.rglob("*") if file.is_file()]
        assert "model.safetensors" in files
        assert [name for name in files if not OURS.fullmatch(name)] == []
