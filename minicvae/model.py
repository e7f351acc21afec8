"""The models as users hold them: the mathematics of `models/`, with fit, evaluate, save and load."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from minicvae import checkpoint, conditions, distributions, layers, objectives, optimizers, summary, training
from minicvae.description import describe, restore
from minicvae.evaluate import evaluate, log_likelihood
from minicvae.kernels import DEVICES
from minicvae.kernels import load as load_kernels
from minicvae.layers import Layer
from minicvae.models.adversarial import Adversary
from minicvae.models.base import Trainable
from minicvae.models.cvae import ConditionalVAE
from minicvae.models.presets import PRESETS, find, mlp
from minicvae.models.quadrants import Baseline, ImageConditionedVAE
from minicvae.objectives import ELBO
from minicvae.parameters import Parameters

__all__ = ["CVAE", "BaselineNet", "ImageCVAE", "build", "load", "presets"]


class Model(Trainable):
    """What users do with a model once it stands; a subclass says what it is made of."""

    architecture: tuple[str, ...]
    """The arguments that make the model anew: attributes that can be described as JSON data."""

    def fit(self, x: Any, c: Any, **settings: Any) -> training.History:
        """Train in place; the settings and errors are those of `minicvae.training.fit`."""
        return training.fit(self, x, c, **settings)

    def evaluate(self, x: Any, c: Any, *, seed: int = 0) -> dict[str, float]:
        """{"loss", "reconstruction", "kl", ...} in nats per example; see `minicvae.evaluate`."""
        return evaluate(self, x, c, seed=seed)

    def summary(self) -> str:
        """Print the table of layers, output shapes and parameter counts; return it too."""
        table = summary.summary(self)
        print(table)
        return table

    @property
    def config(self) -> dict[str, Any]:
        """All that is needed to build the model anew, as JSON data."""
        described = {name: describe(getattr(self, name)) for name in self.architecture}
        return {"kind": type(self).__name__, "dtype": self.dtype, **described}

    @property
    def stored(self) -> list[Parameters]:
        """All weights that a file of the model holds."""
        return [self.parameters]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights and configuration into one safetensors file, whole or not at all."""
        values = (item for parameters in self.stored for item in parameters.items())
        checkpoint.write(path, self.config, ((name, self.kernels.to_numpy(value)) for name, value in values))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str = "cpu", classes: Iterable[type] = ()) -> Self:
        """The model of this kind that `save` wrote, on `device`; arguments and errors as `minicvae.load` has them."""
        if os.path.isdir(path):
            path = os.path.join(path, "model.safetensors")
        config, weights = checkpoint.read(path)
        kind = config.get("kind", "CVAE")
        if kind == "training":
            raise ValueError(f"{path} holds a training, not a model: fit(checkpoint=...) goes on with it")
        if device not in DEVICES:
            load_kernels(device)  # where there is no such device it says so: it is not the file's fault
        if kind != cls.__name__:
            raise ValueError(f"{path} holds a model of the kind {kind}, not {cls.__name__}: use {kind}.load")
        known: list[type] = [v for v in vars(layers).values() if isinstance(v, type) and issubclass(v, Layer)]
        known += [*conditions.CONDITIONS, *distributions.LIKELIHOODS, *objectives.OBJECTIVES, Adversary]
        known += [*optimizers.OPTIMIZERS.values(), *classes]
        try:
            model = cls.from_config(config, known, device)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: the configuration makes no model: {error}") from error
        home = {name: parameters for parameters in model.stored for name in parameters}
        if set(weights) != set(home):
            differing = sorted(set(weights) ^ set(home))
            raise ValueError(f"{path}: the weights do not fit the configuration; they differ in {', '.join(differing)}")
        for name, value in weights.items():
            home[name][name] = np.asarray(value)
        return model

    @classmethod
    def from_config(cls, config: Mapping[str, Any], known: Sequence[type], device: str, **others: Any) -> Self:
        """The model of that configuration, its weights not yet loaded; others: arguments that are not in it."""
        described = {name: restore(config[name], known) for name in cls.architecture if name in config}
        return cls(**described, dtype=config["dtype"], device=device, **others)


