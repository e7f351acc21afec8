"""All pictures that suit a model, drawn into a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from minicvae.conditions import Classes, Nothing
from minicvae.models.cvae import ConditionalVAE
from minicvae.plots.curves import curves
from minicvae.plots.dimensions import dimensions
from minicvae.plots.figures import save
from minicvae.plots.images import generated, many_latents, neighbours, one_latent, reconstructions, relabelled, walks
from minicvae.plots.latent import manifold, posterior_means
from minicvae.plots.picks import check_images_of, check_label, pairs
from minicvae.plots.values import groups, variables

__all__ = ["draw_all"]


def draw_all(
    model: ConditionalVAE,
    x: Any,
    c: Any,
    folder: str | os.PathLike[str],
    *,
    history: Mapping[str, Sequence[float]] | None = None,
    validation: str = "validation",
    training: Any = None,
    label: Any = None,
    names: Any = None,
    seed: int = 0,
) -> list[Path]:
    """Draw every picture that suits the model and the data as a PNG in `folder`, and say which files there are.

    x, c: images that the model was not trained on, and their conditions. history: as `fit(...).history`; without it no
    losses are drawn. validation: what its validation data is called. training: the images of the training; without them
    no neighbours are drawn. label: what pictures of a single label show, else class 0 or the middle of all numbers.
    Left out are pictures of the latent where it has not two dimensions, walks where no class has two images, and what a
    condition does where there is none.

    Raises what the pictures raise, and OSError where a file cannot be written.
    """
    paths, losses = [], None if history is None else partial(curves, history, validation)
    for name, draw in _suitable(model, x, c, losses, training, label, names, seed):
        path = Path(folder) / f"{name}.png"
        save(draw(), path)
        paths.append(path)
    return paths


def _suitable(
    model: ConditionalVAE, x: Any, c: Any, losses: Any, training: Any, label: Any, names: Any, seed: int
) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """File names and what draws them, one at a time: a figure is let go before the next is made."""
    asked, images, label = variables(model.condition, names), check_images_of(model, x, c), check_label(model, label)
    if losses:
        yield "losses", losses
    conditional = not isinstance(model.condition, Nothing)
    if conditional:
        yield "generated", partial(generated, model, label=label, names=names, seed=seed)
        yield "one_latent", partial(one_latent, model, label=label, names=names, seed=seed)
    yield "many_latents", partial(many_latents, model, label, names=names, seed=seed)
    if training is not None:
        yield "neighbours", partial(neighbours, model, training, label=label, names=names, seed=seed)
    yield "reconstructions", partial(reconstructions, model, x, c, names=names)
    if conditional:
        yield "relabelled", partial(relabelled, model, x, c, names=names)
    if len(pairs(groups(asked, c, len(images)))):
        yield "walks", partial(walks, model, x, c, names=names)
    yield "dimensions", partial(dimensions, model, x, c)
    if model.latent_dim != 2:
        return
    yield "posterior_means", partial(posterior_means, model, x, c, names=names)
    if not isinstance(model.condition, Classes):
        yield "manifold", partial(manifold, model, label, names=names)
        return
    if (asked[0].read(c) == label).any():
        yield "posterior_means_of_one", partial(posterior_means, model, x, c, label, names=names)
    for k in asked[0].values:
        yield f"manifold_{k}", partial(manifold, model, k, names=names)
