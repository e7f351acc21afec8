"""What all tests share: the devices of this machine, hypothesis' settings, and one BLAS thread.

`--device NAME` (may be repeated) restricts the tests that run on every device to those named.
"""

import os

import numpy as np
import pytest
import standin
from hypothesis import settings
from threadpoolctl import threadpool_limits

from minicvae.gradcheck import assert_gradients
from minicvae.kernels import DEVICES, load

# CI, which a change waits for, draws fewer cases and always the same ones; everybody else's differ from run to run.
settings.register_profile("minicvae", deadline=None, max_examples=25)
settings.register_profile("ci", deadline=None, max_examples=10, derandomize=True)
settings.load_profile("ci" if "CI" in os.environ else "minicvae")


def pytest_addoption(parser):
    parser.addoption(
        "--stand-in",
        action="store_true",
        help="let the device cuda be there without a GPU: strict arrays of the host instead of CuPy's (tests/standin)",
    )
    parser.addoption(
        "--no-pool",
        action="store_true",
        help="give every array on the GPU memory of its own, so that compute-sanitizer sees where each one ends",
    )
    parser.addoption(
        "--device",
        action="append",
        choices=DEVICES,
        help="run the tests that take a device on this one only; may be repeated (default: all that are there)",
    )


def pytest_configure(config):
    if config.getoption("--stand-in"):
        standin.install()
    if config.getoption("--no-pool"):
        import cupy

        cupy.cuda.set_allocator(None)


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread():
    """The arrays of the tests are small: a second thread would only make the tests wait for each other."""
    with threadpool_limits(1, user_api="blas"):
        yield


def _kernels(request):
    """The kernels of the device that the parameter names; or the test is skipped, and says why."""
    chosen = request.config.getoption("--device")
    if chosen and request.param not in chosen:
        pytest.skip(f"--device {' '.join(chosen)}")
    try:
        return load(request.param)
    except RuntimeError as error:
        if chosen:  # by name: where it is not there, nothing was tested
            raise
        pytest.skip(str(error))


@pytest.fixture(
    scope="session",
    params=[pytest.param(name, marks=pytest.mark.cuda if name == "cuda" else ()) for name in DEVICES],
)
def kernels(request):
    """The kernels of a device: the test runs once on each that this machine has."""
    return _kernels(request)


@pytest.fixture(scope="session")
def device(kernels):
    """The name of a device: the test runs once on each that this machine has."""
    return kernels.name


@pytest.fixture(scope="session", params=["numpy", "cpu"])
def host(request):
    """The kernels of a device whose arrays are NumPy's, which the gradient checker can move."""
    return _kernels(request)


@pytest.fixture(scope="session")
def assert_slopes():
    """assert_slopes(forward, inputs, **options): backward gives the slopes, and every element was compared.

    By differences, for the complex step would have every kernel compiled anew for complex numbers.
    """

    def check(forward, inputs, **options):
        report = assert_gradients(forward, inputs, method="differences", max_left_out=0.0, **options)
        vanishing = options.get("vanishing", ())
        for row, x in zip(report.rows, inputs, strict=False):  # a last row is of all inputs together
            assert row.name in vanishing or row.checked == np.size(x), str(report)

    return check
