"""The `cuda` device: the reference on CuPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from minicvae.kernels.reference import Array, Reference

INSTALL = "install CuPy with `pip install 'minicvae[cuda12]'` (CUDA 12) or `pip install 'minicvae[cuda13]'` (CUDA 13)"


def _cupy() -> Any:
    """CuPy, or the reason why it cannot be had."""
    try:
        import cupy
    except ImportError as error:
        raise RuntimeError(f"device 'cuda': CuPy is not installed; {INSTALL}, or use device='cpu'") from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise RuntimeError(f"device 'cuda': no working NVIDIA driver ({error}); use device='cpu'") from error
    if count == 0:
        raise RuntimeError("device 'cuda': CuPy finds no NVIDIA GPU; use device='cpu'")
    return cupy


class Cuda(Reference):
    """Every kernel on CuPy arrays."""

    name = "cuda"

    def __init__(self) -> None:
        super().__init__(_cupy())

    def to_numpy(self, values: Array) -> np.ndarray:
        """`values` copied from the GPU."""
        return self.xp.asnumpy(values)
