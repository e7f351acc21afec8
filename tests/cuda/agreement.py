"""Losses of the first hundred steps on `cuda`, with graphs and without, beside those on `cpu` from the same seed.

    python tests/cuda/agreement.py [PRESET ...]

Exit status 1 where the mean of the last ten steps is not within a thousandth.
"""

import sys

import numpy as np

import minicvae as mc
from minicvae.callbacks import Callback
from minicvae.kernels import load

STEPS, BATCH, LAST, ALLOWED = 100, 128, 10, 1e-3


class Diary(Callback):
    """The loss of every step."""

    def on_train_begin(self, model, plan):
        self.losses = []

    def on_step_end(self, epoch, step, losses):
        self.losses.append(float(losses.loss))


def losses(preset, device, graphs=False):
    """The losses of the first hundred steps on MNIST."""
    if device == "cuda":
        load("cuda").graphs = graphs
    train, diary = mc.datasets.load("mnist")[0], Diary()
    images = STEPS * BATCH
    model = mc.build(preset, device=device, seed=0)
    model.fit(train.x[:images], train.y[:images], epochs=1, batch_size=BATCH, seed=0, verbose=0, callbacks=[diary])
    return np.array(diary.losses)


def main():
    wrong = 0
    for preset in sys.argv[1:] or ["mlp", "latent2d", "gaussian", "conv"]:
        expected = losses(preset, "cpu")[-LAST:].mean()
        for graphs in (False, True):
            found = losses(preset, "cuda", graphs)[-LAST:].mean()
            apart = abs(found / expected - 1)
            wrong += not apart < ALLOWED
            print(f"{preset}: cpu {expected:.4f}, cuda{' with graphs' * graphs} {found:.4f}, {apart:.1e} apart")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
