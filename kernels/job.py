"""A kernel's call made ready once, to be made from any thread and as often as is wanted (`spread.py`).

    job = Job(kernel, arguments)
    job.run(state)                       # kernel(queue, *arguments) on every thread that comes

Helpers know nothing of a kernel but two addresses: that of code, and that of a frame, words of 64 bits in which the
arguments stand one after the other. An array is its address, its lengths, and how many bytes lie from one number to the
next along each axis; a tuple is what it holds. The code (`_entry`) takes the words up and calls the kernel as Numba
calls it: a few instructions for each signature, made when they are first wanted, for Numba itself would compile a
second kernel around the first.
"""

from __future__ import annotations

from functools import cache, cached_property
from itertools import count
from struct import pack
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import config, from_dtype, types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.np.arrayobj import populate_array

from minicvae.kernels.spread import CODE_TYPE, FAILED, LINE, QUEUE, run

__all__ = ["Job"]

Kind = tuple[Any, ...] | type
QUEUE_TYPE = types.Tuple((types.int64[::1], types.int64))  # as `spread.take` wants it

_WORD, _NUMBER, _FLAG = ir.IntType(64), ir.DoubleType(), ir.IntType(1)
_names = count()


class Job:
    """kernel(queue, *arguments); arguments: arrays, Python's bool, int and float, and tuples of these.

    The arrays are kept, and what is in them when the job is run is what counts.
    """

    def __init__(self, kernel: Any, arguments: tuple[Any, ...]) -> None:
        self.kernel, self.arguments = kernel, arguments
        if not config.DISABLE_JIT:
            words: list[int | float] = []
            try:
                self._kind = tuple([_described(argument, words) for argument in arguments])
            except TypeError as error:
                raise TypeError(f"{kernel.__name__}: {error}") from None
            layout = "".join(["d" if type(word) is float else "q" for word in words])
            self._frame = np.frombuffer(pack(layout, *words), np.int64)
            self.frame = self._frame.ctypes.data

    @property
    def signature(self) -> tuple[types.Type, ...]:
        """What the kernel has to be compiled for."""
        return _signature(self._kind)

    @cached_property
    def code(self) -> int:
        """Where the code is that calls the kernel; compiled where it has to be."""
        return _entry(self.kernel, self._kind)

    def run(self, state: np.ndarray) -> None:
        """Returns when all pieces are done.

        Raises MemoryError, with the kernel's name, where it failed: what may go wrong is that there is no memory left.
        """
        if config.DISABLE_JIT:
            self.kernel((np.zeros(LINE, np.int64), 0), *self.arguments)
            return
        try:
            run(state, self.code, self.frame)
        except MemoryError as error:
            raise MemoryError(f"{self.kernel.__name__}: {error}") from None


def _described(value: Any, words: list[int | float]) -> Kind:
    """What decides on the type of an argument; its words are added to those that are there."""
    if isinstance(value, np.ndarray):
        words += value.ctypes.data, *value.shape, *value.strides
        return np.ndarray, value.dtype, value.ndim, value.flags.c_contiguous, value.flags.writeable
    if isinstance(value, tuple):
        return tuple([_described(item, words) for item in value])
    if type(value) not in (bool, int, float):
        raise TypeError(f"arguments: expected arrays, bool, int, float and tuples of these, got {type(value)}")
    words.append(value)
    return type(value)


def _numba_type(kind: Kind) -> types.Type:
    """The type of an argument."""
    if isinstance(kind, type):
        return {bool: types.boolean, int: types.int64, float: types.float64}[kind]
    if kind and kind[0] is np.ndarray:
        _, dtype, ndim, contiguous, writeable = kind
        return types.Array(from_dtype(dtype), ndim, "C" if contiguous else "A", readonly=not writeable)
    return types.BaseTuple.from_types([_numba_type(item) for item in kind])


def _signature(kind: tuple[Kind, ...]) -> tuple[types.Type, ...]:
    """The types that a kernel is compiled for: of the queue, and of the arguments."""
    return QUEUE_TYPE, *map(_numba_type, kind)


@cache
@global_compiler_lock
def _entry(kernel: Any, kind: tuple[Kind, ...]) -> int:
    """The address of the code that calls the kernel for such arguments."""
    wanted = _signature(kind)
    kernel.compile(wanted)
    made = kernel.overloads[wanted]
    result = made.signature.return_type
    place = made.library.get_pointer_to_function(made.fndesc.llvm_func_name)

    context, engine, target = cpu_target.target_context, *_engine()
    module = ir.Module()
    module.triple, module.data_layout = target.triple, str(target.target_data)
    function = ir.Function(module, CODE_TYPE, f"minicvae_job_{next(_names)}")
    frame, queue, words, thread = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    taken = _Words(context, builder, frame)
    counts = taken.array(QUEUE_TYPE[0], builder.bitcast(queue, _WORD.as_pointer()), [words], [_WORD(8)])
    given = [context.make_tuple(builder, QUEUE_TYPE, [counts, thread]), *map(taken.value, wanted[1:])]
    called = builder.inttoptr(_WORD(place), context.call_conv.get_function_type(result, wanted).as_pointer())
    status, _ = context.call_conv.call_function(builder, called, result, wanted, given)
    with builder.if_then(status.is_error):
        failed = builder.gep(builder.bitcast(queue, _WORD.as_pointer()), [_WORD(FAILED - QUEUE)])
        builder.store_atomic(_WORD(1), failed, "seq_cst", 8)
    builder.ret_void()

    engine.add_module(binding.parse_assembly(str(module)))
    engine.finalize_object()
    return engine.get_function_address(function.name)


@cache
def _engine() -> tuple[binding.ExecutionEngine, binding.TargetMachine]:
    """What makes machine code, and for which machine."""
    target = binding.Target.from_default_triple().create_target_machine(opt=0)
    return binding.create_mcjit_compiler(binding.parse_assembly(""), target), target


class _Words:
    """Takes the arguments up, word by word."""

    def __init__(self, context: Any, builder: Any, frame: Any) -> None:
        self.context, self.builder, self._numbers = context, builder, count()
        self.frame = builder.bitcast(frame, _WORD.as_pointer())

    def next(self) -> Any:
        """The next word."""
        return self.builder.load(self.builder.gep(self.frame, [_WORD(next(self._numbers))]))

    def value(self, kind: types.Type) -> Any:
        """The next argument."""
        if isinstance(kind, types.Array):
            data = self.builder.inttoptr(self.next(), self.context.get_data_type(kind.dtype).as_pointer())
            return self.array(kind, data, *([self.next() for _ in range(kind.ndim)] for _ in range(2)))
        if isinstance(kind, types.BaseTuple):
            return self.context.make_tuple(self.builder, kind, [self.value(item) for item in kind.types])
        if isinstance(kind, types.Float):
            return self.builder.bitcast(self.next(), _NUMBER)
        return self.builder.trunc(self.next(), _FLAG) if kind is types.boolean else self.next()

    def array(self, kind: types.Array, data: Any, shape: list[Any], strides: list[Any]) -> Any:
        """An array that owns nothing."""
        made = self.context.make_array(kind)(self.context, self.builder)
        size = _WORD(self.context.get_abi_sizeof(self.context.get_data_type(kind.dtype)))
        populate_array(made, data, shape=shape, strides=strides, itemsize=size, meminfo=None)
        return made._getvalue()
