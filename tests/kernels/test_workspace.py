"""The workspace: every request of a step has memory of its own, and the next step has the same memory again."""

import itertools
import threading

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minicvae.kernels import load
from minicvae.kernels.workspace import LINE, Scratch, Workspace

requests = st.lists(
    st.tuples(st.lists(st.integers(1, 5), max_size=3).map(tuple), st.sampled_from([np.float32, np.float64])),
    min_size=1,
    max_size=6,
)


def address(array):
    return array.__array_interface__["data"][0]


def step(workspace, wanted):
    workspace.begin()
    return [workspace.empty(shape, dtype) for shape, dtype in wanted]


def assert_apart(arrays):
    assert not any(np.shares_memory(a, b) for a, b in itertools.combinations(arrays, 2))


@given(wanted=requests)
def test_the_same_step_gets_the_same_memory_and_no_two_requests_share_it(wanted):
    workspace = Workspace()
    first, second = step(workspace, wanted), step(workspace, wanted)
    assert_apart(first)
    assert [address(a) for a in first] == [address(a) for a in second]


@given(steps=st.lists(requests, min_size=1, max_size=5))
def test_every_request_is_met_in_shape_and_type_whatever_came_before(steps):
    workspace = Workspace()
    for wanted in steps:
        arrays = step(workspace, wanted)
        assert [(a.shape, a.dtype) for a in arrays] == [(shape, np.dtype(dtype)) for shape, dtype in wanted]
        assert all(a.flags.c_contiguous and a.flags.writeable and address(a) % LINE == 0 for a in arrays)
        assert_apart(arrays)


@given(n=st.integers(2, 9), rest=st.lists(st.integers(1, 3), max_size=2), data=st.data())
def test_a_shorter_last_batch_is_a_view_and_the_longer_one_has_its_memory_back(n, rest, data):
    fewer = data.draw(st.integers(1, n - 1))
    workspace = Workspace()
    (whole,), (part,), (again,) = (step(workspace, [((rows, *rest), np.float32)]) for rows in (n, fewer, n))
    assert address(part) == address(whole) == address(again)
    assert (part.shape, again.shape) == ((fewer, *rest), (n, *rest))
    assert np.shares_memory(part, whole)


@given(wanted=requests)
def test_outside_a_loop_of_steps_nothing_is_handed_out_twice(wanted):
    workspace = Workspace()
    before = [workspace.empty(shape, dtype) for shape, dtype in wanted * 2]
    inside = step(workspace, wanted)
    workspace.end()
    after = [workspace.empty(shape, dtype) for shape, dtype in wanted * 2]
    assert_apart([*before, *inside, *after])
    assert all(address(a) % LINE == 0 for a in (*before, *inside, *after))


def test_the_cpu_kernels_overwrite_within_a_loop_and_never_after_it():
    kernels = load("cpu")
    rows, one, two = np.eye(2), np.ones(2), np.full(2, 2.0)
    kernels.begin_step()
    first = kernels.scale_rows(rows, one)
    kernels.begin_step()
    second = kernels.scale_rows(rows, two)
    kernels.end_steps()
    assert address(first) == address(second)
    third, fourth = kernels.scale_rows(rows, one), kernels.scale_rows(rows, two)
    np.testing.assert_array_equal(second, 2 * rows)
    np.testing.assert_array_equal(third, rows)
    np.testing.assert_array_equal(fourth, 2 * rows)


@given(shape=st.lists(st.integers(1, 5), max_size=3).map(tuple), dtype=st.sampled_from(["f4", "f8", "i8"]))
def test_zeros_begin_at_a_line_and_are_for_keeps(shape, dtype):
    kernels = load("cpu")
    for used in [kernels.empty(shape, dtype) for _ in range(2)]:
        used[...] = 1  # and given back
    kernels.begin_step()
    arrays = [kernels.zeros(shape, dtype) for _ in range(2)]
    kernels.end_steps()
    for a in arrays:
        assert (a.shape, a.dtype, address(a) % LINE) == (shape, np.dtype(dtype), 0)
        np.testing.assert_array_equal(a, 0)
    assert_apart(arrays)


@given(calls=st.lists(st.lists(requests.map(lambda wanted: wanted[0]), min_size=1, max_size=3), min_size=1, max_size=4))
def test_scratch_memory_is_apart_within_a_call_and_the_same_in_the_next(calls):
    scratch = Scratch()
    for call in calls:
        shapes, dtype = [shape for shape, _ in call], call[0][1]
        pieces = scratch.empty(*shapes, dtype=dtype)
        assert [(p.shape, p.dtype) for p in pieces] == [(shape, np.dtype(dtype)) for shape in shapes]
        assert all(p.flags.c_contiguous and p.flags.writeable and p.flags.aligned for p in pieces)
        assert_apart(pieces)
        starts = np.array([address(p) for p in pieces])
        assert starts[0] % LINE == 0
        assert (np.diff(starts) % LINE == 0).all()  # no two threads, nor two pieces, write to one cache line
        assert (np.diff(starts) - [p.nbytes for p in pieces[:-1]] < LINE).all()
        assert [address(p) for p in scratch.empty(*shapes, dtype=dtype)] == [address(p) for p in pieces]


def test_each_thread_has_scratch_memory_of_its_own():
    scratch, found = Scratch(), []
    (mine,) = scratch.empty((5,), dtype=np.float32)
    thread = threading.Thread(target=lambda: found.extend(scratch.empty((5,), dtype=np.float32)))
    thread.start()
    thread.join()
    assert not np.shares_memory(mine, found[0])
