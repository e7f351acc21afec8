"""The team: every share runs once, whoever runs it, from several threads at once, after a fork and after an error."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae.kernels import compiled
from minicvae.kernels.compiled import kernel
from minicvae.kernels.team import TAKEN, Team, bounds, shared


@kernel
def _count_share(counts, share, shares):
    start, stop = bounds(len(counts), 3, share, shares)
    for i in range(start, stop):
        counts[i] += 1


_share_count = shared(_count_share)


@kernel
def count(board, shares, counts):
    """counts += 1, shared out."""
    _share_count(board, shares, (counts,))


@pytest.fixture(scope="module")
def team():
    return Team(3)


@given(st.integers(0, 300), st.integers(1, 20), st.integers(1, 9))
def test_the_shares_cover_everything_once_and_begin_at_whole_units(n, unit, shares):
    parts = [bounds(n, unit, share, shares) for share in range(shares)]
    assert [i for start, stop in parts for i in range(start, stop)] == list(range(n))
    assert all(start % unit == 0 or start == n for start, _ in parts)


@given(st.integers(1, 7), st.integers(0, 100))
def test_every_share_runs_once(team, shares, n):
    counts = np.zeros(n, np.int64)
    for _ in range(20):
        count(team.board(), shares, counts)
    assert (counts == 20).all()


def test_helpers_that_sleep_are_woken_and_help(team):
    counts = np.zeros(3, np.int64)
    count(team.board(), 3, counts)
    deadline = time.monotonic() + 30
    while len(team._asleep) < 2:
        assert time.monotonic() < deadline, "the helpers do not go to sleep"
        time.sleep(0.01)
    team.board()
    assert not team._asleep
    count(team.board(), 3, counts)
    assert (counts == 2).all()


def test_many_threads_may_use_one_team_at_once(team):
    counts = np.zeros((4, 100), np.int64)

    def work(mine):
        for _ in range(3000):
            count(team.board(), 4, mine)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in counts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (counts == 3000).all()


def test_a_team_that_another_thread_has_is_not_waited_for(team):
    board, counts = team.board(), np.zeros(10, np.int64)
    board[TAKEN] = 1
    try:
        count(board, 3, counts)
    finally:
        board[TAKEN] = 0
    assert (counts == 1).all()


FORKED = """
import os, warnings
import numpy as np
from minicvae.kernels import load
from minicvae.kernels.reference import Reference
kernels = load("cpu")
x = np.random.default_rng(0).standard_normal((64, 784)).astype(np.float32)
W, b = x[:32].T.copy(), np.zeros(32, np.float32)
before = kernels.dense((x,), W, b, "relu").copy()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # newer Pythons warn that threads do not survive a fork
    child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(kernels.dense((x,), W, b, "relu"), before) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_has_a_team_of_its_own():
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=120)
    assert done.stdout == "0\n", done.stderr


def test_an_edit_of_any_file_of_the_kernels_compiles_all_anew(tmp_path, monkeypatch):
    here = compiled.sources.__wrapped__()
    assert count._cache._cache_file._source_stamp == here == compiled.sources()
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "compiled.py"))
    seen = set()
    for name, text in (("a.py", "1"), ("a.py", "2"), ("b.py", "2")):
        (tmp_path / name).write_text(text)
        seen.add(compiled.sources.__wrapped__())
    assert len(seen) == 3
