"""One kernel on several threads: the caller works, and helpers that are awake take a share.

    Job(kernel, arguments).run(state)     # kernel(queue, *arguments) on every thread that comes (`job.py`)

The kernel takes numbers from the queue, each of 0, 1, 2, ... given out once, and does the piece of its work that a
number stands for, until no piece is left. So nobody waits for a thread that sleeps, or that something else has pushed
off its core, unless it has begun a piece: what nobody takes the caller does. Cores of one machine are seldom equally
fast either: who is done sooner does more. What a piece computes does not depend on who took it: the same seed gives the
same bits.

Each thread begins with a share of its own, neighbouring pieces in a row, and then goes on with what is left of others'.
What it has read of memory for one piece lies beside what the next one wants, and two threads seldom write to
neighbouring places at once, which they could only do in turns: a cache line belongs to one core at a time, and
processors fetch lines in pairs.

Numbers below the smallest normal one count as zero in a job (`subnormal.py`), on all threads alike.

Helpers watch `state` for a while after a job, for the next one is mostly some microseconds away. Then they fall asleep,
and the next caller wakes them. All that is shared lies in `state`, words of 64 bits, each on a cache line of its own:

    OPEN     the number of the job that helpers may join, or 0      INSIDE   how many helpers are in it
    CODE     where its code is, for `helping`                       TAKEN    whether somebody is the caller
    FRAME    where its arguments are                                JOBS     how many there were: no number comes twice
    FAILED   whether a piece could not be done                      QUEUE    of each share, how many pieces were taken

A helper says that it is inside before it looks once more whether the job is open; a caller closes the job before it
looks whether anybody is inside. Both in that order, seen so by all: neither can miss the other.
"""

from __future__ import annotations

import os
import platform
import threading
from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from minicvae.kernels import compiler
from minicvae.kernels.subnormal import flush, restore

__all__ = ["Helpers", "alone", "run", "take"]

LINE = 16  # words from one to the next, two cache lines: processors fetch them in pairs
OPEN, CODE, FRAME, INSIDE, TAKEN, JOBS, FAILED, QUEUE = range(0, 8 * LINE, LINE)
PATIENCE = 8_000  # looks at the state before a helper falls asleep: about 0.2 ms
MOST = 8  # threads: the work of a step is too small for more


def alone() -> np.ndarray:
    """A state without helpers."""
    return _state(1)


def _state(threads: int) -> np.ndarray:
    return np.zeros(QUEUE + threads * LINE, np.int64)


def add(state: np.ndarray, i: int, value: int) -> int:
    """state[i] += value, in one instruction; returns what was there before."""
    before = int(state[i])
    state[i] += value
    return before


# The words of the state

_WORD = ir.IntType(64)


def _place(context: Any, builder: Any, kind: Any, array: Any, i: Any) -> Any:
    return builder.gep(context.make_array(kind)(context, builder, array).data, [i])


@intrinsic
def claim(typing_context: Any, state: Any) -> Any:
    """Become the caller, unless somebody is."""

    def code(context: Any, builder: Any, called_with: Any, args: Any) -> Any:
        place = _place(context, builder, called_with.args[0], args[0], _WORD(TAKEN))
        return builder.extract_value(builder.cmpxchg(place, _WORD(0), _WORD(1), "seq_cst"), 1)

    return types.boolean(state), code


@intrinsic
def read(typing_context: Any, state: Any, i: Any) -> Any:
    """state[i] as it is now."""

    def code(context: Any, builder: Any, called_with: Any, args: Any) -> Any:
        return builder.load_atomic(_place(context, builder, called_with.args[0], *args), "seq_cst", 8)

    return types.int64(state, types.intp), code


