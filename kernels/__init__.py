"""The primitive operations: one contract, one file a device.

`reference.py` is the specification, in plain array expressions that run on NumPy and on CuPy alike. `cpu.py` (Numba)
and `cuda/` (CUDA) override what they do faster; whatever they leave out, the reference does for them.

| device  | what it is                                                                           |
| ------- | ------------------------------------------------------------------------------------ |
| `numpy` | the reference on NumPy arrays                                                        |
| `cpu`   | Numba kernels, shared out to threads, their products by register tiles (the default) |
| `cuda`  | CUDA kernels, a whole step one graph, on CuPy arrays on an NVIDIA GPU                |
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache

from minicvae.kernels.reference import Array, OneHot, Reference

__all__ = ["DEVICES", "Array", "OneHot", "Reference", "load"]

DEVICES = ("numpy", "cpu", "cuda")


@cache
def load(device: str = "cpu") -> Reference:
    """The kernels of a device, loaded when they are first asked for; "auto": of `cuda` if it is there, else of `cpu`.

    Raises
    ------
    ValueError
        If `device` is neither one of `DEVICES` nor "auto".
    RuntimeError
        If the device is not there (no CuPy, no GPU); the message says what to install.
    """
    if device == "auto":
        with suppress(RuntimeError, ImportError, MemoryError):  # not there, not whole, or full
            return load("cuda")
        return load("cpu")
    if device == "numpy":
        return Reference()
    if device == "cpu":
        from minicvae.kernels.cpu import Cpu

        return Cpu()
    if device == "cuda":
        from minicvae.kernels.cuda import Cuda

        return Cuda()
    raise ValueError(f"device: expected one of {', '.join(DEVICES)} and auto, got {device!r}")
