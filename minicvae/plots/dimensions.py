"""What each dimension of the latent carries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from minicvae import conditions
from minicvae.diagnostics import ACTIVE, Diagnosis, information, kl_by_dimension
from minicvae.models.cvae import ConditionalVAE
from minicvae.plots.figures import ACCENT, DPI, PALETTE, TEXT, TITLE, Picture

__all__ = ["compared_dimensions", "dimensions"]

INFORMED = 2000  # images that the information is measured on: its cost grows with the square of their number
KEY = "red line: what of it tells about the image, I(x; z | c)"


def dimensions(model: ConditionalVAE, x: Any, c: Any) -> Figure:
    """The KL of each dimension of z on images x with conditions c, a bar each, the largest first; pale if not active.

    A dimension is active where the mean of q(z|x,c) has a variance above `diagnostics.ACTIVE` over the images. A line
    across the bar is `diagnostics.information` of the first `INFORMED` images; what lies above it is no information,
    but how far the class's own aggregate lies from the prior.

    Raises ValueError or TypeError for wrong x or c.
    """
    _, parts = model.check_data(x, c)
    mean, log_var = model.encode(x, c, relative=True)
    kl, active = kl_by_dimension(mean, log_var), mean.var(axis=0) > ACTIVE
    few = [values[:INFORMED] for values in (*model.encode(x, c), conditions.groups(parts, model.kernels))]
    figure = Picture(figsize=(min(12, 3.5 + 0.3 * len(kl)), 3.6), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    _bars(axes, kl, active, information(*few))
    figure.suptitle(_heading(kl, active), fontsize=TITLE)
    axes.set_title(f"{KEY},\nof {len(few[0]):,} images", fontsize=TEXT)
    return figure


def compared_dimensions(diagnoses: Mapping[str, Diagnosis]) -> Figure:
    """`dimensions` of several models by name, side by side on one scale.

    Raises ValueError for no models.
    """
    if not diagnoses:
        raise ValueError("diagnoses: expected at least one, got none")
    columns = min(3, len(diagnoses))
    rows = -(-len(diagnoses) // columns)
    figure = Picture(figsize=(4.2 * columns, 3 * rows), dpi=DPI, layout="constrained")
    figure.suptitle(f"KL of each dimension of z; pale where it is not active; {KEY}", fontsize=TITLE)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axes, (name, found) in zip(panels, diagnoses.items(), strict=False):
        _bars(axes, found.kl, found.active, found.information)
        axes.set_title(f"{name}\n{_heading(found.kl, found.active)}", fontsize=TEXT)
        axes.tick_params(labelleft=True)
    for axes in panels[len(diagnoses) :]:
        axes.set_visible(False)
    return figure


def _heading(kl: np.ndarray, active: np.ndarray) -> str:
    return f"KL {kl.sum():.1f} nats; {active.sum()} of {len(kl)} dimensions active"


def _bars(axes: Axes, kl: np.ndarray, active: np.ndarray, known: np.ndarray) -> None:
    """A bar for each dimension, the largest first, with a line across; kl, known (l,) nats, active (l,) bool."""
    order = np.argsort(-kl, kind="stable")
    axes.bar(np.arange(len(kl)), kl[order], color=[PALETTE[0] if active[j] else "0.8" for j in order])
    axes.hlines(known[order], np.arange(len(kl)) - 0.4, np.arange(len(kl)) + 0.4, colors=ACCENT, linewidth=2)
    axes.set_xlabel("dimension of z", fontsize=TEXT)
    axes.set_ylabel("KL, nats per image", fontsize=TEXT)
    axes.set_xlim(-0.6, len(kl) - 0.4)
    if len(kl) <= 32:
        axes.set_xticks(np.arange(len(kl)), order)
    else:  # too many to be named
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("rank of the dimension of z", fontsize=TEXT)
    axes.tick_params(labelsize=TEXT)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
