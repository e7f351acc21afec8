"""`minicvae bench`."""

import json

import pytest

from minicvae.bench import race as module
from minicvae.cli import main


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


def test_the_profile_shows_the_kernels(capsys):
    assert main(["bench", "mlp-small", "--batch-size", "16", "--profile"]) == 0
    text = capsys.readouterr().out
    assert "dense_backward" in text
    assert "of the best" in text
