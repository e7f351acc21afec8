"""What each dimension of the latent carries."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from minicvae.diagnostics import ACTIVE, kl_by_dimension
from minicvae.models.cvae import ConditionalVAE
from minicvae.plots.figures import DPI, PALETTE, TEXT, TITLE, Picture

__all__ = ["dimensions"]


def dimensions(model: ConditionalVAE, x: Any, c: Any) -> Figure:
    """The KL of each dimension of z on images x with conditions c, a bar each, the largest first; pale if not active.

    A dimension is active where the mean of q(z|x,c) has a variance above `diagnostics.ACTIVE` over the images.

    Raises ValueError or TypeError for wrong x or c.
    """
    mean, log_var = model.encode(x, c)
    kl, active = kl_by_dimension(mean, log_var), mean.var(axis=0) > ACTIVE
    order = np.argsort(-kl, kind="stable")
    figure = Picture(figsize=(min(12, 3.5 + 0.3 * len(kl)), 3.6), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.bar(np.arange(len(kl)), kl[order], color=[PALETTE[0] if active[j] else "0.8" for j in order])
    axes.set_title(f"KL {kl.sum():.1f} nats; {active.sum()} of {len(kl)} dimensions active", fontsize=TITLE)
    axes.set_xlabel("dimension of z", fontsize=TEXT)
    axes.set_ylabel("nats per image", fontsize=TEXT)
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
    return figure
