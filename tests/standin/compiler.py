"""CuPy's compiler of kernels without a GPU: g++ builds the same source for the host (`host.h`), ctypes calls it."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from minicvae.kernels.cuda.launch import parse
from standin.arrays import PAD, ndarray, tape

HERE = Path(__file__).parent
LAUNCHES = Counter()  # by kernel
ORDER = {"backwards": False}  # whether blocks and threads run in the opposite order

missing = "" if shutil.which("g++") else "g++ is not here to compile the CUDA kernels for the host"


def built(code, options):
    """The shared library of a source, from the user's cache where it was built before."""
    text = f'#include "{HERE / "host.h"}"\n{code}\n{"".join(map(entry, parse(code, "")))}'
    content = hashlib.sha256((HERE / "host.h").read_bytes() + text.encode() + " ".join(options).encode())
    folder = Path(tempfile.gettempdir()) / f"minicvae-stand-in-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    library = folder / f"{content.hexdigest()[:24]}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            (Path(work) / "kernels.cpp").write_text(text)
            new = Path(work) / "kernels.so"
            command = [
                "g++",
                *options,
                "-O1",
                "-w",
                "-fsanitize=alignment",  # a GPU fetches four numbers at once from a multiple of 16 bytes only
                "-fsanitize-undefined-trap-on-error",
                "-shared",
                "-fPIC",
                "-o",
                str(new),
                str(Path(work) / "kernels.cpp"),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"the kernels do not compile for the host:\n{done.stderr}")
            os.replace(new, library)
    return ctypes.CDLL(str(library))


def entry(kernel):
    """A function that calls the kernel for every thread; its arguments come as pointers, as the driver takes them."""
    values = ", ".join(f"*({kind}*)a[{i}]" for i, (kind, _) in enumerate(kernel.parameters))
    return (
        f'extern "C" int launch_{kernel.name}(const unsigned* grid, unsigned threads, int order, void** a) '
        f"{{ return host::run(grid, threads, order, [=] {{ {kernel.name}({values}); }}); }}\n"
    )


class RawModule:
    """`cupy.RawModule`: compiled when a kernel is first asked for."""

    def __init__(self, *, code, options=()):
        self._code, self._options, self._library = code, options, None

    def get_function(self, name):
        self._library = self._library or built(self._code, self._options)
        return Function(name, getattr(self._library, f"launch_{name}"))


class Function:
    """`cupy.RawKernel`: called with a grid, a block, and arguments of the sizes that the kernel expects."""

    def __init__(self, name, entry):
        self.name, self._entry = name, entry

    def __call__(self, grid, block, args):
        if len(block) != 1 or not 1 <= block[0] <= 1024 or not 1 <= len(grid) <= 2 or min(grid) < 1:
            raise ValueError(f"{self.name}: a launch of {grid} blocks of {block} threads")
        held = [a._held.ctypes.data_as(ctypes.c_void_p) if isinstance(a, ndarray) else c_value(a) for a in args]
        pointers = (ctypes.c_void_p * len(held))(*(ctypes.addressof(value) for value in held))
        for a in args:
            if isinstance(a, ndarray):
                tape.will_change(a._held)
        tape.keep(None, lambda: self(grid, block, args))
        shape = (ctypes.c_uint * 2)(*grid, *[1] * (2 - len(grid)))
        LAUNCHES[self.name] += 1
        if self._entry(shape, ctypes.c_uint(block[0]), ctypes.c_int(ORDER["backwards"]), pointers):
            raise RuntimeError(f"{self.name}: some threads of a block ended while others waited at a barrier")
        for a in args:
            if isinstance(a, ndarray):
                require_unharmed(self.name, a)


def c_value(number):
    """A NumPy scalar as C passes it; CuPy takes Python's own numbers too, but with sizes of its own choice."""
    if not isinstance(number, np.generic):
        raise TypeError(f"a kernel's argument of the type {type(number).__name__}")
    return np.ctypeslib.as_ctypes_type(number.dtype)(number.item())


def require_unharmed(name, a):
    """RuntimeError where the kernel has written beside the memory of a."""
    whole = a._held
    while isinstance(whole, np.ndarray) and not hasattr(whole, "fence"):
        whole = whole.base
    if whole is not None and whole[:PAD].tobytes() + whole[-PAD:].tobytes() != whole.fence:
        raise RuntimeError(f"{name} writes beyond the memory of an array of shape {a.shape}")
