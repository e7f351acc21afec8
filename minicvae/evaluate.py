"""What a trained model is worth: the losses on images that it was not trained on."""

from __future__ import annotations

from typing import Any

import numpy as np

from minicvae import conditions
from minicvae.models.base import Trainable, batches
from minicvae.objectives import Losses
from minicvae.randomness import Purpose

__all__ = ["evaluate"]


def evaluate(model: Trainable, x: Any, c: Any, *, seed: int = 0) -> dict[str, float]:
    """{"loss", "reconstruction", "kl"} in nats per example, averaged over all examples of (x, c).

    The objective of training with its full beta, estimated with as many samples of z; the noise is a function of
    `seed` alone, so the same model gives the same numbers. With beta = 1 the loss is minus the ELBO.
    """
    images, parts = model.check_data(x, c)
    kernels = model.kernels
    images = kernels.array(images)
    sums = np.zeros(3)
    with kernels.steps() as begin_step:
        for i, rows in enumerate(batches(len(images))):
            begin_step()
            index = kernels.array(np.arange(rows.start, rows.stop))
            eps = kernels.array(model.noise(len(index), seed, Purpose.EVALUATE, step=i))
            batch = kernels.gather(images, index, model.dtype)
            losses, _ = model.loss_and_backward(batch, conditions.select(parts, rows), eps)
            sums += np.multiply(losses, len(index))
    return dict(zip(Losses._fields, (sums / len(images)).tolist(), strict=True))
