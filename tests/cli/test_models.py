"""What several commands do with a model."""

import pytest

from minicvae.cli.models import announce_compilation


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
    assert capsys.readouterr().err.count("compiling kernels") == 1


def test_on_a_gpu_the_wait_for_the_compiler_is_said_before_unless_there_is_no_gpu(monkeypatch, capsys):
    announce_compilation.cache_clear()
    monkeypatch.setattr("minicvae.cli.models.load", lambda device: None)
    announce_compilation("cuda")
    assert "are compiled first" in capsys.readouterr().err

    def missing(device):
        raise RuntimeError(device)

    announce_compilation.cache_clear()
    monkeypatch.setattr("minicvae.cli.models.load", missing)
    with pytest.raises(RuntimeError, match="cuda"):
        announce_compilation("cuda")
    assert capsys.readouterr().err == ""
