"""Threads that share the work of a convolution: the caller and its helpers, each with a part of the rows.

    team.share(work, n)        # work(0, n // 2) here and work(n // 2, n) on the helper; returns when both are done

The blocks of a convolution call BLAS for their products. BLAS can share these out by itself, but then its threads spin
between them, in the way of everything else, and what lies around the products stays on one core. So from the first
convolution of a loop of steps BLAS keeps to the thread that calls it, and the work is cut here, rows of a product
together with what is done to them. A helper sleeps on a lock until it is needed, and works where Python's own lock is
released, as it is in BLAS and in Numba. (What needs no BLAS is shared out by `spread.py`.)

How the work is cut follows from its length and the size of the team alone: the same seed gives the same bits.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from minicvae.kernels.spread import MOST, cores

__all__ = ["SerialBlas", "Team", "Work"]

Work = Callable[[int, int], None]  # (start, stop): does these rows


class Team:
    """The calling thread and `size - 1` helpers, which start when they are first needed."""

    def __init__(self, size: int | None = None) -> None:
        self.size = size or min(cores(), MOST)
        self._helpers: list[_Helper] = []
        self._process = os.getpid()
        self._busy = threading.Lock()

    def parts(self, length: int) -> list[tuple[int, int]]:
        """`range(length)` in `size` parts that differ by one at most; none is empty."""
        cuts = sorted({length * k // self.size for k in range(self.size + 1)})
        return list(pairwise(cuts))

    def share(self, work: Work, length: int) -> None:
        """work(start, stop) for every part of `range(length)`, all at once. What a part raises is raised here.

        Where another thread has the team at the moment, the caller does all parts itself.
        """
        first, *others = self.parts(length)
        if not others or not self._busy.acquire(blocking=False):
            for part in (first, *others):
                work(*part)
            return
        try:
            helpers = self._awake()[: len(others)]
            for helper, part in zip(helpers, others, strict=True):
                helper.begin(work, part)
            try:
                work(*first)
            finally:
                self._wait_for(helpers)
            for helper in helpers:
                helper.complain()
        finally:
            self._busy.release()

    def _wait_for(self, helpers: list[_Helper]) -> None:
        try:
            for helper in helpers:
                helper.wait()
        except BaseException:  # Ctrl-C leaves a helper at work: the next call takes others
            self._helpers = []
            raise

    def _awake(self) -> list[_Helper]:
        """The helpers; new ones in a forked process, where threads do not live on."""
        if self._process != os.getpid():
            self._helpers, self._process = [], os.getpid()
        if not self._helpers:
            self._helpers = [_Helper() for _ in range(self.size - 1)]
        return self._helpers


class _Helper:
    """A thread that sleeps until it is given work."""

    def __init__(self) -> None:
        self._go, self._done = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._done.acquire()
        self._job: tuple[Work, tuple[int, int]] | None = None
        self._error: BaseException | None = None
        threading.Thread(target=self._live, name="minicvae helper", daemon=True).start()

    def begin(self, work: Work, part: tuple[int, int]) -> None:
        """Start work(*part)."""
        self._job, self._error = (work, part), None
        self._go.release()

    def wait(self) -> None:
        """Return when the work is done."""
        self._done.acquire()

    def complain(self) -> None:
        """Raise what the work raised."""
        if self._error is not None:
            raise self._error

    def _live(self) -> None:
        while True:
            self._go.acquire()
            if self._job is not None:
                work, part = self._job
                try:
                    work(*part)
                except BaseException as error:
                    self._error = error
                self._job = work = None  # type: ignore[assignment]  # lets go of the arrays
            self._done.release()


class SerialBlas:
    """Holds BLAS to the thread that calls it, from the first `hold` to the last `release`, of whatever threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._controller: Any = None
        self._limit: Any = None

    def hold(self) -> None:
        """One thread from here on."""
        with self._lock:
            self._holders += 1
            if self._holders == 1:
                if self._controller is None:
                    from threadpoolctl import ThreadpoolController

                    self._controller = ThreadpoolController()
                _take_control()
                self._limit = self._controller.limit(limits=1, user_api="blas")

    def release(self) -> None:
        """As many threads as before, where nobody else holds it."""
        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                _take_control()
                self._limit.restore_original_limits()
                _take_control()


def _take_control() -> None:
    """Let any thread set OpenBLAS's limits: threadpoolctl lets the first one that did so keep them to itself."""
    from threadpoolctl import OpenBLASController

    if hasattr(OpenBLASController, "clear_controlling_thread"):  # since 3.7
        OpenBLASController.clear_controlling_thread(force=True)
