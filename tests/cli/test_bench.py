"""`minicvae bench`."""

import json
import sys

import pytest

from minicvae.bench import race as module
from minicvae.cli import bench, main


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.0)


def test_a_table_is_printed_and_everything_that_was_measured_is_written(tmp_path, capsys):
    file = tmp_path / "speed.json"
    assert main(["bench", "mlp-small", "--batch-size", "64", "--rounds", "2", "--json", str(file)]) == 0
    text = capsys.readouterr().out
    assert "mlp-small, batches of 64:" in text
    assert "evaluating 10,000 images: minicvae" in text
    content = json.loads(file.read_text())
    (result,) = content["results"]
    assert len(result["seconds"]["minicvae"]["step"]) == 2
    assert content["machine"]["product_rate"] > 0
    assert 0 < result["floor_seconds"] < 10


def test_a_library_without_such_a_model_is_said_to_have_none(capsys):
    assert main(["bench", "vector", "--rounds", "1", "--batch-size", "16", "--against", "jax"]) == 0
    assert "vector: jax has no such model here" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["import nothing_of_that_name", "print('ready'); input()"])
def test_a_library_that_is_not_installed_makes_the_exit_status_1(tmp_path, capsys, monkeypatch, command):
    class Absent(module.Contestant):
        def work(self, task, n):
            return 0.1

    def peers(library, *given):
        return [Absent(f"{library} eager", [sys.executable, "-c", command])]

    monkeypatch.setattr("minicvae.cli.bench.peers", peers)
    file = tmp_path / "speed.json"
    absent = "nothing" in command
    words = ["bench", "mlp-small", "--rounds", "1", "--batch-size", "16", "--against", "torch", "--json", str(file)]
    assert main(words) == absent
    err = capsys.readouterr().err
    assert ("torch could not be measured: ModuleNotFoundError" in err) == ("pip install" in err) == absent
    (result,) = json.loads(file.read_text())["results"]
    assert ("torch eager" in result["seconds"], "torch eager" in result["left_out"]) == (not absent, absent)


def test_what_is_absent_is_told_preset_by_preset_and_why():
    there = {"seconds": {"minicvae": {}, "torch eager": {}}, "left_out": {"torch compile": "no compiler"}}
    gone = {"seconds": {"minicvae": {}}, "left_out": {"torch eager": "no memory", "jax jit": "no disk"}}
    assert bench._absent(there) == {}
    assert bench._absent(gone) == {"torch": "no memory", "jax": "no disk"}
    assert bench._absent({"kernels": []}) == {}


def test_the_profile_shows_the_kernels(capsys):
    assert main(["bench", "mlp-small", "--batch-size", "16", "--profile"]) == 0
    text = capsys.readouterr().out
    assert "dense_backward" in text
    assert "of the best" in text
