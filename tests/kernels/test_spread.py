"""Sharing out: every piece is done once, by whoever is free, and nobody waits for who is not."""

import os
import threading
import time
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from minicvae.kernels.cpu import Cpu
from minicvae.kernels.job import Job
from minicvae.kernels.spread import FRAME, LINE, MOST, OPEN, TAKEN, Helpers, add, alone, cores, read, take


@njit(nogil=True)
def mark(queue, seen):
    """One more for every piece that is taken."""
    i = take(queue, len(seen))
    while i < len(seen):
        seen[i] += 1
        i = take(queue, len(seen))


@njit(nogil=True)
def meet(queue, present, patience):
    """Say that one more is here, and wait until there are two, though not for ever."""
    add(present, 0, 1)
    waited = 0
    while read(present, 0) < 2 and waited < patience:
        waited = take(queue, patience)


@given(size=st.integers(1, 4), lengths=st.lists(st.integers(0, 300), min_size=1, max_size=20))
def test_every_piece_of_every_job_is_done_once(size, lengths):
    helpers = Helpers(size)
    for length in lengths:
        seen = np.zeros(length, np.int64)
        Job(mark, (seen,)).run(helpers.state)
        assert np.all(seen == 1)
        state = helpers.state
        assert state[OPEN] == state[TAKEN] == 0


