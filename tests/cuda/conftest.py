"""The device cuda without a GPU, for these tests alone: `load("cuda")` gives kernels on the stand-in's arrays."""

import sys

import pytest
import standin

from minicvae.kernels import Reference, load


class Plain(Reference):
    """The reference itself on the device's arrays: what every kernel would be that no `.cu` file overrides."""

    name = "cuda"

    def to_numpy(self, values):
        return self.xp.asnumpy(values)


@pytest.fixture(scope="session", params=["plain", "kernels"])
def cuda(request):
    """The kernels of the device cuda on strict arrays: plain expressions, and the `.cu` files run by the host."""
    if request.param == "plain":
        return Plain(standin.module(standin.RawModule))
    if standin.missing:
        pytest.skip(standin.missing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", standin.module(standin.RawModule))
        return load.__wrapped__("cuda")


@pytest.fixture
def on_cuda(cuda, monkeypatch):
    """Lets everything that asks for the device cuda have the stand-in's."""
    for place in ("minicvae.models.base", "minicvae.layers.layer", "minicvae.classifier"):
        monkeypatch.setattr(f"{place}.load", lambda device: cuda if device == "cuda" else load(device))
    return cuda


@pytest.fixture(scope="session")
def compiled():
    """The kernels of the `.cu` files, run by the host."""
    if standin.missing:
        pytest.skip(standin.missing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", standin.module(standin.RawModule))
        return load.__wrapped__("cuda")
