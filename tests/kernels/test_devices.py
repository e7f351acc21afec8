"""How a device's kernels are found, and what is said where they are not there."""

import subprocess
import sys

import numpy as np
import pytest

from minicvae import kernels as kernels_module
from minicvae.kernels import DEVICES, Reference, load


def test_a_device_is_named_by_its_kernels_and_loaded_once(kernels):
    assert isinstance(kernels, Reference)
    assert kernels.name in DEVICES
    assert load(kernels.name) is kernels


@pytest.mark.parametrize("name", ["gpu", "", "CPU", None, 0])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(ValueError, match=r"^device: expected one of numpy, cpu, cuda and auto, got "):
        load(name)


def test_without_cupy_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(RuntimeError, match=r"device 'cuda': CuPy is not installed.*pip install.*minicvae\[cuda12\]"):
        load.__wrapped__("cuda")


@pytest.mark.parametrize("there", [True, False])
def test_auto_is_the_gpu_where_there_is_one(monkeypatch, there):
    def loaded(device):
        if device == "cuda" and not there:
            raise RuntimeError("there is none")
        return device

    monkeypatch.setattr(kernels_module, "load", loaded)
    assert load.__wrapped__("auto") == ("cuda" if there else "cpu")


def test_auto_names_the_device_that_it_found():
    assert load("auto").name in ("cpu", "cuda")
    assert load("auto") is load(load("auto").name)


def test_arrays_come_back_to_the_host_as_copies(kernels):
    held = kernels.array(np.arange(3.0))
    back = kernels.to_numpy(held)
    held[...] = 0
    np.testing.assert_array_equal(back, [0.0, 1.0, 2.0])


def test_the_reference_needs_no_numba():
    program = "import sys\nfrom minicvae.kernels import load\nload('numpy')\nprint('numba' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "False\n"