@given(shares=st.integers(1, MOST), pieces=st.integers(0, 60), data=st.data())
def test_each_thread_takes_its_own_share_in_a_row_and_then_what_others_left(shares, pieces, data):
    counts, taken = np.zeros(shares * LINE, np.int64), [[] for _ in range(shares)]
    present = set(range(shares))
    while present:
        thread = data.draw(st.sampled_from(sorted(present)))
        number = take((counts, thread), pieces)
        if number == pieces:
            present.remove(thread)
        else:
            taken[thread].append(number)
    assert sorted(number for of_one in taken for number in of_one) == list(range(pieces))
    for thread, numbers in enumerate(taken):
        share = range(thread * pieces // shares, (thread + 1) * pieces // shares)
        own = [number for number in numbers if number in share]
        assert numbers[: len(own)] == sorted(own)  # first of all, and one after the other


@given(shares=st.integers(1, MOST), each=st.integers(1, 20))
def test_the_shares_are_alike(shares, each):
    counts = np.zeros(shares * LINE, np.int64)
    for turn in range(each):
        for thread in range(shares):
            assert take((counts, thread), shares * each) == thread * each + turn


def met(helpers):
    """Whether one helper or more come while the caller waits; on a busy machine it may have to wait for long."""
    end = time.monotonic() + 60  # seconds
    while time.monotonic() < end:
        present = np.zeros(1, np.int64)
        Job(meet, (present, 10**6)).run(helpers.state)
        if present[0] >= 2:
            return True
    return False


@pytest.mark.parametrize("nap", [0, 0.05])  # seconds: helpers are asleep after the second
def test_a_helper_joins_the_caller_awake_or_asleep(nap):
    helpers = Helpers(2)
    for _ in range(3):
        assert met(helpers)
        time.sleep(nap)


@njit(nogil=True)
def fail(queue, seen, bad):
    i = take(queue, len(seen))
    while i < len(seen):
        if i == bad:
            raise ValueError
        seen[i] += 1
        i = take(queue, len(seen))


@pytest.mark.parametrize("size", [1, 3])
def test_a_kernel_that_fails_is_told_and_leaves_all_as_it_was(size):
    helpers = Helpers(size)
    for bad in range(50):
        with pytest.raises(MemoryError):
            Job(fail, (np.zeros(50, np.int64), bad)).run(helpers.state)
        seen = np.zeros(20, np.int64)
        Job(mark, (seen,)).run(helpers.state)
        assert np.all(seen == 1)
    state = helpers.state
    assert state[OPEN] == state[TAKEN] == 0


@njit(nogil=True)
def halve(queue, there, present, number, found):
    """Number / 2, wherever a thread has come."""
    thread = add(there, 0, 1)
    found[thread] = number[0] / 2
    meet(queue, present, 10**6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(size=st.floats(1, 1.99))
def test_numbers_below_the_smallest_normal_one_are_zero_on_every_thread_and_only_in_kernels(dtype, size):
    smallest = dtype(size) * np.finfo(dtype).tiny
    for helpers in (Helpers(1), alone_or_with_others()[1]):
        assert len(helpers.state) > 0
        there, found = np.zeros(1, np.int64), np.full(MOST, np.nan, dtype)
        Job(halve, (there, np.zeros(1, np.int64), np.array([smallest]), found)).run(helpers.state)
        assert (found[: there[0]] == 0).all()
        assert np.isnan(found[there[0] :]).all()
        assert np.array([smallest])[0] / dtype(2) > 0  # here again as ever


def test_without_helpers_the_caller_does_all():
    seen, present = np.zeros(50, np.int64), np.zeros(1, np.int64)
    Job(mark, (seen,)).run(alone())
    Job(meet, (present, 1000)).run(Helpers(1).state)
    assert np.all(seen == 1)
    assert present[0] == 1


def test_a_second_caller_works_by_itself_while_the_first_is_at_it():
    state, seen = alone(), np.zeros(9, np.int64)
    state[TAKEN] = 1
    state[FRAME] = -1
    Job(mark, (seen,)).run(state)
    assert np.all(seen == 1)
    with pytest.raises(MemoryError):
        Job(fail, (seen, 4)).run(state)
    assert np.array([np.finfo(np.float64).tiny])[0] / 2 > 0  # whatever happened, subnormal numbers are here again
    assert (state[TAKEN], state[OPEN], state[FRAME]) == (1, 0, -1)


def test_many_callers_at_once_get_what_is_theirs():
    helpers, wrong = Helpers(3), []

    def caller():
        for length in range(1, 200):
            seen = np.zeros(length, np.int64)
            Job(mark, (seen,)).run(helpers.state)
            if not np.all(seen == 1):
                wrong.append(length)

    callers = [threading.Thread(target=caller) for _ in range(3)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_has_helpers_of_its_own():
    helpers = Helpers(2)
    Job(mark, (np.zeros(5, np.int64),)).run(helpers.state)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if met(helpers) else 1
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_threads_begin_with_the_first_work_and_are_one_fewer_than_the_size():
    before, helpers = threading.active_count(), Helpers(3)
    assert threading.active_count() == before
    for _ in range(2):
        _ = helpers.state
        assert threading.active_count() == before + 2


@pytest.mark.parametrize(("there", "size"), [(1, 1), (3, 3), (MOST, MOST), (100, MOST)])
def test_there_are_as_many_threads_as_cores_and_not_too_many(monkeypatch, there, size):
    monkeypatch.setattr("minicvae.kernels.spread.cores", lambda: there)
    assert Helpers().size == size


def test_the_cores_are_those_that_the_process_may_use_or_all_where_nobody_can_tell(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", {0: {2, 3, 5}}.get, raising=False)  # 0 is the process itself
    assert cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    for there, found in ((5, 5), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda there=there: there)
        assert cores() == found


@cache
def alone_or_with_others():
    return Helpers(1), Helpers(4)


@given(n=st.integers(1, 300), d=st.integers(15, 200), seed=st.integers(0, 2**32 - 1))
def test_the_bits_do_not_depend_on_how_many_help(n, d, seed):
    assert met(alone_or_with_others()[1])
    rng, found = np.random.default_rng(seed), []
    x, W, b = (rng.standard_normal(shape, np.float32) for shape in ((n, 90), (90, d), (d,)))
    moments = [np.abs(rng.standard_normal(40_000, np.float32)) for _ in range(4)]
    for helpers in alone_or_with_others():
        k = Cpu()
        k.helpers = helpers
        y, sinks = k.dense([x], W, b, "tanh"), (np.empty_like(W), np.empty_like(b))
        (dx,) = k.dense_backward(y, [x], y, W, "tanh", *sinks, False, [True])
        value, grad, m, v = (a.copy() for a in moments)
        k.adam(value, grad, m, v, np.zeros(1, np.int64), 1e-3, 0.9, 0.999, 1e-8, 0.0)
        images, kernel, settings = (
            x[:, :80].copy().reshape(n, 4, 4, 5),
            W[:9, :15].copy().reshape(3, 3, 5, 3),
            ("tanh", (1, 1), "same"),
        )
        maps, of_maps = k.conv2d(images, kernel, b[:3], *settings), (np.empty_like(kernel), np.empty_like(b[:3]))
        of_images = k.conv2d_backward(maps, images, maps, kernel, *settings, *of_maps, False, True)
        found.append((y, dx, *sinks, value, m, v, maps, of_images, *of_maps))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
