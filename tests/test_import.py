"""The door: quick, lazy, and with everything on it that it promises."""

import subprocess
import sys

import pytest

import minicvae as mc

HEAVY = ("numba", "llvmlite", "cupy", "matplotlib", "rich", "scipy", "pooch", "safetensors", "torch")


def loaded_by(program):
    """Which heavy modules a fresh interpreter has loaded after running `program`."""
    code = f"{program}\nimport sys\nprint(*(name for name in {HEAVY} if name in sys.modules))"
    return subprocess.check_output([sys.executable, "-c", code], text=True).split()


def test_importing_loads_nothing_heavy():
    assert loaded_by("import minicvae") == []


@pytest.mark.parametrize(
    "program",
    [
        "import minicvae as mc; mc.presets()",
        "import minicvae as mc; mc.layers.Dense(2, 3); mc.objectives.ELBO(); mc.schedules.Linear(0, 1)",
        "import minicvae as mc; mc.build('mlp', device='numpy').generate([1])",
    ],
)
def test_what_needs_nothing_heavy_loads_nothing_heavy(program):
    assert loaded_by(program) == []


def test_the_cpu_device_loads_its_compiler_and_no_other_library():
    assert set(loaded_by("import minicvae as mc; mc.kernels.load('cpu')")) <= {
        "numba",
        "llvmlite",
        "scipy",
    }  # Numba asks for SciPy itself


def test_the_cuda_device_does_not_load_the_compiler_of_the_other():
    assert loaded_by("import minicvae.kernels.cuda") == []


def test_everything_that_is_promised_is_there():
    for name in mc.__all__:
        assert getattr(mc, name) is not None
        assert name in dir(mc)
    assert mc.__version__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'minicvae' has no attribute 'nonsense'"):
        _ = mc.nonsense
    assert not hasattr(mc, "nonsense")
