"""The device cuda for these tests: CuPy's stand-in everywhere, and the GPU itself where there is one."""

import sys

import pytest
import standin

from minicvae.kernels import Reference, load

GPU = pytest.param("gpu", marks=pytest.mark.cuda)


class Plain(Reference):
    """The reference itself on the device's arrays: what every kernel would be that no `.cu` file overrides."""

    name = "cuda"

    def to_numpy(self, values):
        return self.xp.asnumpy(values)


@pytest.fixture(scope="session")
def compiled():
    """The kernels of the `.cu` files on strict arrays, run by the host."""
    if standin.missing:
        pytest.skip(standin.missing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", standin.module(standin.RawModule))
        return load.__wrapped__("cuda")


def chosen(request):
    """The kernels that the parameter names."""
    if request.param == "plain":
        return Plain(standin.module(standin.RawModule))
    if request.param == "host":
        return request.getfixturevalue("compiled")
    if request.config.getoption("--stand-in"):
        pytest.skip("--stand-in: there is no GPU")
    try:
        return load("cuda")
    except RuntimeError as error:
        if "cuda" in (request.config.getoption("--device") or []):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session", params=["plain", "host", GPU])
def cuda(request):
    """The device cuda: plain expressions on strict arrays, the `.cu` files run by the host, and by a GPU."""
    return chosen(request)


@pytest.fixture(scope="session", params=["host", GPU])
def kernels_of_cuda(request):
    """The kernels of the `.cu` files, run by the host and by a GPU."""
    return chosen(request)


@pytest.fixture
def on_cuda(cuda, monkeypatch):
    """Lets everything that asks for the device cuda have these kernels."""
    for place in ("minicvae.models.base", "minicvae.layers.layer", "minicvae.classifier"):
        monkeypatch.setattr(f"{place}.load", lambda device: cuda if device == "cuda" else load(device))
    return cuda
