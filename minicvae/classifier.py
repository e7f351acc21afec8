"""p(y|x) = softmax(network(x)): a classifier of our own layers, to measure models with.

A linear one says whether labels can be read off a latent; a small convolutional net says what digit a picture shows.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from minicvae import checkpoint
from minicvae.kernels import Array, load
from minicvae.layers import Backward, Chain, Conv2D, Dense, Flatten, Layer, Reshape
from minicvae.layers.layer import once
from minicvae.models.base import batches
from minicvae.optimizers import Adam
from minicvae.randomness import Purpose, generator
from minicvae.schedules import Cosine

__all__ = ["EPOCHS", "Classifier", "digit_network", "trained_on"]

# How the classifier of images is trained; chosen on MNIST's last 10,000 training images, of which it names 99.3%.
EPOCHS, RATE, SHIFT = 10, 2e-3, 2


class Classifier:
    """p(y|x) = softmax(network(x)), fitted by the cross-entropy -log p(y|x), in nats per example.

    network: (x (n, d)) -> logits (n, classes); its weights are drawn from `seed`.
    """

    def __init__(self, network: Layer, *, dtype: str = "float32", device: str = "cpu", seed: int = 0) -> None:
        self.network, self.dtype, self.kernels = network, dtype, load(device)
        self.parameters = network.initialise(device, dtype, seed)

    def loss_and_backward(self, x: Array, labels: Array) -> tuple[float, Backward]:
        """The mean cross-entropy of a batch, and the backward that writes the gradient of every parameter.

        x (n, d) floats, labels (n,), both on the device.
        """
        logits, network_backward = self.network.forward(x)
        nll, dlogits = self.kernels.softmax_cross_entropy(logits, labels)

        @once
        def backward() -> None:
            network_backward(dlogits / len(x), need_dx=False)

        return float(nll.mean(dtype=np.float64)), backward

    def fit(
        self,
        x: np.ndarray,
        labels: np.ndarray,
        *,
        epochs: int,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        shift: int = 0,
        seed: int = 0,
    ) -> list[float]:
        """Train by Adam, the rate falling to 0 along a cosine; returns the mean cross-entropy of each epoch.

        x (n, ...) uint8 or floats. shift: images (n, h, w) are moved by up to so many pixels at random in either
        direction, black coming in from outside; another way for each of them at each epoch.
        """
        k, update, rate = self.kernels, Adam().start(self.parameters, self.kernels), Cosine(learning_rate)
        steps, losses = -(-len(x) // batch_size), []
        with k.steps() as begin_step:
            for epoch in range(epochs):
                order, total = generator(seed, Purpose.SHUFFLE, epoch).permutation(len(x)), 0.0
                for step, rows in enumerate(batches(len(x), batch_size)):
                    begin_step()
                    images = x[order[rows]]
                    if shift:
                        images = shifted(images, shift, generator(seed, Purpose.TRAIN, epoch, step))
                    self.parameters.zero_grad()
                    loss, backward = self.loss_and_backward(self._batch(images), k.array(labels[order[rows]]))
                    backward()
                    update(rate((epoch * steps + step) / (epochs * steps)))
                    total += loss * len(images)
                losses.append(total / len(x))
        return losses

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The most probable label of each of x (n, ...); (n,)."""
        found = []
        with self.kernels.steps() as begin_step:
            for rows in batches(len(x)):
                begin_step()
                logits, _ = self.network.forward(self._batch(x[rows]))
                found.append(self.kernels.to_numpy(logits.argmax(axis=1)))
        return np.concatenate(found)

    def accuracy(self, x: np.ndarray, labels: np.ndarray) -> float:
        """The share of x whose most probable label is the true one."""
        return float((self.predict(x) == labels).mean())

    def _batch(self, x: np.ndarray) -> Array:
        """x (n, ...) as floats (n, d) on the device; uint8 scaled to [0, 1]."""
        flat = self.kernels.array(x.reshape(len(x), -1))
        return self.kernels.gather(flat, self.kernels.xp.arange(len(x)), self.dtype)


def shifted(images: np.ndarray, by: int, rng: np.random.Generator) -> np.ndarray:
    """Each of images (n, h, w) moved by -by..by rows and columns, drawn for each; what comes in is 0."""
    n, h, w = images.shape
    wide = np.pad(images, ((0, 0), (by, by), (by, by)))
    down, right = rng.integers(0, 2 * by + 1, (2, n))
    return sliding_window_view(wide, (h, w), axis=(1, 2))[np.arange(n), down, right]


def digit_network(image_shape: tuple[int, int], classes: int) -> Layer:
    """Two convolutions of stride 2, 16 and 32 channels, and two dense layers: 0.2 million weights for MNIST."""
    h, w = (-(-size // 4) for size in image_shape)
    return Chain(
        [
            Reshape((*image_shape, 1)),
            Conv2D(1, 16, 5, stride=2, activation="relu"),
            Conv2D(16, 32, 3, stride=2, activation="relu"),
            Flatten(),
            Dense(h * w * 32, 128, "relu"),
            Dense(128, classes),
        ]
    )


def trained_on(
    x: np.ndarray,
    labels: np.ndarray,
    *,
    epochs: int = EPOCHS,
    device: str = "cpu",
    cache: Path | None = None,
    announce: Callable[[], None] = lambda: None,
) -> Classifier:
    """The convolutional classifier of images x (n, h, w), uint8, with labels (n,).

    It is trained the first time, which takes minutes, and from then on read from a file under `cache` (by default the
    user's cache folder) whose name is a hash of all that it depends on. epochs: fewer are quicker and less accurate.
    announce: called where it has to be trained.

    Raises ValueError if the file is damaged; where it cannot be written there is a warning.
    """
    classes = int(labels.max()) + 1
    classifier = Classifier(digit_network(x.shape[1:], classes), device=device)
    content = hashlib.sha256(
        f"{checkpoint.FORMAT} {epochs} {RATE} {SHIFT} {x.shape} {classes} {list(classifier.parameters)}".encode()
    )
    content.update(np.ascontiguousarray(x).tobytes() + np.ascontiguousarray(labels, np.int64).tobytes())
    if cache is None:
        import platformdirs

        cache = platformdirs.user_cache_path("minicvae")
    file = cache / f"classifier-{content.hexdigest()[:16]}.safetensors"
    if file.exists():
        for name, value in checkpoint.read(file)[1].items():
            classifier.parameters[name] = value
    else:
        announce()
        classifier.fit(x, labels, epochs=epochs, learning_rate=RATE, shift=SHIFT)
        k = classifier.kernels
        try:
            checkpoint.write(file, {}, ((name, k.to_numpy(value)) for name, value in classifier.parameters.items()))
        except OSError as error:  # minutes of training are not lost for that
            warnings.warn(f"the classifier could not be kept for another time: {error}", stacklevel=2)
    return classifier
