"""Kernels that call kernels: one copy of each, there before its callers are, and errors that come through."""

import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import config

from minicvae.kernels import linking
from minicvae.kernels.compiler import kernel

compiled_only = pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")


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
kernels = [k for k in (top, call, other, leaf.leaf) if hasattr(k, "stats")]
print(*(sum(k.stats.cache_hits.values()) for k in kernels), *(sum(k.stats.cache_misses.values()) for k in kernels))
""",
)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(program, *words): what a new process prints; modules lie in tmp_path, with a cache of their own."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    write(tmp_path, leaf=LEAF, middle=MIDDLE, top=TOP)

    def run(program, *words):
        done = subprocess.run(
            [sys.executable, tmp_path / f"{program}.py", *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


def write(folder, **modules):
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)


NUMBERS = "[0.0, 8.0, 16.0]"


@compiled_only
def test_what_a_caller_calls_is_loaded_from_disk_before_the_caller(run, tmp_path):
    assert run("top", "float32") == f"{NUMBERS} 0 0 0 0 1 1 1 1"
    assert run("top", "float32") == f"{NUMBERS} 1 1 1 1 0 0 0 0"
    assert run("top", "float32", "float64") == f"{NUMBERS} {NUMBERS} 1 1 1 1 1 1 1 1"
    for path in tmp_path.rglob("leaf.leaf-*"):
        path.unlink()
    assert run("top", "float64") == f"{NUMBERS} 1 1 1 0 0 0 0 1"


@compiled_only
@pytest.mark.parametrize(
    ("change", "numbers", "found", "anew"),
    [
        (("2 * x", "3 * x"), "[0.0, 27.0, 54.0]", "1 1 1 0", "0 0 0 1"),  # its callers call what there is
        (("y[:] = 2 * x", "y[:] = 2 * x\n    return 1.5"), NUMBERS, "1 0 0 0", "0 1 1 1"),  # another type, another name
        (
            ("import kernel\n\n@kernel", "import inlined\n\n@inlined"),
            NUMBERS,
            "1 0 0",
            "0 1 1",
        ),  # it has no name any more
    ],
)
def test_a_caller_from_disk_whose_callee_is_another_by_now_calls_that(run, tmp_path, change, numbers, found, anew):
    run("top", "float32")
    write(tmp_path, leaf=LEAF.replace(*change))
    assert run("top", "float32") == f"{numbers} {found} {anew}"
    all_found = found.replace("0", "1")
    assert run("top", "float32") == f"{numbers} {all_found} {all_found.replace('1', '0')}"


COPIES = """
from minicvae.kernels.compiler import inlined, kernel
from leaf import leaf
import numpy as np

@inlined
def shape_of(x):
    return len(x), x[:1] + 1

@kernel
def caller(x):
    leaf(x, x)
    n, first = shape_of(x)
    return n + first[0]

@kernel
def local(x):
    return x + 1

def made(factor):
    @kernel
    def scaled(x):
        return factor * x

    return scaled

double, triple = made(2), made(3)

@kernel
def calls_local(x):
    return local(x) + double(x) + triple(x)

@kernel
def calls_first(x):
    return double(x)

if __name__ == "__main__":
    print(caller(np.arange(3.0)), calls_local(1), calls_first(1), shape_of(np.arange(3)))
    for name in "leaf", "local", "scaled", "shape_of":
        print(name, end=": ")
        for function in caller, calls_local:
            functions = function.overloads[function.signatures[0]].library._final_module.functions
            if any(f.is_declaration and f".{name}(" in f.name for f in functions):
                print(function.__name__, end="")
        print(end="; ")
"""


@compiled_only
def test_a_caller_holds_the_name_of_what_can_be_found_by_it_and_copies_of_all_else(run, tmp_path):
    write(tmp_path, copies=COPIES)
    numbers, declared = run("copies").splitlines()
    assert numbers == "4.0 7 2 (3, array([1]))"
    assert declared == "leaf: caller; local: ; scaled: ; shape_of: ;"
    assert run("copies").splitlines()[0] == numbers
    write(tmp_path, others=COPIES, again="import others\nprint(others.calls_local(1), others.calls_first(1))")
    for _ in range(2):
        assert run("again") == "7 2"


@compiled_only
def test_a_kernel_gets_its_name_while_nobody_else_compiles(monkeypatch):
    """One thread is held while the copy that callers had is out and the name not yet in."""
    held, go_on, found, context = threading.Event(), threading.Event(), [], scaled.targetctx

    def insert(function, described, libraries=()):
        if isinstance(described, linking.ExternalFunctionDescriptor) and not held.is_set():
            held.set()
            go_on.wait(timeout=60)
        type(context).insert_user_function(context, function, described, libraries)

    monkeypatch.setattr(context, "insert_user_function", insert)
    x = np.zeros((2, 2, 2), np.complex64)  # of a type that nothing has been compiled for
    calls = lambda: found.append(scaled(x, 1, False).sum()), lambda: found.append(twice(x).sum())
    threads = [threading.Thread(target=call) for call in calls]
    threads[0].start()
    assert held.wait(timeout=60)
    threads[1].start()
    threads[1].join(timeout=1)
    go_on.set()
    for thread in threads:
        thread.join()
    assert found == [0, 0]


@compiled_only
def test_where_nothing_is_kept_on_disk_kernels_call_kernels_too():
    program = """
from numba.core import caching
caching.CacheImpl._locator_classes = []
from minicvae.kernels import compiler
compiler.PLACES = "minicvae.kernels.compiler.Nowhere"
compiler.Nowhere = type("Nowhere", (), {"from_function": lambda *given: None})
import numpy as np
from minicvae.kernels import compiled_products as p
c = np.zeros((3, 3))
p.product(np.eye(3), np.ones((3, 3)), False, c, False)
print(c.sum(), p.multiply.stats.cache_path)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "9.0 None\n", done.stderr