class CVAE(Model, ConditionalVAE):
    """A conditional VAE that can be trained, measured, shown and saved. Its arguments are `ConditionalVAE`'s."""

    architecture = (
        "encoder",
        "decoder",
        "condition",
        "latent_dim",
        "image_shape",
        "likelihood",
        "objective",
        "prior",
        "adversary",
    )
    preset: str | None = None

    def log_likelihood(self, x: Any, c: Any, samples: int = 5000, *, seed: int = 0) -> np.ndarray:
        """log p(x|c) of each example by importance sampling, (n,) nats; see `minicvae.evaluate.log_likelihood`."""
        return log_likelihood(self, x, c, samples, seed=seed)

    @property
    def config(self) -> dict[str, Any]:
        """All that is needed to build the model anew, as JSON data."""
        return {"preset": self.preset, **super().config}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], known: Sequence[type], device: str, **others: Any) -> Self:
        """The model of that configuration, and the preset that it came from."""
        model = super().from_config(config, known, device, **others)
        model.preset = config["preset"]
        return model


class BaselineNet(Model, Baseline):
    """The single best answer to what is hidden of an image. Its arguments are `Baseline`'s.

    Here and in `ImageCVAE` the c of `fit` and `evaluate` is a mask, true where a pixel is hidden: (h, w) for all images
    or (n, h, w); see `minicvae.masks`.
    """

    architecture = ("network", "image_shape")

    @classmethod
    def build(cls, widths: Sequence[int] = (500, 500), *, image_shape: Sequence[int] = (28, 28), **others: Any) -> Self:
        """Relu layers of those widths; others: dtype, device, seed."""
        d = int(np.prod(image_shape))
        return cls(mlp([d, *widths, d]), image_shape=image_shape, **others)


class ImageCVAE(Model, ImageConditionedVAE):
    """A CVAE that completes images in many ways. Its arguments are `ImageConditionedVAE`'s; its file holds all nets.

    hidden = mc.masks.quadrants(1)
    baseline = mc.BaselineNet.build()
    baseline.fit(train.x, hidden, epochs=5)
    model = mc.ImageCVAE.build(baseline)
    model.fit(train.x, hidden, epochs=5)
    model.complete(test.x, hidden, samples=5)
    """

    architecture = ("recognition", "prior", "generation", "latent_dim", "view", "objective", "alpha")
    baseline: BaselineNet

    @classmethod
    def build(
        cls,
        baseline: BaselineNet,
        widths: Sequence[int] = (500, 500),
        *,
        latent_dim: int = 200,
        view: bool = False,
        objective: ELBO | None = None,
        alpha: float = 1.0,
        seed: int = 0,
    ) -> Self:
        """Three networks of relu layers of those widths, on top of a baseline that is trained already."""
        d = baseline.data_dim
        return cls(
            mlp([d, *widths, 2 * latent_dim]),
            mlp([d, *widths, 2 * latent_dim]),
            mlp([latent_dim + (d if view else 0), *reversed(widths), d]),
            baseline,
            latent_dim=latent_dim,
            view=view,
            objective=objective,
            alpha=alpha,
            seed=seed,
        )

    @property
    def config(self) -> dict[str, Any]:
        """All that is needed to build the model and its baseline anew, as JSON data."""
        return {**super().config, "baseline": self.baseline.config}

    @property
    def stored(self) -> list[Parameters]:
        """The weights of the three networks, and of the baseline."""
        return [self.parameters, self.baseline.parameters]

    @classmethod
    def from_config(cls, config: Mapping[str, Any], known: Sequence[type], device: str, **others: Any) -> Self:
        """The model of that configuration, with a baseline of its own."""
        baseline = BaselineNet.from_config(config["baseline"], known, device)
        return cls(baseline=baseline, **{name: restore(config[name], known) for name in cls.architecture}, **others)


def build(preset: str, *, seed: int = 0, dtype: str = "float32", device: str = "cpu", **overrides: Any) -> CVAE:
    """The preset of that name, with weights initialised from `seed`; device: numpy, cpu, cuda, or auto (`kernels`).

    overrides: latent_dim, encoder_widths, decoder_widths, condition, classes, image_shape, likelihood, objective,
    beta, free_bits, conditional_prior, discriminator_widths, adversarial_weight.

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
    return CVAE.load(path, device=device, classes=classes)


def presets() -> dict[str, str]:
    """The presets: name -> one line each."""
    return {name: preset.summary for name, preset in PRESETS.items()}
