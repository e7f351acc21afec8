"""How a kernel is found, compiled and launched; and that every GPU's compiler takes every file."""

import ctypes
import re
import warnings
from importlib import metadata, util
from pathlib import Path

import numpy as np
import pytest
import standin

from minicvae.kernels.cuda import launch

cp = standin.module(standin.RawModule)
GPUS = ("sm_70", "sm_80", "sm_90")
SOURCES = {path.name: path.read_text() for path in Path(launch.__file__).parent.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def nvrtc():
    """NVIDIA's compiler of kernels, from its package `nvidia-cuda-nvrtc-cu12`; no GPU is needed."""
    try:
        found = [f for f in metadata.files("nvidia-cuda-nvrtc-cu12") or [] if re.fullmatch(r"libnvrtc\.so\.12", f.name)]
    except metadata.PackageNotFoundError:
        pytest.skip("nvidia-cuda-nvrtc-cu12 is not installed: the CUDA kernels are not compiled for GPUs")
    return ctypes.CDLL(str(found[0].locate()))


def compiled(nvrtc, file, dtype, gpu, *defines):
    """(the compiler's verdict, 0 where it is content; what it said)."""
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), launch.source(file).encode(), file.encode(), 0, None, None)
    told = [option.encode() for option in (*launch.options(dtype, defines), f"--gpu-architecture={gpu}")]
    verdict = nvrtc.nvrtcCompileProgram(program, len(told), (ctypes.c_char_p * len(told))(*told))
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return verdict, log.value.decode()


# Every file as it is, and those with products in all ways in which they are launched: for older GPUs in some.
WAYS = [(f"TILE={tile}", *more) for tile in (32, 64, 8) for more in ((), ("TF32",))]
VARIANTS = [
    (file, dtype, defines, gpu)
    for file in launch.files()
    for dtype in ("float32", "float64")
    for defines in (WAYS if "product.cuh" in SOURCES[file] else [()])
    for gpu in GPUS
    if (dtype == "float32" or "TF32" not in defines)
    and (gpu == GPUS[-1] or not defines or (dtype == "float32" and "TILE=32" in defines))
]


@pytest.mark.parametrize(("file", "dtype", "defines", "gpu"), VARIANTS)
def test_every_file_compiles_for_every_gpu_without_a_warning(nvrtc, file, dtype, defines, gpu):
    verdict, log = compiled(nvrtc, file, dtype, gpu, *defines)
    said = [line for line in log.splitlines() if line and "Architectures prior to" not in line]
    assert (verdict, said) == (0, [])


def test_the_compiler_is_really_asked(nvrtc, monkeypatch):
    monkeypatch.setattr(launch, "source", lambda file: 'extern "C" __global__ void broken(int* a) { a[0] = nothing; }')
    verdict, log = compiled(nvrtc, "broken.cu", "float32", "sm_80")
    assert verdict != 0
    assert "nothing" in log


def test_every_kernel_stands_once_and_is_launched_by_its_name():
    names = [kernel.name for file in launch.files() for kernel in launch.parse(SOURCES[file], file)]
    assert len(names) == len(set(names)) > 20
    assert sum(text.count("__global__") for text in SOURCES.values()) == 2  # in KERNEL and PRODUCT: no kernel escapes
    python = "".join(text for name, text in SOURCES.items() if name.endswith(".py"))
    assert set(names) <= set(re.findall(r'"(\w+)"', python))


def test_no_kernel_adds_in_an_order_that_chance_decides():
    """All that is atomic is the ticket of those who share a sum: it says who adds up, not in which order."""
    atomic = [line.strip() for name, text in SOURCES.items() if ".cu" in name for line in text.splitlines()]
    atomic = [line for line in atomic if "atomic" in line]
    assert atomic == ["last = atomicAdd(ticket, 1) == count - 1;"]


def test_a_declaration_is_read_with_its_types():
    text = "// KERNEL no(int a)\nKERNEL some(const real* a, label *b,\n            int n, real x) {\n    call(a);\n}\n"
    pairs = ("const real*", "a"), ("label*", "b"), ("int", "n"), ("real", "x")
    assert launch.parse(text, "f.cu") == [launch.Declaration("some", "f.cu", pairs)]


def test_the_activations_have_the_same_numbers_on_both_sides():
    names = re.search(r"enum \{ (.*?) \}", SOURCES["common.cuh"])[1].lower().split(", ")
    assert tuple(names) == launch.ACTIVATIONS


@pytest.fixture(scope="module")
def launcher():
    if standin.missing:
        pytest.skip(standin.missing)
    return launch.Launcher(cp)


def huge():
    """An array of 2^31 numbers, all in one place."""
    return standin.ndarray(np.broadcast_to(np.float32(0), (2, 2**30)))


