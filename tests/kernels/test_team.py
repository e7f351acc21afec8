"""The team: every row is worked on once, errors come home, and nothing depends on who is free."""

import os
import signal
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from minicvae.kernels import load
from minicvae.kernels.cpu import PER_NUMBER, WORTH_SHARING, Cpu
from minicvae.kernels.spread import MOST
from minicvae.kernels.team import SerialBlas, Team


def blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@given(size=st.integers(1, 5), lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_every_row_is_worked_on_once_in_parts_of_almost_equal_length(size, lengths):
    team = Team(size)
    for length in lengths:
        rows, parts = np.zeros(length, int), []

        def work(start, stop, rows=rows, parts=parts):
            rows[start:stop] += 1
            parts.append(stop - start)

        team.share(work, length)
        assert (rows == 1).all()
        assert max(parts) - min(parts) <= 1
        assert len(parts) <= size


@pytest.fixture
def two_blas_threads():
    """As many as BLAS would take by itself; the other tests keep it to one."""
    with threadpool_limits(2, user_api="blas"):
        yield


@pytest.mark.parametrize(("there", "size"), [(1, 1), (3, 3), (MOST, MOST), (100, MOST)])
def test_a_team_is_as_large_as_the_machine_has_cores_and_not_too_large(monkeypatch, there, size):
    monkeypatch.setattr("minicvae.kernels.team.cores", lambda: there)
    assert Team().size == Team(None).size == size


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_helpers_of_a_team_are_one_fewer_than_its_size_and_start_when_there_is_work(size):
    before, team = threading.active_count(), Team(size)
    assert threading.active_count() == before
    for _ in range(2):
        team.share(lambda start, stop: None, 8)
        assert threading.active_count() == before + size - 1


def test_the_parts_run_at_the_same_time():
    meeting = threading.Barrier(3)
    Team(3).share(lambda start, stop: meeting.wait(timeout=10), 3)


@given(size=st.integers(1, 4), bad=st.integers(0, 7))
def test_an_error_in_any_part_is_raised_and_the_team_works_on(size, bad):
    team, done = Team(size), []

    def work(start, stop):
        if start <= bad < stop:
            raise ZeroDivisionError(f"row {bad}")

    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match=f"row {bad}"):
            team.share(work, 8)
    team.share(lambda start, stop: done.extend(range(start, stop)), 8)
    assert sorted(done) == list(range(8))


def test_who_finds_the_team_busy_does_all_parts_alone_and_cuts_them_the_same():
    team, inner = Team(2), []

    def outer(start, stop):
        if start == 0:
            team.share(lambda i, j: inner.append((i, j, threading.get_ident())), 9)

    team.share(outer, 2)
    assert [(i, j) for i, j, _ in inner] == team.parts(9)
    assert {who for *_, who in inner} == {threading.get_ident()}


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there is no timer that interrupts")
def test_an_interrupted_wait_leaves_a_team_that_works():
    team, release = Team(2), threading.Event()

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            team.share(lambda start, stop: start and release.wait(10), 2)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    done = []
    team.share(lambda start, stop: done.append(start), 2)
    assert sorted(done) == [0, 1]
    release.set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_has_a_team_of_its_own():
    team = Team(2)
    team.share(lambda start, stop: None, 2)
    child = os.fork()
    if child == 0:
        done = []
        team.share(lambda start, stop: done.append(start), 2)
        os._exit(0 if sorted(done) == [0, 1] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.usefixtures("two_blas_threads")
def test_blas_keeps_to_one_thread_until_the_last_holder_lets_go():
    before, blas = blas_threads(), SerialBlas()
    blas.hold()
    blas.hold()
    assert set(blas_threads()) == {1}
    blas.release()
    assert set(blas_threads()) == {1}
    blas.release()
    assert set(blas_threads()) == set(before)


def in_a_thread(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.usefixtures("two_blas_threads")
def test_any_thread_may_hold_blas_and_any_may_let_go_of_it():
    before, blas = blas_threads(), SerialBlas()
    for hold in (blas.hold, lambda: in_a_thread(blas.hold)):
        for release in (blas.release, lambda: in_a_thread(blas.release)):
            hold()
            assert set(blas_threads()) == {1}
            release()
            assert set(blas_threads()) == set(before)
    with threadpool_limits(1, user_api="blas"):  # the user's own limits work as ever
        assert set(blas_threads()) == {1}
    assert in_a_thread(lambda: [blas.hold(), set(blas_threads()), blas.release()][1]) == {1}
    assert set(blas_threads()) == set(before)


@pytest.mark.usefixtures("two_blas_threads")
def test_a_loop_of_steps_holds_blas_from_its_first_images_on_and_lets_go_of_it_however_it_ends():
    before = blas_threads()

    def loop():
        k = load("cpu")
        with k.steps() as begin_step:
            begin_step()
            k.dense([np.ones((2, 3))], np.ones((3, 4)), np.zeros(4), "relu")
            assert set(blas_threads()) == set(before)
            for _ in range(2):
                k.conv2d(np.ones((1, 3, 3, 1)), np.ones((2, 2, 1, 2)), np.zeros(2), "relu", (1, 1), "same")
                assert set(blas_threads()) == {1}
                begin_step()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop()
    assert set(blas_threads()) == set(before)


@given(
    numbers=st.integers(0, WORTH_SHARING // PER_NUMBER),
    over=st.sampled_from([0, 1]),
    inside=st.booleans(),
    begun=st.booleans(),
)
def test_work_is_shared_out_inside_a_loop_that_has_begun_to_and_where_it_is_worth_it(numbers, over, inside, begun):
    products, alone, shared = WORTH_SHARING - numbers * PER_NUMBER + over, [], []

    class Recorder:
        def share(self, work, length):
            shared.append(length)

    k = Cpu()
    k.team = Recorder()
    with k.steps() as begin_step:
        if inside:
            begin_step()
        if begun:
            k.share(lambda start, stop: None, 1, 0, begin=True)
        k.share(lambda start, stop: alone.append((start, stop)), 7, numbers, products)
    assert (alone, shared) == (([], [7]) if inside and begun and over else ([(0, 7)], []))


@given(n=st.integers(1, 300), d=st.integers(1, 300), seed=st.integers(0, 2**32 - 1))
def test_inside_a_loop_of_steps_the_kernels_give_what_they_give_outside(n, d, seed):
    rng, k = np.random.default_rng(seed), load("cpu")
    x, W, b = (rng.standard_normal(shape) for shape in ((n, d), (d, 200), (200,)))
    dy, sinks = rng.standard_normal((n, 200)), [(np.empty_like(W), np.empty_like(b)) for _ in range(2)]

    def run(dW, db):
        y = k.dense([x], W, b, "relu")
        return [y.copy(), *(dx.copy() for dx in k.dense_backward(dy, [x], y, W, "relu", dW, db, False, [True])), dW, db]

    outside = run(*sinks[0])
    with k.steps() as begin_step:
        begin_step()
        k.share(lambda start, stop: None, 1, 0, begin=True)
        inside = run(*sinks[1])
    for a, b in zip(outside, inside, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-11)
