"""The model as users hold it: the mathematics of `ConditionalVAE`, with fit, evaluate, summary, save and load."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from minicvae import checkpoint, conditions, distributions, layers, objectives, optimizers, summary, training
from minicvae.description import describe, restore
from minicvae.evaluate import evaluate, log_likelihood
from minicvae.layers import Layer
from minicvae.models.adversarial import Adversary
from minicvae.models.cvae import ConditionalVAE
from minicvae.models.presets import PRESETS, find

__all__ = ["CVAE", "build", "load", "presets"]

_ARCHITECTURE = ("encoder", "decoder", "condition", "latent_dim", "image_shape", "likelihood", "objective", "adversary")


class CVAE(ConditionalVAE):
    """A conditional VAE that can be trained, measured, shown and saved. Its arguments are `ConditionalVAE`'s."""

    preset: str | None = None

    def fit(self, x: Any, c: Any, **settings: Any) -> training.History:
        """Train in place; the settings and errors are those of `minicvae.training.fit`."""
        return training.fit(self, x, c, **settings)

    def evaluate(self, x: Any, c: Any, *, seed: int = 0) -> dict[str, float]:
        """{"loss", "reconstruction", "kl", ...} in nats per example; see `minicvae.evaluate`."""
        return evaluate(self, x, c, seed=seed)

    def log_likelihood(self, x: Any, c: Any, samples: int = 5000, *, seed: int = 0) -> np.ndarray:
        """log p(x|c) of each example by importance sampling, (n,) nats; see `minicvae.evaluate.log_likelihood`."""
        return log_likelihood(self, x, c, samples, seed=seed)

    def summary(self) -> str:
        """Print the table of layers, output shapes and parameter counts; return it too."""
        table = summary.summary(self)
        print(table)
        return table

    @property
    def config(self) -> dict[str, Any]:
        """All that is needed to build the model anew, as JSON data."""
        architecture = {name: describe(getattr(self, name)) for name in _ARCHITECTURE}
        return {"preset": self.preset, "dtype": self.dtype, **architecture}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights and configuration into one safetensors file, whole or not at all."""
        arrays = ((name, self.kernels.to_numpy(value)) for name, value in self.parameters.items())
        checkpoint.write(path, self.config, arrays)


def build(preset: str, *, seed: int = 0, dtype: str = "float32", device: str = "cpu", **overrides: Any) -> CVAE:
    """The preset of that name, with weights initialised from `seed`.

    overrides: latent_dim, encoder_widths, decoder_widths, condition, classes, image_shape, likelihood, objective,
    beta, free_bits, discriminator_widths, adversarial_weight.

    Raises
    ------
    ValueError
        For an unknown preset, dtype or device, or a size that does not fit.
    TypeError
        For an override that there is not.
    RuntimeError
        If the device is not there.
    """
    architecture = find(preset).override(**overrides).architecture()
    model = CVAE(**architecture, seed=seed, dtype=dtype, device=device)
    model.preset = preset
    return model


def load(path: str | os.PathLike[str], *, device: str = "cpu", classes: Iterable[type] = ()) -> CVAE:
    """The model that `save` wrote, on `device`. classes: your own layers, conditions or likelihoods, if it has any.

    path: the file, or a run folder that holds `model.safetensors`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a model's file, is damaged, or names a type that is not known.
    """
    if os.path.isdir(path):
        path = os.path.join(path, "model.safetensors")
    config, weights = checkpoint.read(path)
    known: list[type] = [v for v in vars(layers).values() if isinstance(v, type) and issubclass(v, Layer)]
    known += [*conditions.CONDITIONS, *distributions.LIKELIHOODS, *objectives.OBJECTIVES, Adversary]
    known += [*optimizers.OPTIMIZERS.values(), *classes]
    try:
        model = CVAE(
            **{name: restore(config[name], known) for name in _ARCHITECTURE}, dtype=config["dtype"], device=device
        )
        model.preset = config["preset"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: the configuration makes no model: {error}") from error
    if set(weights) != set(model.parameters):
        differing = sorted(set(weights) ^ set(model.parameters))
        raise ValueError(f"{path}: the weights do not fit the configuration; they differ in {', '.join(differing)}")
    for name, value in weights.items():
        model.parameters[name] = np.asarray(value)
    return model


def presets() -> dict[str, str]:
    """The presets: name -> one line each."""
    return {name: preset.summary for name, preset in PRESETS.items()}
