"""Compiled code on disk: kept, found again, and not used any more once a source has changed."""

import importlib.util
import signal
import subprocess
import sys
import threading
from contextlib import suppress

import pytest
from numba import config
from numba.core import caching, event

from minicvae.kernels import compiler


def halved(folder, text="x / 2", check=True):
    """A kernel that lies in a folder of its own, as a new process would load it."""
    (folder / "half.py").write_text(f"def half(x):\n    return {text}\n")
    spec = importlib.util.spec_from_file_location("half", folder / "half.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kernel = compiler.kernel(module.half)
    assert not check or kernel(3.0) == 1.5
    return kernel


@pytest.mark.parametrize("chosen", [False, True])
def test_what_is_compiled_is_kept_until_any_source_changes(tmp_path, monkeypatch, chosen):
    place = tmp_path / "chosen" if chosen else tmp_path / "__pycache__"
    monkeypatch.setattr(config, "CACHE_DIR", str(place) if chosen else "")
    first, second = halved(tmp_path), halved(tmp_path)
    assert (first.stats.cache_hits.total(), second.stats.cache_hits.total()) == (0, 1)
    monkeypatch.setattr(compiler, "sources", lambda: "another file of the kernels has changed")
    third, fourth = halved(tmp_path), halved(tmp_path)
    assert (third.stats.cache_hits.total(), fourth.stats.cache_hits.total()) == (0, 1)
    assert list(place.rglob("half.half-*.nbi"))


@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")
def test_what_is_compiled_is_out_of_date_when_its_own_file_is_another(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", "")
    for text, expected in (("x / 2", 1.5), ("x / 3", 1.0), ("x / 2", 1.5)):
        assert halved(tmp_path, text, check=False)(3.0) == expected
        assert len(list(tmp_path.rglob("half.half-*"))) == 2  # and what was compiled of others before is gone


@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_process_that_ends_between_index_and_code_leaves_no_old_code_in_its_place(tmp_path, monkeypatch, error):
    monkeypatch.setattr(config, "CACHE_DIR", "")
    halved(tmp_path)

    def fail(*given):
        raise error

    with monkeypatch.context() as broken, suppress(KeyboardInterrupt):
        broken.setattr(caching.IndexDataCacheFile, "_save_data", fail)
        assert halved(tmp_path, "x / 3", check=False)(3.0) == 1.0  # where there is no room it is computed all the same
    assert halved(tmp_path, "x / 3", check=False)(3.0) == 1.0


@pytest.mark.skipif(sys.platform == "win32", reason="there is no lock on Windows")
def test_where_there_are_no_locks_nobody_is_kept_out(tmp_path, monkeypatch):
    def refuse(*given):
        raise OSError("No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with compiler.only_writer(tmp_path):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="there is no lock on Windows")
def test_what_is_compiled_is_written_when_no_other_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", "")
    with compiler.only_writer(tmp_path / "__pycache__"):
        thread = threading.Thread(target=halved, args=(tmp_path,))
        thread.start()
        thread.join(1)
        assert thread.is_alive()
        assert not list(tmp_path.rglob("half.half-*.nb?"))
    thread.join()
    assert len(list(tmp_path.rglob("half.half-*.nb?"))) == 2


def test_where_nobody_can_write_nobody_is_kept_out(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with compiler.only_writer(folder), compiler.only_writer(folder):
            pass


def test_the_sources_are_all_modules_of_the_folder(tmp_path):
    names = set()
    for i, text in enumerate(("a = 1", "a = 2")):
        for name in ("one.py", "two.py"):
            (tmp_path / name).write_text(text)
            names.add(compiler.sources.__wrapped__(tmp_path))
        assert len(names) == 2 * (i + 1)


def test_the_library_of_others_is_left_as_it_was():
    assert config.CACHE_LOCATOR_CLASSES == ""


def test_where_nothing_can_be_kept_on_disk_the_kernels_are_compiled_in_memory():
    program = """
from numba.core import caching
caching.CacheImpl._locator_classes = []
import numpy as np
from minicvae.kernels import load
print(load("cpu").gather(np.uint8([[0, 255]]), np.array([0]), "float32"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "[[0. 1.]]\n", done.stderr


class Interrupts(event.Listener):
    """Presses Ctrl-C whenever Numba begins to compile something, and when it has compiled it."""

    def on_start(self, event):
        signal.raise_signal(signal.SIGINT)

    on_end = on_start


def add_one(x):
    return x + 1


@pytest.fixture
def python_handles_ctrl_c():
    """Also where whoever started this process has it ignored, as shells do for what runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")
@pytest.mark.usefixtures("python_handles_ctrl_c")
@pytest.mark.parametrize("kept", [False, True])
def test_ctrl_c_waits_until_a_kernel_is_compiled(tmp_path, monkeypatch, kept):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiler, "PLACES", compiler.PLACES if kept else "minicvae.kernels.compiler.Nowhere")
    monkeypatch.setattr(compiler, "Nowhere", type("Nowhere", (), {"from_function": lambda *given: None}), raising=False)
    kernel, handler = compiler.kernel(add_one), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), event.install_listener("numba:compile", Interrupts()):
        kernel(1)
    assert len(kernel.signatures) == 1
    assert signal.getsignal(signal.SIGINT) is handler
    assert kernel(1) == 2


@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")
def test_other_threads_compile_and_leave_ctrl_c_to_the_main_one():
    found, handler = [], signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=lambda: found.append(compiler.kernel(add_one)(1.5)))
    thread.start()
    thread.join()
    assert (found, signal.getsignal(signal.SIGINT)) == ([2.5], handler)


def test_without_ctrl_c_nothing_is_raised_and_an_error_goes_on():
    handler = signal.getsignal(signal.SIGINT)
    with compiler.uninterrupted():
        assert signal.getsignal(signal.SIGINT) is not handler
    with pytest.raises(ZeroDivisionError), compiler.uninterrupted():
        _ = 1 / 0
    assert signal.getsignal(signal.SIGINT) is handler
