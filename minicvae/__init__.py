"""minicvae: conditional variational autoencoders from the arrays up.

Hand-written layers and backpropagation on NumPy, Numba and CuPy arrays; no deep-learning framework and no automatic
differentiation. Everything is loaded when it is first asked for, so importing the package is quick.

    import minicvae as mc

    train, test = mc.datasets.load("mnist")
    model = mc.build("mlp", seed=0)
    model.fit(train.x, train.y, epochs=5)
    images = model.generate([7] * 10, seed=1)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minicvae import (
        callbacks,
        conditions,
        datasets,
        diagnostics,
        distributions,
        gradcheck,
        kernels,
        layers,
        masks,
        objectives,
        optimizers,
        plots,
        schedules,
    )
    from minicvae.gradcheck import assert_gradients, check_gradients
    from minicvae.model import CVAE, BaselineNet, ImageCVAE, build, load, presets

__version__ = "0.1.0"

_MODULES = (
    "callbacks",
    "conditions",
    "datasets",
    "diagnostics",
    "distributions",
    "gradcheck",
    "kernels",
    "layers",
    "masks",
    "objectives",
    "optimizers",
    "plots",
    "schedules",
)
_NAMES = {
    "BaselineNet": "model",
    "CVAE": "model",
    "ImageCVAE": "model",
    "build": "model",
    "load": "model",
    "presets": "model",
    "assert_gradients": "gradcheck",
    "check_gradients": "gradcheck",
}

__all__ = [
    "CVAE",
    "BaselineNet",
    "ImageCVAE",
    "assert_gradients",
    "build",
    "callbacks",
    "check_gradients",
    "conditions",
    "datasets",
    "diagnostics",
    "distributions",
    "gradcheck",
    "kernels",
    "layers",
    "load",
    "masks",
    "objectives",
    "optimizers",
    "plots",
    "presets",
    "schedules",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"minicvae.{name}")
    if name in _NAMES:
        return getattr(import_module(f"minicvae.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'minicvae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
