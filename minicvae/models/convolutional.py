"""The convolutional networks: an image stays an image on the way down to z, and becomes one on the way up.

Down: a 3x3 convolution to so many channels and half the size, once for each width; then mean and log_var of what is
left, beside the condition. Up: a small image of z and the condition, then for each width a 3x3 transposed convolution
and twice the size; a last convolution makes pixels of channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from minicvae.conditions import Condition
from minicvae.layers import (
    Chain,
    Conv2D,
    ConvTranspose2D,
    Dense,
    Flatten,
    FlattenPlanes,
    JoinPlanes,
    Layer,
    MaxPool2D,
    Pathways,
    Reshape,
    UpSample2D,
)

if TYPE_CHECKING:
    from minicvae.models.presets import Preset

__all__ = ["condition_paths", "convolutional", "convolutional_planes", "convolutional_strided"]


def convolutional(p: Preset, *, strided: bool = False, planes: bool = False) -> tuple[Layer, Layer]:
    """Encoder and decoder; the channels are `p.encoder_widths` on the way down, `p.decoder_widths` on the way up.

    The image is halved by max pooling after each convolution and doubled by repeating pixels; with `strided`, by
    convolutions and transposed convolutions of stride 2 themselves. The condition goes through a relu layer of its own
    in either network, as wide as the smallest image has channels, and joins the flat image and z; with `planes` it
    enters the encoder as planes beside the image instead.

    Raises ValueError for an image whose sides cannot be halved once for each width, or that is not (h, w).
    """
    return _encoder(p, strided, planes), _decoder(p, strided)


convolutional_strided = partial(convolutional, strided=True)
convolutional_planes = partial(convolutional, planes=True)


def condition_paths(condition: Condition, width: int) -> tuple[list[Layer | None], int]:
    """For each part of c a relu layer of `width` of its own, behind its embedding if it has one; and their columns.

    A part without columns (`Nothing`) passes as it is and brings none.
    """
    paths: list[Layer | None] = []
    for d, embedding in zip(condition.widths, condition.embeddings(), strict=True):
        dense = Dense(d, width, "relu") if d else None
        paths.append(Chain([embedding, dense]) if embedding and dense else dense)
    return paths, width * sum(path is not None for path in paths)


def _small(p: Preset, widths: Sequence[int]) -> tuple[int, int]:
    """(h, w) of the image after it was halved once for each width."""
    scale = 2 ** len(widths)
    if len(p.image_shape) != 2 or any(size % scale for size in p.image_shape):
        raise ValueError(
            f"image_shape: expected (h, w), both multiples of {scale} for {len(widths)} widths, got {p.image_shape}"
        )
    h, w = p.image_shape
    return h // scale, w // scale


def _encoder(p: Preset, strided: bool, planes: bool) -> Layer:
    """(x (n, h w), *c) -> (n, 2 l): mean, log_var."""
    image = Reshape((*p.image_shape, 1))
    down: list[Layer] = []
    for c_in, c_out in pairwise([1 + planes * p.condition.width, *p.encoder_widths]):
        down.append(Conv2D(c_in, c_out, stride=2 if strided else 1, activation="relu"))
        if not strided:
            down.append(MaxPool2D())
    h, w = _small(p, p.encoder_widths)
    flat = h * w * p.encoder_widths[-1]
    if planes:
        trunk = Chain([JoinPlanes(), *down, Flatten(), Dense(flat, 2 * p.latent_dim)])
        return Pathways([image, *p.condition.embeddings()], trunk)
    c_paths, c_width = condition_paths(p.condition, p.encoder_widths[-1])
    return Pathways([Chain([image, *down, Flatten()]), *c_paths], Dense(flat + c_width, 2 * p.latent_dim))


def _decoder(p: Preset, strided: bool) -> Layer:
    """(z (n, l), *c) -> (n, output width)."""
    first = p.decoder_widths[0]
    h, w = _small(p, p.decoder_widths)
    c_paths, c_width = condition_paths(p.condition, first)
    dense = Dense(p.latent_dim + c_width, h * w * first, "relu")
    up: list[Layer] = []
    for c_in, c_out in pairwise([first, *p.decoder_widths]):
        up.append(ConvTranspose2D(c_in, c_out, stride=2 if strided else 1, activation="relu"))
        if not strided:
            up.append(UpSample2D())
    pixels = Conv2D(p.decoder_widths[-1], p.output_width // p.data_dim)
    return Pathways([None, *c_paths], Chain([dense, Reshape((h, w, first)), *up, pixels, FlattenPlanes()]))