def far_apart():
    """Few numbers, whose rows would lie 2^32 numbers apart."""
    return standin.ndarray(np.lib.stride_tricks.as_strided(np.zeros(3, np.float32), (2, 3), (2**34, 4)))


def scale(launcher, dtype="float32", **wrong):
    """A launch of `scale_rows`, with some arguments replaced."""
    rows = cp.asarray(np.arange(6, dtype=dtype).reshape(2, 3))
    given = {
        "rows": rows,
        "scale": cp.asarray(np.array([1, 2], dtype)),
        "y": cp.empty((2, 3), dtype),
        "d": 3,
        "size": 6,
    }
    given |= wrong
    launcher("scale_rows", dtype, 1, *given.values())
    return given["y"].get()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_kernel_runs_in_the_type_that_is_asked_for(launcher, dtype):
    y = scale(launcher, dtype)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, [[0, 1, 2], [6, 8, 10]])


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"rows": cp.zeros((2, 3), "float64")}, TypeError, "scale_rows: rows: expected .* float32, got float64"),
        ({"rows": cp.zeros((2, 6), "float32")[:, ::2]}, TypeError, "scale_rows: rows: .* with strides"),
        ({"scale": cp.zeros(2, "int64")}, TypeError, "scale_rows: scale: expected .* float32, got int64"),
        ({"size": 2**31}, OverflowError, "out of bounds"),
        (
            {"rows": huge()},
            OverflowError,
            "rows: expected at most 2147482624 numbers, got an array of 2147483648",
        ),
        ({"rows": far_apart()}, OverflowError, "scale_rows: rows: expected at most .*, got an array of 4294967298"),
        ({"more": 1}, TypeError, "scale_rows: expected 5 arguments, got 6"),
    ],
)
def test_an_argument_that_the_kernel_would_misread_is_refused(launcher, wrong, error, message):
    with pytest.raises(error, match=message):
        scale(launcher, **wrong)


def test_what_is_compiled_once_is_kept():
    asked = []

    class Module(standin.RawModule):
        def __init__(self, **given):
            asked.append(given["options"])
            super().__init__(**given)

    if standin.missing:
        pytest.skip(standin.missing)
    fresh = launch.Launcher(standin.module(Module))
    for dtype in ("float32", "float64", "float32"):
        scale(fresh, dtype)
    assert [options[-1] for options in asked] == ["-DREAL=float", "-DREAL=double"]


# The host that runs the kernels notices what a GPU would not say


def run(body, threads=64, blocks=2, size=100):
    """A kernel with that body over `size` numbers, which begin at 1."""
    if standin.missing:
        pytest.skip(standin.missing)
    code = launch.source("gather.cu") + f"\nKERNEL tried(real* a, int size) {{ {body} }}\n"
    a = cp.asarray(np.ones(size, np.float32))
    kernel = standin.RawModule(code=code, options=launch.options("float32")).get_function("tried")
    kernel((blocks,), (threads,), (a, np.int32(size)))
    return a.get()


def test_every_thread_of_every_block_runs_once():
    np.testing.assert_array_equal(run("if (place() < size) a[place()] += place();"), 1 + np.arange(100))


def test_writing_beyond_an_array_is_noticed():
    with pytest.raises(RuntimeError, match="tried writes beyond the memory"):
        run("a[place()] = 0;")


def test_a_barrier_that_only_some_threads_reach_is_noticed():
    with pytest.raises(RuntimeError, match="ended while others waited"):
        run("if (threadIdx.x < 32) __syncthreads();")


@pytest.mark.parametrize("barrier", ["__syncthreads();", ""])
def test_a_missing_barrier_shows_when_the_threads_run_backwards(monkeypatch, barrier):
    body = f"__shared__ real s[64]; s[threadIdx.x] = threadIdx.x; {barrier} a[place()] = s[63 - threadIdx.x];"
    found = []
    for backwards in (False, True):
        monkeypatch.setitem(standin.ORDER, "backwards", backwards)
        found.append(run(body, blocks=1, size=64).tolist())
    assert (found[0] == found[1]) == bool(barrier)


def test_arrays_that_share_a_block_sum_do_not_mix():
    body = "real s = block_sum((real)1), t = block_sum((real)threadIdx.x); if (place() < size) a[place()] = s + t;"
    np.testing.assert_array_equal(run(body), 64 + 63 * 64 / 2)


def test_the_files_lie_where_an_installed_package_finds_them():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(util.find_spec("minicvae.kernels.cuda").origin).parent
    assert (folder / "common.cuh").is_file()
    assert {path.name for path in folder.glob("*.cu")} == set(launch.files())
