"""The picture of an image-conditioned model: its many answers, beside the single one of its baseline."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from minicvae.models.quadrants import ImageConditionedVAE
from minicvae.plots.figures import Panel, sheet
from minicvae.plots.picks import as_ink, check_positive

__all__ = ["completions"]

HIDDEN = 0.3  # the grey of pixels that the model does not see


def completions(
    model: ImageConditionedVAE, x: Any, hidden: Any, *, rows: int = 10, samples: int = 6, seed: int = 0
) -> Figure:
    """A row for each of the first images: the input with its hidden part grey, the truth, and the answers.

    The answers are the baseline's and then `samples` of the model's, each from a z ~ p(z|v) of its own; in all of them
    the visible pixels are those of the input.

    Raises ValueError or TypeError for a wrong x or hidden, or rows or samples below 1.
    """
    images, (masks,) = model.check_data(x, hidden)
    images = as_ink(images.reshape(-1, *model.image_shape)[: check_positive(rows, "rows")])
    masks = model.kernels.to_numpy(masks).reshape(-1, *model.image_shape)[:rows]
    answers = model.complete(images, masks, samples=samples, seed=seed)
    columns = [np.where(masks, HIDDEN, images), images, model.baseline.complete(images, masks), *answers]
    panel = Panel(
        np.stack(columns, axis=1).reshape(-1, *model.image_shape),
        len(columns),
        column_labels=["input", "truth", "baseline", *(str(s + 1) for s in range(samples))],
        ruled=(2, 3),
    )
    return sheet("Images completed: the baseline's answer, and numbered, samples of the CVAE", [panel])
