"""Finds the kernels in the `.cu` files beside this one, has them compiled, and launches them.

A kernel is named once, where it stands: `KERNEL name(type parameter, ...)`. A file is compiled when one of its kernels
is first launched in a type, by NVRTC through CuPy, which keeps the result on disk.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minicvae.kernels.reference import Array

__all__ = ["Declaration", "Launcher", "declarations", "files", "options", "parse", "source"]

HERE = Path(__file__).parent
THREADS = 256  # of a block; blocks that sum have fewer where there is less to sum
REAL = {"float32": "float", "float64": "double"}
ACTIVATIONS = ("linear", "relu", "tanh", "elu", "sigmoid")  # in the order of the names in `common.cuh`
NUMBERS = 5  # at most, that a step returns (`watch`)
MOVING = 3  # arrays at most, that a recorded step fetches by itself (`take_next`)
MOST = 2**31 - 1024  # numbers of an array: kernels count them in 32 bits, and threads beyond the last one too
NULL = np.intp(0)  # a pointer to nothing
TYPES = {"byte": np.uint8, "label": np.int64, "int": np.int32, "double": np.float64}  # and real, as the launch says


class Declaration(NamedTuple):
    """A kernel: its name, the file that it stands in, and its parameters as pairs of a type and a name.

    A matrix `x` followed by `x_step` may have other numbers between its rows; one followed by `x_row` or by
    `x_a`, the distances along all its axes, may lie in any way.
    """

    name: str
    file: str
    parameters: tuple[tuple[str, str], ...]


def files() -> list[str]:
    """The names of all files with kernels."""
    return sorted(path.name for path in HERE.glob("*.cu"))


def source(file: str) -> str:
    """The whole text of a file of kernels, as a compiler takes it: the headers stand where they are included."""

    def text(name: str) -> str:
        lines = (HERE / name).read_text(encoding="utf-8")
        return re.sub(r'^#include "(.+)"$', lambda found: text(found[1]), lines, flags=re.MULTILINE)

    return f"{text('common.cuh')}\n{text(file)}"


def options(dtype: Any, defines: Iterable[str] = ()) -> tuple[str, ...]:
    """What the compiler is told; defines: the kind of tile that `product.cuh` asks for, and whether in TF32."""
    return ("-std=c++17", *(f"-D{define}" for define in (f"REAL={REAL[np.dtype(dtype).name]}", *defines)))


def parse(text: str, file: str) -> list[Declaration]:
    """The kernels in the text of a file."""
    found = []
    for name, inside in re.findall(r"^(?:KERNEL|PRODUCT) (\w+)\(([^)]*)\)", text, re.MULTILINE):
        spaced = (re.sub(r"\s*\*\s*", "* ", " ".join(parameter.split())) for parameter in inside.split(","))
        pairs = (parameter.rsplit(" ", 1) for parameter in spaced)
        found.append(Declaration(name, file, tuple((kind, parameter) for kind, parameter in pairs)))
    return found


@cache
def declarations() -> dict[str, Declaration]:
    """All kernels by name."""
    every = (kernel for file in files() for kernel in parse((HERE / file).read_text(encoding="utf-8"), file))
    return {kernel.name: kernel for kernel in every}


class Launcher:
    """`launch(name, dtype, grid, arguments)` on the GPU that the module `cupy` speaks to."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._modules: dict[tuple[str, tuple[str, ...]], Any] = {}
        self._compiled: dict[tuple[str, Any, tuple[str, ...]], tuple[Any, list[Callable[[Any], Any]]]] = {}

    def __call__(
        self,
        name: str,
        dtype: Any,
        grid: int | tuple[int, ...],
        *arguments: Any,
        threads: int = THREADS,
        defines: tuple[str, ...] = (),
    ) -> None:
        """Launch a kernel on `grid` blocks, numbers and arrays converted to, or held to, the types of its parameters.

        arguments: one for each parameter: contiguous arrays (None where the kernel may do without) and numbers.
        defines: with what its file is compiled beside `dtype`.

        Raises
        ------
        TypeError
            For an array of another type, or another number of arguments.
        OverflowError
            For a size of 2^31 or more, or an array of nearly so many numbers.
        """
        if (name, dtype, defines) not in self._compiled:
            self._compiled[name, dtype, defines] = self._compile(declarations()[name], np.dtype(dtype), defines)
        function, takes = self._compiled[name, dtype, defines]
        if len(arguments) != len(takes):
            raise TypeError(f"{name}: expected {len(takes)} arguments, got {len(arguments)}")
        given = tuple(take(x) for take, x in zip(takes, arguments, strict=True))
        grid = grid if isinstance(grid, tuple) else (grid,)
        if all(grid):
            function(grid, (threads,), given)

    def _compile(
        self, kernel: Declaration, dtype: np.dtype, defines: tuple[str, ...]
    ) -> tuple[Any, list[Callable[[Any], Any]]]:
        """The kernel, compiled with its whole file when it is first asked for, and what takes its arguments."""
        told = options(dtype, defines)
        if (kernel.file, told) not in self._modules:
            self._modules[kernel.file, told] = self._cupy.RawModule(code=source(kernel.file), options=told)
        takes = [_take(kernel, i, dtype) for i in range(len(kernel.parameters))]
        return self._modules[kernel.file, told].get_function(kernel.name), takes


def _take(kernel: Declaration, i: int, real: np.dtype) -> Callable[[Any], Any]:
    """What makes of an argument its i-th parameter: CuPy hands Python's numbers over as eight bytes, whatever it is."""
    kind, name = kernel.parameters[i]
    base = kind.removeprefix("const ").rstrip("*")
    expected = real if base == "real" else np.dtype(TYPES[base])
    if not kind.endswith("*"):
        return expected.type
    follower = "".join(other for _, other in kernel.parameters[i + 1 : i + 2])
    rows, anyhow = follower == f"{name}_step", follower in (f"{name}_row", f"{name}_a")

    def take(x: Array | None) -> Any:
        if x is None:
            return NULL
        fits = x.flags.c_contiguous or anyhow or (rows and x.strides[-1] == x.itemsize)
        extent = sum((size - 1) * abs(step) for size, step in zip(x.shape, x.strides, strict=True)) // x.itemsize
        if x.size > MOST or extent > MOST:
            reach = max(x.size, extent)
            raise OverflowError(f"{kernel.name}: {name}: expected at most {MOST} numbers, got an array of {reach}")
        if x.dtype != expected or not fits:
            layout = "" if fits else " with strides"
            raise TypeError(f"{kernel.name}: {name}: expected a contiguous array of {expected}, got {x.dtype}{layout}")
        return x

    return take


def blocks(size: int, threads: int = THREADS) -> int:
    """How many blocks have a thread for each of `size` numbers."""
    return -(-size // threads)
