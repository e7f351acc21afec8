"""Pictures of images: drawn on demand, reconstructed, walked between, and drawn anew under other labels.

Common arguments: x, c are images and their conditions as `fit` takes them; a label is one entry of c; `names` are what
the classes are called (or the numbers of a vector; for a dict of conditions, a dict of these). Where a condition says
several things, each has a panel of its own, and the rows are shared out among the panels. Numbers in a condition are
taken to be standardised, and go from -2 to 2 standard deviations.

Errors: ValueError or TypeError that names the argument, for images, conditions or names that do not suit the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from minicvae.diagnostics import nearest
from minicvae.models.border import check_images
from minicvae.models.cvae import ConditionalVAE
from minicvae.plots.figures import Panel, sheet
from minicvae.plots.picks import as_ink, check_images_of, check_label, check_positive, in_turn, pairs
from minicvae.plots.values import Variable, called, groups, matter, repeat, take, variables
from minicvae.randomness import Purpose, standard_normal

__all__ = ["generated", "many_latents", "neighbours", "one_latent", "reconstructions", "relabelled", "walks"]


def generated(model: ConditionalVAE, *, rows: int = 10, label: Any = None, names: Any = None, seed: int = 0) -> Figure:
    """Images drawn on demand, a column for each class: every tile decodes a latent of its own from the prior.

    label: where a condition says several things, what it says of those that are not varied.
    """
    asked, label = variables(model.condition, names), check_label(model, label)
    rows = _shared_out(rows, asked)
    panels = []
    for variable in asked:
        c = take(variable.vary(label), np.tile(np.arange(len(variable.values)), rows))
        panels.append(_table(model.generate(c, seed=seed), variable))
    return sheet(f"Generated images by {matter(asked)}", panels)


def one_latent(model: ConditionalVAE, *, rows: int = 5, label: Any = None, names: Any = None, seed: int = 0) -> Figure:
    """One latent under all labels: every row decodes one draw from the prior under every class.

    label: where a condition says several things, what it says of those that are not varied.
    """
    asked, label = variables(model.condition, names), check_label(model, label)
    rows = _shared_out(rows, asked)
    eps = standard_normal((rows, model.latent_dim), model.dtype, seed, Purpose.GENERATE)
    panels = []
    for variable in asked:
        columns = len(variable.values)
        c = take(variable.vary(label), np.tile(np.arange(columns), rows))
        panels.append(_table(model.decode(model.latents(np.repeat(eps, columns, axis=0), c), c), variable))
    return sheet(f"One latent a row, under every {matter(asked)}", panels)


def many_latents(
    model: ConditionalVAE, label: Any = None, *, count: int = 60, columns: int = 10, names: Any = None, seed: int = 0
) -> Figure:
    """Many latents under one label: `count` images of it, each from a latent of its own."""
    asked, label = variables(model.condition, names), check_label(model, label)
    images = model.generate(repeat(label, check_positive(count, "count")), seed=seed)
    panel = Panel(images, min(check_positive(columns, "columns"), count))
    return sheet(f"Many latents under one {matter(asked)}: {called(asked, label)}", [panel])


def neighbours(
    model: ConditionalVAE, training: Any, *, rows: int = 3, label: Any = None, names: Any = None, seed: int = 0
) -> Figure:
    """Images drawn on demand as in `generated`, and below each the image of the training that is nearest to it.

    training: the images that the model was trained on. A model that copies shows the same picture twice.
    """
    asked, label = variables(model.condition, names), check_label(model, label)
    seen = check_images(training, model.image_shape, "training").reshape(-1, *model.image_shape)
    rows = _shared_out(rows, asked)
    panels = []
    for variable in asked:
        columns = len(variable.values)
        images = model.generate(take(variable.vary(label), np.tile(np.arange(columns), rows)), seed=seed)
        close = as_ink(seen[nearest(images, seen)[0]])
        tiles = np.stack([part.reshape(rows, columns, *model.image_shape) for part in (images, close)], axis=1)
        panel = _table(tiles.reshape(-1, *model.image_shape), variable)
        panels.append(replace(panel, row_labels=("generated", "nearest") * rows))
    return sheet("Generated images and the nearest training image", panels)


def reconstructions(
    model: ConditionalVAE, x: Any, c: Any, *, count: int = 20, columns: int = 10, names: Any = None
) -> Figure:
    """Originals, and below each its reconstruction, the decoded posterior mean.

    `count` images are shown: the first of each class, then the second of each, and so on.
    """
    asked, images = variables(model.condition, names), check_images_of(model, x, c)
    shown = in_turn(groups(asked, c, len(images)))[: check_positive(count, "count")]
    decoded, headings = model.reconstruct(images[shown], take(c, shown)), _classes(asked, c, shown)
    panels = []
    for start in range(0, len(shown), check_positive(columns, "columns")):
        part = slice(start, start + columns)
        pictured = np.concatenate([as_ink(images[shown[part]]), decoded[part]])
        panels.append(Panel(pictured, len(pictured) // 2, headings[part], ("original", "reconstruction")))
    return sheet("Originals and their reconstructions", panels)


def walks(model: ConditionalVAE, x: Any, c: Any, *, rows: int = 10, steps: int = 11, names: Any = None) -> Figure:
    """Walks between two images of a class: z = (1 - t) mean(first) + t mean(second), t from 0 to 1.

    Every row is a walk, with the two originals at its ends; numbers in a condition walk along. The rows are from the
    first image to the second of each class, then from the third to the fourth, and so on.

    Raises ValueError also where no class has two images, or for fewer than two steps.
    """
    asked, images = variables(model.condition, names), check_images_of(model, x, c)
    if steps < 2:
        raise ValueError(f"steps: expected at least 2, got {steps}")
    ends = pairs(groups(asked, c, len(images)))[: check_positive(rows, "rows")]
    if len(ends) == 0:
        raise ValueError(f"x: expected two images of one class to walk between, got no such pair among {len(images)}")
    t = np.linspace(0, 1, steps)
    tiles = []
    for pair in ends:
        (a, b), _ = model.encode(images[pair], take(c, pair))
        along = repeat(take(c, pair[0]), steps)
        for variable in asked:
            if not variable.is_class:
                low, high = variable.read(take(c, pair))
                along = variable.write(along, (1 - t) * low + t * high)
        first, last = as_ink(images[pair])[:, None]
        tiles += [first, model.decode(np.outer(1 - t, a) + np.outer(t, b), along), last]
    classes = _classes(asked, c, ends[:, 0])
    panel = Panel(
        np.concatenate(tiles),
        steps + 2,
        column_labels=["original", *(f"{value:.2g}" for value in t), "original"],
        row_labels=classes,
        row_title="class" if classes else "",
        column_title="t: from the posterior mean of the left image to that of the right one",
        ruled=(1, steps + 1),
    )
    return sheet(f"Walks between two images{' of one class' if classes else ''}, one a row", [panel])


def relabelled(model: ConditionalVAE, x: Any, c: Any, *, rows: int = 10, names: Any = None) -> Figure:
    """Style carried over: each original, then its posterior mean decoded under every label; its own is framed.

    The rows are the first image of each class, then the second of each, and so on.
    """
    asked, images = variables(model.condition, names), check_images_of(model, x, c)
    rows = _shared_out(rows, asked)
    panels = []
    for variable in asked:
        shown = in_turn(groups([variable], c, len(images)))[:rows]
        means, _ = model.encode(images[shown], take(c, shown))
        columns, tiles = len(variable.values), []
        for i, mean in zip(shown, means, strict=True):
            tiles += [as_ink(images[[i]]), model.decode(repeat(mean, columns), variable.vary(take(c, i)))]
        own = list(enumerate(variable.read(take(c, shown)) + 1)) if variable.is_class else []
        panels.append(
            Panel(
                np.concatenate(tiles),
                columns + 1,
                column_labels=["original", *variable.labels],
                column_title=f"decoded with another {variable.title}" + (" (framed: its own)" if own else ""),
                framed=own,
                ruled=(1,),
            )
        )
    return sheet(f"Style carried over: the latent of an image under every {matter(asked)}", panels)


def _table(images: np.ndarray, variable: Variable) -> Panel:
    """A column for each value of the variable."""
    return Panel(images, len(variable.values), column_labels=variable.labels, column_title=variable.title)


def _classes(asked: Sequence[Variable], c: Any, index: np.ndarray) -> list[str]:
    """The names of the classes of c[index]; none where the condition has no classes."""
    classes = [variable for variable in asked if variable.is_class]
    return [called(classes, take(c, i)) for i in index] if classes else []


def _shared_out(rows: int, asked: Sequence[Variable]) -> int:
    """How many of the rows each panel gets."""
    return max(1, check_positive(rows, "rows") // len(asked))
