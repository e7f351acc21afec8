"""The course of a training: the loss and its two terms, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from minicvae.plots.figures import ACCENT, DPI, PALETTE, TEXT, TITLE, Picture

__all__ = ["curves"]

TERMS = {"loss": "loss = reconstruction + β KL", "reconstruction": "reconstruction", "kl": "KL"}


def curves(history: Mapping[str, Sequence[float]], validation: str = "validation") -> Figure:
    """Loss, reconstruction and KL over the epochs, each in a panel of its own, training and validation.

    history: name -> one number an epoch, nats per image; the names are loss, reconstruction and kl, and the same with
    `val_` where there was validation data. Others are not drawn. validation: what that data is called.

    Raises TypeError if `history` is no dict, ValueError if one of the three is missing or lists differ in length.
    """
    if not isinstance(history, Mapping):
        raise TypeError(f"history: expected a dict of lists, as fit(...).history is, got {type(history).__name__}")
    missing = [name for name in TERMS if not len(history.get(name, ()))]
    if missing:
        raise ValueError(f"history: expected a number an epoch for {', '.join(TERMS)}; missing: {', '.join(missing)}")
    lines = {name: history[name] for term in TERMS for name in (term, f"val_{term}") if name in history}
    lengths = {name: len(values) for name, values in lines.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"history: expected lists of one length, got {lengths}")

    figure = Picture(figsize=(11, 4), dpi=DPI, layout="constrained")
    epochs = np.arange(1, lengths["loss"] + 1)
    figure.suptitle(f"Losses over {len(epochs)} epoch{'s' * (len(epochs) > 1)}", fontsize=TITLE)
    for axes, (term, title) in zip(figure.subplots(1, len(TERMS)), TERMS.items(), strict=True):
        for name, label, colour in ((term, "training", PALETTE[0]), (f"val_{term}", validation, ACCENT)):
            if name in lines:
                last = f"{label}, {lines[name][-1]:.1f} at the end"
                axes.plot(epochs, lines[name], marker="." if len(epochs) <= 30 else "", color=colour, label=last)
        axes.set_title(title, fontsize=TEXT + 1)
        axes.set_xlabel("epoch", fontsize=TEXT)
        axes.set_ylabel("nats per image", fontsize=TEXT)
        axes.set_xlim(0.5, len(epochs) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.tick_params(labelsize=TEXT)
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(
            fontsize=TEXT, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.17)
        )  # never over the data
    return figure
