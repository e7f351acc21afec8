"""Threads that share one kernel's work: a team that waits in machine code, and joins in within a microsecond.

A training step is some twenty kernels of 5 to 300 microseconds. Waking a sleeping thread takes 10 to 20, as much as
the second thread would save. So the helpers of a team stay awake between the kernels of a step: they spin on a word
of memory outside Python's lock, and go to sleep after a fifth of a millisecond without work.

    @kernel
    def scale(board, shares, x, factor):                       # called from Python: scale(team.board(), 2, x, 3.0)
        share_out(board, shares, _scale_share, (x, factor))

    @kernel
    def _scale_share(x, factor, share, shares):                # runs once for each share, on whichever thread is free
        for i in range(*bounds(len(x), share, shares)):
            x[i] *= factor

How the work is cut depends on `shares` alone, never on which thread came first: same bits, whoever computes. Nobody
waits for a helper that is not there: the caller takes every share that is left. There are no pools beside this one
(none of BLAS, OpenMP or Numba is ever woken), so nothing fights over the cores, and nothing is changed outside.
"""

from __future__ import annotations

import ctypes
import os
import platform
import threading
from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from minicvae.kernels.compiled import FLAGS, kernel

MOST = 4  # threads of a team: at training's sizes more of them find too little to do
SPINS = 400_000  # looks at the board before a helper goes to sleep: 5 ms where this was measured

# Words of the board, each on a cache line of its own.
UNCLAIMED, FINISHED, TAKEN, JOB, ARGUMENTS, SHARES = 0, 8, 16, 24, 25, 26
WORDS = 32

I64 = ir.IntType(64)
_VOID_POINTER = ir.IntType(8).as_pointer()


def _word(context: Any, builder: Any, board_type: Any, board: ir.Value, index: ir.Value) -> ir.Value:
    data = context.make_array(board_type)(context, builder, board).data
    return builder.gep(data, [index])


@intrinsic
def _read(typing_context, board, index):
    """board[index], and everything that was written before the word was (acquire)."""

    def codegen(context, builder, signature, arguments):
        return builder.load_atomic(_word(context, builder, board, *arguments), "acquire", 8)

    return types.int64(board, types.intp), codegen


@intrinsic
def _publish(typing_context, board, index, value):
    """board[index] = value, after everything that was written before (release)."""

    def codegen(context, builder, signature, arguments):
        builder.store_atomic(arguments[2], _word(context, builder, board, *arguments[:2]), "release", 8)
        return context.get_dummy_value()

    return types.void(board, types.intp, types.int64), codegen


@intrinsic
def _add(typing_context, board, index, value):
    """board[index] += value, in one step that no other thread can cut in two."""

    def codegen(context, builder, signature, arguments):
        return builder.atomic_rmw("add", _word(context, builder, board, *arguments[:2]), arguments[2], "acq_rel")

    return types.int64(board, types.intp, types.int64), codegen


@intrinsic
def _replace(typing_context, board, index, expected, value):
    """If board[index] is `expected`, make it `value` and say true; in one step."""

    def codegen(context, builder, signature, arguments):
        word = _word(context, builder, board, *arguments[:2])
        pair = builder.cmpxchg(word, arguments[2], arguments[3], "acq_rel", "acquire")
        return builder.extract_value(pair, 1)

    return types.boolean(board, types.intp, types.int64, types.int64), codegen


@intrinsic
def _breathe(typing_context):
    """Tell the processor that this loop only waits, so that it leaves its power to others."""

    def codegen(context, builder, signature, arguments):
        machine = platform.machine().lower()
        if machine in ("x86_64", "amd64"):
            pause = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(ir.VoidType(), []), "llvm.x86.sse2.pause"
            )
            builder.call(pause, [])
        return context.get_dummy_value()

    return types.void(), codegen


def _job_of(function: Any) -> Any:
    """The intrinsic `job(arguments)` -> (address of code that runs `function(*arguments, share, shares)`, theirs)."""

    @intrinsic
    def job(typing_context, arguments):
        signature = types.void(*arguments.types, types.int64, types.int64)

        def codegen(context, builder, _, values):
            compiled = function.get_compile_result(signature)
            context.active_code_library.add_linking_library(compiled.library)
            tuple_type = context.get_value_type(arguments)
            code_type = ir.FunctionType(ir.VoidType(), [_VOID_POINTER, I64, I64])
            code = ir.Function(builder.module, code_type, builder.module.get_unique_name("job"))
            code.linkage = "internal"
            inner = ir.IRBuilder(code.append_basic_block())
            held = inner.load(inner.bitcast(code.args[0], tuple_type.as_pointer()))
            items = [*cgutils.unpack_tuple(inner, held, len(arguments)), *code.args[1:]]
            context.call_internal_no_propagate(inner, compiled.fndesc, signature, items)
            inner.ret_void()

            stored = cgutils.alloca_once_value(builder, values[0])
            addresses = [builder.ptrtoint(code, I64), builder.ptrtoint(stored, I64)]
            return context.make_tuple(builder, types.UniTuple(types.int64, 2), addresses)

        return types.UniTuple(types.int64, 2)(arguments), codegen

    return job


