"""Subnormal numbers taken as zero, for processors need a hundred times as long for each.

    control = flush()       # from here on, on this thread
    ...
    restore(control)

They come by themselves: where a model has learned that a pixel is always black, the derivative of the likelihood there
shrinks with every step, below the smallest normal number (1e-38 in float32) after some hundred. As a register of the
processor says it, what is smaller counts as zero, both what an instruction is given and what it gives.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

__all__ = ["flush", "restore"]

_X86 = platform.machine().lower() in ("x86_64", "amd64")
_ARM = platform.machine().lower() in ("aarch64", "arm64")
_BITS = 0x8040 if _X86 else 1 << 24  # of x86's register MXCSR FTZ and DAZ, of Arm's FPCR FZ
_WORD, _HALF, _NOTHING = ir.IntType(64), ir.IntType(32), ir.VoidType()


def flush() -> int:
    """From here on this thread takes subnormal numbers as zero; returns what `restore` wants.

    As plain Python, and on other processors, it does nothing.
    """
    return 0


def restore(control: int) -> None:
    """This thread's arithmetic is again as it was before `flush`."""


@intrinsic
def _flush(typing_context: Any) -> Any:
    def code(context: Any, builder: Any, called_with: Any, args: Any) -> Any:
        before = _read(builder)
        _write(builder, builder.or_(before, _WORD(_BITS)))
        return before

    return types.int64(), code


@intrinsic
def _restore(typing_context: Any, control: Any) -> Any:
    def code(context: Any, builder: Any, called_with: Any, args: Any) -> Any:
        _write(builder, args[0])
        return context.get_dummy_value()

    return types.void(types.int64), code


def _read(builder: Any) -> Any:
    """The register, as a word."""
    if _X86:
        place = cgutils.alloca_once(builder, _HALF)
        _call(builder, "llvm.x86.sse.stmxcsr", _NOTHING, builder.bitcast(place, ir.IntType(8).as_pointer()))
        return builder.zext(builder.load(place), _WORD)
    return _call(builder, "llvm.aarch64.get.fpcr", _WORD) if _ARM else _WORD(0)


def _write(builder: Any, word: Any) -> None:
    if _X86:
        place = cgutils.alloca_once_value(builder, builder.trunc(word, _HALF))
        _call(builder, "llvm.x86.sse.ldmxcsr", _NOTHING, builder.bitcast(place, ir.IntType(8).as_pointer()))
    elif _ARM:
        _call(builder, "llvm.aarch64.set.fpcr", _NOTHING, word)


def _call(builder: Any, name: str, result: Any, *args: Any) -> Any:
    kind = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


@overload(flush)
def _flush_compiled():
    return lambda: _flush()


@overload(restore)
def _restore_compiled(control):
    return lambda control: _restore(control)
