"""Kernels that call kernels: one copy of each, there before its callers are, and errors that come through."""

import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import config

from minicvae.kernels.compiler import inlined, kernel

compiled_only = pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")


@inlined
def shape_of(x):
    return len(x), x[:1] + 1


@kernel
def scaled(x, factor, negative):
    if factor > 100:
        raise ValueError("never mind what")
    return -factor * x if negative else factor * x


@kernel
def twice(x):
    return scaled(x, 1, False) + scaled(x, 1, False)


@kernel
def opposite(x):
    return scaled(twice(x), 2, True)


@kernel
def too_much(x):
    return scaled(x, 101, False)


@kernel
def length_and_more(x):
    n, first = shape_of(x)
    return n + first[0]


@given(x=st.one_of(st.integers(-1000, 1000), st.floats(-1e9, 1e9)))
def test_kernels_call_kernels_with_any_type_of_number(x):
    assert (twice(x), opposite(x)) == (2 * x, -4 * x)


@given(dtype=st.sampled_from([np.float32, np.float64]), n=st.integers(1, 20))
def test_arrays_are_passed_and_returned(dtype, n):
    x = np.arange(n, dtype=dtype)
    y = opposite(x)
    np.testing.assert_array_equal(y, -4 * x)
    assert y.dtype == dtype


def test_an_error_of_the_callee_reaches_whoever_called_the_caller():
    with pytest.raises(ValueError, match="never mind what"):
        too_much(1.0)


@compiled_only
def test_for_zero_and_false_nothing_is_compiled_that_would_not_be_for_others():
    before = len(scaled.signatures)
    assert twice(np.int32(3)) == 6
    assert len(scaled.signatures) == before + 1
    scaled(np.int32(3), 17, True)
    assert len(scaled.signatures) == before + 1


@compiled_only
def test_a_caller_holds_no_copy_of_what_it_calls():
    twice(1.0)
    code = "".join(twice.inspect_llvm().values())
    defined = [line for line in code.splitlines() if line.startswith("define") and "scaled" in line]
    declared = [line for line in code.splitlines() if line.startswith("declare") and "test_linking.scaled" in line]
    assert (defined, bool(declared)) == ([], True)


@compiled_only
def test_a_caller_holds_a_copy_of_what_is_inlined():
    assert (length_and_more(np.arange(3.0)), shape_of(np.arange(3))) == (4, (3, [1]))
    assert "declare" not in "".join(
        line for text in length_and_more.inspect_llvm().values() for line in text.splitlines() if "shape_of" in line
    )


@compiled_only
def test_threads_may_be_the_first_to_compile_caller_and_callee_all_at_once():
    @kernel
    def inner(x):
        return x + 1

    @kernel
    def outer(x):
        return inner(x) + inner(x)

    meeting, found = threading.Barrier(4), []

    def first(function, value):
        meeting.wait(timeout=60)
        found.append(function(value))

    threads = [threading.Thread(target=first, args=given) for given in [(outer, 1), (inner, 1), (outer, 1), (inner, 1)]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [2, 2, 4, 4]


LEAF, MIDDLE, TOP = (
    """
from minicvae.kernels.compiler import kernel

@kernel
def leaf(x, y):
    y[:] = 2 * x
""",
    """
from minicvae.kernels.compiler import inlined, kernel
from leaf import leaf

@inlined
def through(x, y):
    leaf(x, y)

@kernel
def middle(x, y):
    through(x, y)
    leaf(y, y)
""",
    """
import sys
import numpy as np
from minicvae.kernels.compiler import kernel
import leaf, middle
from middle import through, middle as call

@kernel
def top(x, y):
    call(x, y)

@kernel
def other(x, y):
    through(x, y)

for dtype in sys.argv[1:]:
    x, y = np.arange(3, dtype=dtype), np.zeros(3, dtype)
    top(x, y)
    other(y, y)
    print(y.tolist(), end=" ")
kernels = top, call, other, leaf.leaf
print(*(sum(k.stats.cache_hits.values()) for k in kernels), *(sum(k.stats.cache_misses.values()) for k in kernels))
""",
)


@compiled_only
def test_what_a_caller_calls_is_loaded_from_disk_before_the_caller(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    for name, text in (("leaf", LEAF), ("middle", MIDDLE), ("top", TOP)):
        (tmp_path / f"{name}.py").write_text(text)

    def run(*dtypes):
        done = subprocess.run(
            [sys.executable, tmp_path / "top.py", *dtypes], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    numbers = "[0.0, 8.0, 16.0]"
    assert run("float32") == f"{numbers} 0 0 0 0 1 1 1 1"
    assert run("float32") == f"{numbers} 1 1 1 1 0 0 0 0"
    assert run("float32", "float64") == f"{numbers} {numbers} 1 1 1 1 1 1 1 1"
    for path in tmp_path.rglob("leaf.leaf-*"):
        path.unlink()
    assert run("float64") == f"{numbers} 1 1 1 0 0 0 0 1"


@compiled_only
def test_where_nothing_is_kept_on_disk_kernels_call_kernels_too():
    program = """
from numba.core import caching
caching.CacheImpl._locator_classes = []
from minicvae.kernels import compiler
compiler.PLACES = "minicvae.kernels.compiler.Nowhere"
compiler.Nowhere = type("Nowhere", (), {"from_function": lambda *given: None})

@compiler.kernel
def leaf(x):
    return x + 1

@compiler.kernel
def top(x):
    return leaf(x) + leaf(x)

print(top(1), leaf.stats.cache_path)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "4 None\n", done.stderr