@intrinsic
def _run(typing_context, job, arguments, share, shares):
    """Run one share of a job."""

    def codegen(context, builder, signature, values):
        code_type = ir.FunctionType(ir.VoidType(), [_VOID_POINTER, I64, I64])
        code = builder.inttoptr(values[0], code_type.as_pointer())
        builder.call(code, [builder.inttoptr(values[1], _VOID_POINTER), *values[2:]])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), codegen


@njit(**FLAGS)
def _take_share(board):
    """Claim a share of the job on the board and run it; false if none is left."""
    unclaimed = _read(board, UNCLAIMED)
    if unclaimed <= 0 or not _replace(board, UNCLAIMED, unclaimed, unclaimed - 1):
        return unclaimed > 0
    # The job cannot change from here on: it is not finished before this share is.
    shares = board[SHARES]
    _run(board[JOB], board[ARGUMENTS], shares - unclaimed, shares)
    _add(board, FINISHED, 1)
    return True


def shared(function: Any) -> Any:
    """`run(board, shares, arguments)`, to be called inside a kernel: `function(*arguments, share, shares)` for each \
share in 0..shares-1, by whoever is awake.
    """
    if config.DISABLE_JIT:

        def run_in_python(board: Any, shares: int, arguments: tuple[Any, ...]) -> None:
            for share in range(shares):
                function(*arguments, share, shares)

        return run_in_python

    job_of = _job_of(function)

    @njit(**FLAGS)
    def run(board, shares, arguments):
        job, held = job_of(arguments)
        if shares == 1 or not _replace(board, TAKEN, 0, 1):  # too small to share, or another thread has the team
            for share in range(shares):
                _run(job, held, share, shares)
            return
        board[JOB], board[ARGUMENTS], board[SHARES], board[FINISHED] = job, held, shares, 0
        _publish(board, UNCLAIMED, shares)
        while _take_share(board):
            pass
        while _read(board, FINISHED) < shares:
            _breathe()
        _publish(board, TAKEN, 0)

    return run


@kernel
def _help(board):
    """Take shares until there were none for a while."""
    idle = 0
    while idle < SPINS:
        if _take_share(board):
            idle = 0
        else:
            idle += 1
            _breathe()


@kernel
def bounds(n, unit, share, shares):
    """The part of 0..n that falls to a share, (start, stop), cut at multiples of `unit`."""
    units = (n + unit - 1) // unit
    return min(units * share // shares * unit, n), min(units * (share + 1) // shares * unit, n)


class Team:
    """The calling thread and its helpers, which start when they are first needed.

    size: threads in all; by default the cores that this process may use (or NUMBA_NUM_THREADS), at most `MOST`.
    """

    def __init__(self, size: int | None = None) -> None:
        self.size = 1 if config.DISABLE_JIT else size or min(config.NUMBA_NUM_THREADS, MOST)
        self._forget()

    def _forget(self) -> None:
        """Begin without helpers: at first, and in a forked process, where threads do not live on."""
        self._board = np.zeros(WORDS, np.int64)
        self._asleep: list[threading.Lock] = []
        self._process = -1

    def board(self) -> np.ndarray:
        """What a kernel is shared out on. Starts the helpers, or wakes them where they sleep."""
        if self._process != os.getpid():
            self._forget()
            self._process = os.getpid()
            self._other_cores = _cores_but_this()
            for _ in range(self.size - 1):
                threading.Thread(target=self._help, name="minicvae helper", daemon=True).start()
        if self._asleep:
            self._other_cores = _cores_but_this()
            while self._asleep:
                self._asleep.pop().release()
        return self._board

    def _help(self) -> None:
        """What a helper does: help while there is work; sleep until `board` calls."""
        board, asleep, lock = self._board, self._asleep, threading.Lock()
        lock.acquire()
        while True:
            if self._other_cores:
                os.sched_setaffinity(0, self._other_cores)  # of this thread alone
            _help(board)
            asleep.append(lock)
            lock.acquire()


def _cores_but_this() -> set[int]:
    """The cores that this thread may use, without the one that it is on; none where the system does not tell.

    A scheduler likes to wake a thread on the core of the one that woke it. There a helper that spins would only
    stand in the way, for milliseconds.
    """
    try:
        return os.sched_getaffinity(0) - {ctypes.CDLL(None).sched_getcpu()}
    except (AttributeError, OSError, TypeError):
        return set()