@intrinsic
def write(typing_context: Any, state: Any, i: Any, value: Any) -> Any:
    """state[i] = value, for all to see."""

    def code(context: Any, builder: Any, called_with: Any, args: Any) -> Any:
        builder.store_atomic(args[2], _place(context, builder, called_with.args[0], *args[:2]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(state, types.intp, types.int64), code


@intrinsic
def _add(typing_context: Any, state: Any, i: Any, value: Any) -> Any:
    def code(context: Any, builder: Any, called_with: Any, args: Any) -> Any:
        place = _place(context, builder, called_with.args[0], *args[:2])
        return builder.atomic_rmw("add", place, args[2], "seq_cst")

    return types.int64(state, types.intp, types.int64), code


@intrinsic
def pause(typing_context: Any) -> Any:
    """Tell the processor that this thread only waits."""

    def code(context: Any, builder: Any, called_with: Any, args: Any) -> Any:
        if platform.machine().lower() in ("x86_64", "amd64"):
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return types.void(), code


# A job: its code and its arguments as two addresses (`job.py`)

_BYTES = ir.IntType(8).as_pointer()
CODE_TYPE = ir.FunctionType(ir.VoidType(), [_BYTES, _BYTES, _WORD, _WORD])  # (arguments, queue, its words, thread)


@intrinsic
def join(typing_context: Any, job: Any, thread: Any) -> Any:
    """Do of a job what is left, as the thread of that number."""

    def code(context: Any, builder: Any, called_with: Any, args: Any) -> Any:
        kind, (array, number) = called_with.args[0], args
        function, frame = (
            builder.inttoptr(builder.load(_place(context, builder, kind, array, _WORD(i))), pointer)
            for i, pointer in ((CODE, CODE_TYPE.as_pointer()), (FRAME, _BYTES))
        )
        queue = builder.bitcast(_place(context, builder, kind, array, _WORD(QUEUE)), _BYTES)
        words = builder.sub(context.make_array(kind)(context, builder, array).nitems, _WORD(QUEUE))
        builder.call(function, [frame, queue, words, number])
        return context.get_dummy_value()

    return types.void(job, types.int64), code


@overload(add)
def _add_compiled(state, i, value):
    return lambda state, i, value: _add(state, i, value)


# The caller and the helper


@compiler.inlined
def take(queue, pieces):
    """The next of so many pieces, or `pieces` where none is left.

    queue: how many were taken of each share, and the number of the thread that asks.
    """
    counts, own = queue
    shares = len(counts) // LINE
    for turn in range(shares):
        share = (own + turn) % shares
        number = share * pieces // shares + add(counts, share * LINE, 1)
        if number < (share + 1) * pieces // shares:
            return number
    return pieces


@compiler.kernel
def run(state, code, frame):
    """Let the code of a job be called here and on every helper that is awake; returns when all pieces are done.

    Where somebody else is the caller, it is done here alone.
    """
    job = state if claim(state) else np.zeros(QUEUE + LINE, np.int64)
    job[CODE], job[FRAME] = code, frame
    job[FAILED] = 0
    job[QUEUE:] = 0
    job[JOBS] += 1
    control = flush()
    write(job, OPEN, job[JOBS])
    join(job, 0)
    write(job, OPEN, 0)
    while read(job, INSIDE) > 0:
        pause()
    restore(control)
    failed = read(job, FAILED) > 0
    write(job, TAKEN, 0)
    if failed:
        raise MemoryError("a kernel failed, most likely for lack of memory")


@compiler.kernel
def helping(state, number):
    """Join every job that is opened, as the thread of that number, until none was for a while."""
    flush()
    joined = idle = 0
    while idle < PATIENCE:
        job = read(state, OPEN)
        if job > 0 and job != joined:
            joined, idle = job, 0
            add(state, INSIDE, 1)
            if read(state, OPEN) == job:
                join(state, number)
            add(state, INSIDE, -1)
        else:
            idle += 1
            pause()


STATE = types.int64[::1]
SIGNATURES = {run: (STATE, types.int64, types.int64), helping: (STATE, types.int64)}  # what they are compiled for


class Helpers:
    """Threads that help, from the first call of `state` on.

    size: threads in all, the caller among them; as many as there are cores, if it is not given.
    """

    def __init__(self, size: int | None = None) -> None:
        self.size = 1 if config.DISABLE_JIT else size or min(cores(), MOST)
        self._state = alone()
        self._process = 0
        self._bells: list[threading.Semaphore] = []
        self._asleep: list[int] = []
        self._lock = threading.Lock()

    @property
    def state(self) -> np.ndarray:
        """What `Job.run` wants; helpers who sleep are woken, for there is work to come."""
        if self._process != os.getpid():
            self._begin()
        while self._asleep:
            try:
                self._bells[self._asleep.pop()].release()
            except IndexError:  # another thread has woken it
                break
        return self._state

    def _begin(self) -> None:
        """New threads: of those of another process a forked one has nothing."""
        with self._lock:
            if self._process == os.getpid():
                return
            self._state, self._asleep = _state(self.size), []
            self._bells = [threading.Semaphore(0) for _ in range(self.size - 1)]
            if self._bells:
                helping.compile(SIGNATURES[helping])  # here, while no thread could be torn by a fork
            for i, bell in enumerate(self._bells):
                threading.Thread(
                    target=_live, args=(self._state, bell, self._asleep, i), name="minicvae helper", daemon=True
                ).start()
            self._process = os.getpid()


def _live(state: np.ndarray, bell: threading.Semaphore, asleep: list[int], number: int) -> None:
    """What a helper does all its life."""
    while True:
        helping(state, number + 1)
        asleep.append(number)
        bell.acquire()


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
