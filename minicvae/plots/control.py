"""Pictures of control: whether what comes is what was asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from minicvae.models.cvae import ConditionalVAE
from minicvae.plots.figures import ACCENT, DPI, PALETTE, TEXT, TITLE, Panel, Picture, sheet
from minicvae.plots.picks import check_label, check_positive
from minicvae.plots.values import repeat, variables
from minicvae.randomness import Purpose, standard_normal

__all__ = ["asked_and_measured", "crossed"]


def crossed(model: ConditionalVAE, *, latents: int = 3, label: Any = None, names: Any = None, seed: int = 0) -> Figure:
    """Two conditions crossed: a column for each value of the first, a row for each of the second.

    latents: how many draws from the prior; each fills as many rows as the second condition has values. label: what the
    condition says of anything else. names: as in `minicvae.plots.images`.

    Raises ValueError where the condition says fewer than two things.
    """
    asked, label = variables(model.condition, names), check_label(model, label)
    if len(asked) < 2:
        raise ValueError(f"crossed: needs a model with two conditions, this one has {model.condition}")
    across, down = asked[:2]
    columns, rows = len(across.values), len(down.values)
    eps = standard_normal((check_positive(latents, "latents"), model.latent_dim), model.dtype, seed, Purpose.GENERATE)
    c = across.write(repeat(label, latents * rows * columns), np.tile(across.values, latents * rows))
    c = down.write(c, np.tile(np.repeat(down.values, columns), latents))
    panel = Panel(
        model.decode(model.latents(np.repeat(eps, rows * columns, axis=0), c), c),
        columns,
        column_labels=across.labels,
        row_labels=list(down.labels) * latents,
        column_title=across.name,
        row_title=down.name,
    )
    held = "one latent" if latents == 1 else f"{latents} latents, {rows} rows each"
    return sheet(f"{across.name.capitalize()} by {down.name}: {held}", [panel])


def asked_and_measured(asked: ArrayLike, measured: ArrayLike, *, name: str, unit: str = "") -> Figure:
    """Asked for against measured, a dot for each image, with the line where they are equal and Pearson's r.

    asked, measured (n,) finite numbers in the same unit; `name` is what they measure.

    Raises ValueError for another shape, fewer than two images, or numbers that are not finite.
    """
    a, b = np.asarray(asked, np.float64), np.asarray(measured, np.float64)
    if a.ndim != 1 or a.shape != b.shape or len(a) < 2:
        raise ValueError(f"asked, measured: expected shape (n,) twice, n >= 2, got shapes {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("asked, measured: expected finite numbers, got NaN or infinity")
    figure = Picture(figsize=(6, 5.6), dpi=DPI, layout="constrained")
    axes, suffix = figure.subplots(), f" ({unit})" if unit else ""
    axes.scatter(a, b, s=6, color=PALETTE[0], alpha=0.5, linewidths=0, label="an image each")
    axes.axline((float(a.mean()), float(a.mean())), slope=1, color=ACCENT, linewidth=1, label="measured = asked")
    figure.suptitle(f"Asked for and measured: {name}", fontsize=TITLE)
    axes.set_title(f"Pearson's r = {np.corrcoef(a, b)[0, 1]:.3f}, {len(a):,} generated images", fontsize=TEXT)
    axes.set_xlabel(f"{name} asked for{suffix}", fontsize=TEXT)
    axes.set_ylabel(f"{name} measured{suffix}", fontsize=TEXT)
    axes.tick_params(labelsize=TEXT)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=TEXT, frameon=False)
    return figure
