"""`minicvae train --until --resume`: a run goes on from its last whole epoch, to the same bytes as without a stop."""

import json
import os
import re
import subprocess
import sys
import time

import pytest

from minicvae.cli import main
from minicvae.runs import Run

ONE_THREAD = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # as in this process: rounding depends on it


def files(folder):
    """The bytes of all that a training computes; seconds are its own."""
    run = Run.open(folder)
    history = {name: column for name, column in run.history().items() if name != "seconds"}
    return (folder / "model.safetensors").read_bytes(), history, run.config["status"], run.config["test_losses"]


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("more", ["", "--patience 2", "--pixels dynamic --optimizer sgd --kl-annealing linear"])
def test_a_run_that_is_paused_and_resumed_ends_with_the_same_bytes(bars, quick, tmp_path, more):
    words = ["train", "mlp-small", "--data", bars, *quick, "--epochs", "6", "--quiet", *more.split(), "--out"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    for until in ("1", "4", "6"):
        assert main([*words, str(tmp_path / "parts"), "--resume", "--until", until]) == 0
        if until == "4":
            assert Run.open(tmp_path / "parts").config["status"] == "paused"
            assert Run.open(tmp_path / "parts").config["epochs_done"] == 4
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    assert main([*words, str(tmp_path / "parts"), "--resume"]) == 0  # nothing is left to be done
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


@pytest.mark.usefixtures("without_pictures")
def test_resume_says_from_where_it_goes_on(bars, quick, tmp_path, capsys):
    words = [
        "train",
        "mlp-small",
        "--data",
        bars,
        *quick,
        "--epochs",
        "1200",
        "--resume",
        "--out",
        str(tmp_path / "run"),
    ]
    for until, where in ((1, ", from the beginning"), (2, ", going on after epoch 1 of 1,200")):
        assert main([*words, "--until", str(until)]) == 0
        assert said(capsys) == f"  run folder  {tmp_path / 'run'}{where}"
    record = Run.open(tmp_path / "run")
    record.update(epochs_done=3)  # as where a process is killed between an epoch's model and its checkpoint
    assert main([*words, "--until", "3"]) == 0
    assert said(capsys).endswith(", going on after epoch 2 of 1,200")


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("more", ["", "--patience 1 --learning-rate 0.05 --epochs 40"])
def test_resume_says_so_where_nothing_is_left_to_train(bars, quick, tmp_path, capsys, more):
    words = ["train", "mlp-small", "--data", bars, *quick, *more.split(), "--resume", "--out", str(tmp_path / "run")]
    assert main(words) == main(words) == 0
    assert said(capsys).endswith(", trained already")


def said(capsys):
    """The last line about the run folder."""
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("  run folder")][-1]


@pytest.mark.usefixtures("without_pictures")
def test_a_run_that_is_killed_anywhere_resumes_to_the_same_bytes(bars, quick, tmp_path):
    words = ["train", "iwae", "--data", bars, *quick, "--epochs", "30", "--quiet", "--out"]
    for _ in range(3):
        command = [sys.executable, "-m", "minicvae", *words, str(tmp_path / "killed"), "--resume"]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ONE_THREAD)
        try:
            checkpoint = tmp_path / "killed" / "checkpoint.safetensors"
            before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
            while child.poll() is None and not (checkpoint.exists() and checkpoint.stat().st_mtime_ns > before):
                time.sleep(0.002)
        finally:
            child.kill()
            child.wait()
    assert Run.open(tmp_path / "killed").config["status"] == "running"
    for name in ("killed", "whole"):
        assert main([*words, str(tmp_path / name), "--resume"]) == 0
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


@pytest.mark.usefixtures("without_pictures")
def test_without_a_folder_the_last_run_of_the_preset_is_resumed_or_the_first_begun(bars, quick, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["train", "mlp-small", "--data", bars, *quick, "--quiet"]
    assert main([*words, "--resume", "--until", "1"]) == 0
    assert main([*words, "--seed", "1", "--until", "1"]) == 0
    assert main([*words, "--seed", "1", "--resume"]) == 0
    assert [Run.open(f"runs/mlp-small-{i}").config["status"] for i in (1, 2)] == ["paused", "finished"]
    assert not (tmp_path / "runs/mlp-small-3").exists()


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--epochs 3", "its settings had epochs 2, not 3"),
        ("--seed 1 --learning-rate 0.5", r"its settings had learning_rate 0\.001, not 0\.5; seed 0, not 1"),
        ("--pixels static", "its data had pixels grey, not static"),
        ("--latent-dim 3", "its model had .*latent_dim 16, not 3"),
    ],
)
def test_a_run_is_not_resumed_with_other_settings(bars, quick, tmp_path, capsys, words, message):
    command = ["train", "mlp-small", "--data", bars, *quick, "--quiet", "--out", str(tmp_path / "run")]
    assert main([*command, "--until", "1"]) == 0
    before = (tmp_path / "run" / "config.json").read_bytes()
    assert main([*command, "--resume", *words.split()]) == 1
    out, err = capsys.readouterr()
    assert re.search(f"cannot be gone on with: {message}; it was begun by `minicvae train mlp-small .* --until 1`", err)
    assert out.splitlines()[1:] == []  # no plan
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_resume_and_overwrite_contradict_each_other(bars, quick, tmp_path, capsys):
    assert main(["train", "mlp-small", "--data", bars, *quick, "--resume", "--overwrite"]) == 2
    assert "argument --resume: goes on with the run that --overwrite deletes" in capsys.readouterr().err


@pytest.mark.usefixtures("without_pictures")
def test_a_run_whose_checkpoint_is_gone_is_not_trained_anew(bars, quick, tmp_path, capsys):
    words = ["train", "mlp-small", "--data", bars, *quick, "--quiet", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    (tmp_path / "run" / "checkpoint.safetensors").unlink()
    before = (tmp_path / "run" / "model.safetensors").read_bytes(), (tmp_path / "run" / "config.json").read_bytes()
    assert main([*words, "--resume"]) == 1
    assert "2 epochs are done and checkpoint.safetensors is missing" in capsys.readouterr().err
    assert before == (
        (tmp_path / "run" / "model.safetensors").read_bytes(),
        (tmp_path / "run" / "config.json").read_bytes(),
    )


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("what", ["checkpoint", "config", "preset"])
def test_a_run_that_cannot_be_gone_on_with_is_left_as_it_is(bars, quick, tmp_path, capsys, what):
    words = ["train", "mlp-small", "--data", bars, *quick, "--quiet", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    config = tmp_path / "run" / "config.json"
    if what == "checkpoint":
        (tmp_path / "run" / "checkpoint.safetensors").write_bytes(b"damaged")
        message = "checkpoint.safetensors is not a model file, or is damaged"
    elif what == "config":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"settings": [1]}))
        message = r"config.json is damaged: settings is \[1\]"
    else:
        words[1] = "mlp"
        message = "is a run of mlp-small, not of mlp$"
    before = config.read_bytes()
    assert main([*words, "--resume"]) == 1
    assert re.search(message, capsys.readouterr().err.strip(), re.M)
    assert config.read_bytes() == before
