"""Pictures of a latent of two dimensions: where the images lie in it, and what it looks like decoded.

Arguments and errors are those of `minicvae.plots.images`; besides, ValueError for another number of latent dimensions.
"""

from __future__ import annotations

from math import ceil, cos, exp, pi, sin
from statistics import NormalDist
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from minicvae.models.cvae import ConditionalVAE
from minicvae.plots.figures import DPI, PALETTE, TEXT, TITLE, Panel, Picture, colours, sheet
from minicvae.plots.picks import check_images_of, check_label, check_positive
from minicvae.plots.values import Variable, called, matter, repeat, signed, take, variables

__all__ = ["manifold", "posterior_means"]

SIGMAS = (1, 2, 3)


def posterior_means(model: ConditionalVAE, x: Any, c: Any, label: Any = None, *, names: Any = None) -> Figure:
    """The posterior means of the images in the plane of the latent.

    Without a label: all of them, coloured by class (by value, where a condition says numbers). With one: those of that
    label, and the circles at 1, 2 and 3 standard deviations of the prior N(0, I), which hold 1 - exp(-r²/2) of it.

    Raises ValueError also where no image has that label.
    """
    _check_plane(model, "posterior_means")
    asked, images = variables(model.condition, names), check_images_of(model, x, c)
    if label is not None:
        label = check_label(model, label)
        same = np.all([variable.read(c) == variable.read(repeat(label, 1)) for variable in asked], axis=0)
        if not same.any():
            raise ValueError(f"label: expected one that an image has, got {called(asked, label)}")
        means, _ = model.encode(images[same], take(c, np.flatnonzero(same)))
        heading = f"Posterior means of {len(means):,} images of one {matter(asked)}: {called(asked, label)}"
        return _with_prior(heading, means)

    means, _ = model.encode(images, c)
    columns = min(3, len(asked))
    rows = ceil(len(asked) / columns)
    figure = Picture(
        figsize=(6.4, 5.6) if len(asked) == 1 else (5 * columns, 4.4 * rows), dpi=DPI, layout="constrained"
    )
    figure.suptitle(f"Posterior means of {len(means):,} images", fontsize=TITLE)
    for i, variable in enumerate(asked, start=1):
        axes = figure.add_subplot(rows, columns, i)
        _plane(axes, means)
        _scatter(figure, axes, means, variable, variable.read(c))
    return figure


def manifold(model: ConditionalVAE, label: Any = None, *, size: int = 20, names: Any = None) -> Figure:
    """The plane of the latent, decoded under one label: z[0] to the right, z[1] upwards.

    size x size latents at the quantiles (i + ½)/size of N(0, 1) in both directions, so that every tile stands for the
    same share of the prior. Kingma and Welling 2014, figure 4.
    """
    _check_plane(model, "manifold")
    asked, label = variables(model.condition, names), check_label(model, label)
    check_positive(size, "size")
    quantiles = [NormalDist().inv_cdf((i + 0.5) / size) for i in range(size)]
    z = np.array([(right, up) for up in reversed(quantiles) for right in quantiles])
    labels = [signed(quantile) for quantile in quantiles]
    panel = Panel(
        model.decode(z, repeat(label, len(z))),
        size,
        column_labels=labels,
        row_labels=labels[::-1],
        column_title="z[0], at even quantiles of N(0, 1)",
        row_title="z[1], at even quantiles of N(0, 1)",
        below=True,
    )
    return sheet(f"The latent plane under one {matter(asked)}: {called(asked, label)}", [panel])


def _with_prior(heading: str, means: np.ndarray) -> Figure:
    """The means of one label, (n, 2), and the circles of N(0, I)."""
    figure = Picture(figsize=(6, 6.2), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    _plane(axes, means)
    axes.scatter(means[:, 0], means[:, 1], s=6, color=PALETTE[0], alpha=0.6, linewidths=0)
    for r in SIGMAS:
        axes.add_patch(Circle((0, 0), r, fill=False, edgecolor="black", linewidth=1))
        place = (r * cos(pi / 4), r * sin(pi / 4))
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        axes.text(*place, f"{r}σ", fontsize=TEXT, ha="center", va="center", bbox=box)
    radius = np.hypot(means[:, 0], means[:, 1])
    inside = ", ".join(f"{np.mean(radius < r):.0%}" for r in SIGMAS)
    expected = ", ".join(f"{1 - exp(-(r**2) / 2):.0%}" for r in SIGMAS)
    figure.suptitle(heading, fontsize=TITLE)
    axes.set_title(f"inside the circles of N(0, I): {inside} (of the prior itself: {expected})", fontsize=TEXT)
    return figure


def _plane(axes: Axes, means: np.ndarray) -> None:
    """Axes of equal scale that show all means and the prior's three standard deviations."""
    limit = max(SIGMAS[-1] + 0.4, 1.05 * np.abs(means).max())
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    axes.set_xlabel("z[0]", fontsize=TEXT)
    axes.set_ylabel("z[1]", fontsize=TEXT)
    axes.tick_params(labelsize=TEXT)
    axes.spines[["top", "right"]].set_visible(False)


def _scatter(figure: Figure, axes: Axes, means: np.ndarray, variable: Variable, values: np.ndarray) -> None:
    """The means, coloured by a variable's values (n,), with the key to the colours."""
    if variable.is_class:
        palette = colours(len(variable.values))
        axes.scatter(means[:, 0], means[:, 1], c=[palette[k] for k in values], s=3, alpha=0.7, linewidths=0)
        for colour, label in zip(palette, variable.labels, strict=True):
            axes.scatter([], [], color=colour, label=label)  # so that every class has an entry, seen or not
        axes.legend(
            title=variable.name,
            fontsize=TEXT,
            title_fontsize=TEXT,
            frameon=False,
            handletextpad=0.2,
            loc="center left",
            bbox_to_anchor=(1, 0.5),
        )
    else:
        low, high = variable.values[[0, -1]]
        dots = axes.scatter(means[:, 0], means[:, 1], c=values, cmap="cividis", vmin=low, vmax=high, s=5, linewidths=0)
        bar = figure.colorbar(dots, ax=axes, extend="both", shrink=0.8)
        bar.set_label(variable.title, fontsize=TEXT)
        bar.ax.tick_params(labelsize=TEXT)


def _check_plane(model: ConditionalVAE, picture: str) -> None:
    if model.latent_dim != 2:
        raise ValueError(f"{picture}: needs a model with latent_dim 2, this one has {model.latent_dim}")
