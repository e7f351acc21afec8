"""What several commands do with a model."""

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
