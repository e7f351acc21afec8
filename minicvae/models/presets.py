"""The named models: sizes as data, and two functions that make networks of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from functools import partial
from itertools import pairwise
from math import prod
from typing import Any

from minicvae.checks import whole
from minicvae.conditions import Classes, Condition, Nothing, Vector, joined
from minicvae.distributions import Bernoulli, Gaussian, Likelihood
from minicvae.layers import Chain, Dense, Layer, Pathways
from minicvae.models.adversarial import Adversary
from minicvae.models.convolutional import condition_paths, convolutional, convolutional_planes, convolutional_strided
from minicvae.objectives import ELBO, IWAE, Objective
from minicvae.optimizers import Adam, Optimizer
from minicvae.schedules import Schedule, Tripling

__all__ = ["PRESETS", "Preset", "find"]


def mlp(widths: Sequence[int], activation: str = "relu") -> Chain:
    """Dense layers through `widths`, linear at the end; each has the initialiser that suits its activation."""
    *hidden, last = [Dense(d_in, d_out, activation) for d_in, d_out in pairwise(widths)]
    return Chain([*hidden, Dense(last.d_in, last.d_out)])


def concatenated(p: Preset, activation: str = "relu") -> tuple[Layer, Layer]:
    """[x, c] -> hidden layers -> mean, log_var;  [z, c] -> hidden layers -> data."""
    c = p.condition.width
    encoder = mlp([p.data_dim + c, *p.encoder_widths, 2 * p.latent_dim], activation)
    decoder = mlp([p.latent_dim + c, *p.decoder_widths, p.output_width], activation)
    return joined(p.condition, encoder), joined(p.condition, decoder)


concatenated_tanh = partial(concatenated, activation="tanh")  # Glorot's initialisation comes with tanh


def apart(p: Preset) -> tuple[Layer, Layer]:
    """Encoder and decoder with separate pathways."""
    return (
        separate("encoder_widths", p.data_dim, p.encoder_widths, p.condition, 2 * p.latent_dim),
        separate("decoder_widths", p.latent_dim, p.decoder_widths, p.condition, p.output_width),
    )


def separate(name: str, d_in: int, widths: Sequence[int], condition: Condition, d_out: int) -> Pathways:
    """x and each part of c through relu layers of their own, the first as wide for both; joined before the last."""
    if not widths:
        raise ValueError(f"{name}: expected at least one layer for separate pathways, got none")
    x_path = Chain([Dense(a, b, "relu") for a, b in pairwise([d_in, *widths])])
    c_paths, c_width = condition_paths(condition, widths[0])
    return Pathways([x_path, *c_paths], Dense(widths[-1] + c_width, d_out))


@dataclass(frozen=True)
class Preset:
    """A named model: its sizes, what it is conditioned on, and the protocol of the reference run.

    pixels: grey, static or dynamic. mean_start: whether the decoder starts at the mean of the training images.
    """

    name: str
    summary: str
    encoder_widths: Sequence[int]
    latent_dim: int
    decoder_widths: Sequence[int]
    condition: Condition = Classes(10)
    likelihood: Likelihood = Bernoulli()
    objective: Objective = ELBO()
    discriminator_widths: Sequence[int] = ()
    adversarial_weight: float = 10.0
    image_shape: Sequence[int] = (28, 28)
    networks: Callable[[Preset], tuple[Layer, Layer]] = concatenated
    conditional_prior: bool = False
    epochs: int = 10
    batch_size: int = 128
    learning_rate: float | Schedule = 1e-3
    optimizer: str | Optimizer = "adam"
    pixels: str = "grey"
    mean_start: bool = False

    @property
    def data_dim(self) -> int:
        """Pixels of an image."""
        return prod(self.image_shape)

    @property
    def output_width(self) -> int:
        """Columns that the decoder gives."""
        return self.likelihood.width(self.data_dim)

    def override(self, **overrides: Any) -> Preset:
        """The preset with other sizes.

        latent_dim, encoder_widths, decoder_widths, condition, likelihood, objective, image_shape; conditional_prior;
        discriminator_widths (empty for no adversary) and adversarial_weight; and, for short, beta and free_bits (of
        the objective) and classes (of a class condition).

        Raises
        ------
        TypeError
            For a name that is none of these or that the objective lacks, or widths that are no sequence.
        """
        for name in overrides:
            if name not in OVERRIDES:
                raise TypeError(f"{name}: not an option of a preset; expected one of {', '.join(OVERRIDES)}")
        for name in ("encoder_widths", "decoder_widths", "discriminator_widths"):
            _check_widths(name, overrides.get(name, getattr(self, name)))
        whole("latent_dim", overrides.get("latent_dim", self.latent_dim))
        objective = {k: overrides.pop(k) for k in ("beta", "free_bits") if k in overrides}
        if objective:
            chosen = overrides.get("objective", self.objective)
            for name in objective:
                if not hasattr(chosen, name):
                    raise TypeError(f"{name}: not an option of the objective {chosen}")
            overrides["objective"] = replace(chosen, **objective)
        if "classes" in overrides:
            condition = overrides.get("condition", self.condition)
            if not isinstance(condition, Classes):
                raise TypeError(f"classes: preset {self.name!r} is conditioned on {condition}, not on classes")
            overrides["condition"] = replace(condition, classes=overrides.pop("classes"))
        return replace(self, **overrides)

    def architecture(self) -> dict[str, Any]:
        """The networks and the rest of what a `ConditionalVAE` is made of."""
        encoder, decoder = self.networks(self)
        same = {name: getattr(self, name) for name in ("condition", "latent_dim", "image_shape", "likelihood")}
        return {
            "encoder": encoder,
            "decoder": decoder,
            "objective": self.objective,
            "prior": self.prior(),
            "adversary": self.adversary(),
            **same,
        }

    def prior(self) -> Layer | None:
        """c -> mean, log_var of z, one layer; None for N(0, I)."""
        if not self.conditional_prior:
            return None
        return joined(self.condition, Dense(self.condition.width, 2 * self.latent_dim), alone=True)

    def adversary(self) -> Adversary | None:
        """[z, c] -> hidden layers -> a logit; None without hidden layers."""
        if not self.discriminator_widths:
            return None
        discriminator = mlp([self.latent_dim + self.condition.width, *self.discriminator_widths, 1])
        return Adversary(joined(self.condition, discriminator), self.adversarial_weight)


def _check_widths(name: str, widths: Any) -> None:
    if not isinstance(widths, Sequence) or isinstance(widths, str):
        raise TypeError(f"{name}: expected a sequence of layer sizes such as (256, 256), got {widths!r}")
    for width in widths:
        whole(name, width)


_PROTOCOL = ("epochs", "batch_size", "learning_rate", "optimizer", "pixels", "mean_start")
_FIXED = ("name", "summary", "networks", *_PROTOCOL)
OVERRIDES = [*(f.name for f in fields(Preset) if f.name not in _FIXED), "beta", "free_bits", "classes"]

_IMPORTANCE_WEIGHTED: dict[str, Any] = {
    "epochs": Tripling().ends[-1],
    "batch_size": 20,
    "learning_rate": Tripling(),
    "optimizer": Adam(epsilon=1e-4),
    "pixels": "dynamic",
    "mean_start": True,
}
PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "vector",
            "dense, conditioned on five measured attributes, latent 2",
            (128, 64),
            2,
            (64, 128),
            Vector(5),
        ),
        Preset(
            "embedding",
            "dense, class embedded in 16 dimensions, latent 2",
            (128, 64),
            2,
            (64, 128),
            Classes(10, 16),
        ),
        Preset(
            "latent2d",
            "one hidden layer of 512, latent 2: the scatter",
            (512,),
            2,
            (512,),
            epochs=20,
            batch_size=50,
        ),
        Preset(
            "mlp",
            "two hidden layers of 256, latent 16: the all-rounder",
            (256, 256),
            16,
            (256, 256),
            epochs=50,
        ),
        Preset("mlp-small", "hidden layers of 256 and 128, latent 16", (256, 128), 16, (128, 256), epochs=50),
        Preset(
            "gaussian",
            "Gaussian likelihood of sigma 0.5, Monte Carlo KL of 5 samples, latent 2",
            (512, 32),
            2,
            (32, 512),
            likelihood=Gaussian(0.5),
            objective=ELBO(kl="monte_carlo", samples=5, decoded=1),
            batch_size=64,
        ),
        Preset(
            "pathways",
            "image and class each through a layer of their own, latent 16",
            (256,),
            16,
            (256,),
            networks=apart,
        ),
        Preset(
            "adversarial",
            "latent2d with a discriminator that tells encoded z from the prior",
            (512,),
            2,
            (512,),
            discriminator_widths=(64, 64),
            epochs=20,
            batch_size=50,
        ),
        Preset(
            "conv",
            "3x3 convolutions, max pooling and upsampling, latent 16",
            (32, 64),
            16,
            (64, 32),
            networks=convolutional,
        ),
        Preset(
            "conv-strided",
            "convolutions of stride 2 in place of pooling, latent 16",
            (32, 64),
            16,
            (64, 32),
            networks=convolutional_strided,
        ),
        Preset(
            "conv-planes",
            "conv with the condition as planes beside the image, latent 16",
            (32, 64),
            16,
            (64, 32),
            networks=convolutional_planes,
        ),
        Preset(
            "iwae",
            "no condition, two hidden layers of 200 tanh, latent 50: the importance-weighted bound",
            (200, 200),
            50,
            (200, 200),
            Nothing(),
            objective=IWAE(samples=5),
            networks=concatenated_tanh,
            **_IMPORTANCE_WEIGHTED,
        ),
        Preset(
            "iwae-conditional",
            "iwae with the label as condition, seen by a prior of its own too, latent 100",
            (200, 200),
            100,
            (200, 200),
            objective=IWAE(samples=5),
            networks=concatenated_tanh,
            conditional_prior=True,
            **_IMPORTANCE_WEIGHTED,
        ),
    )
}


def find(name: str) -> Preset:
    """The preset of that name.

    Raises
    ------
    ValueError
        If there is none; the message offers the nearest name.
    """
    if name in PRESETS:
        return PRESETS[name]
    near = get_close_matches(name, PRESETS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"preset: {hint}expected one of {', '.join(PRESETS)}, got {name!r}")
