"""minicvae as a contestant: `python -m minicvae.bench.own PRESET BATCH DEVICE`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from minicvae import conditions
from minicvae.bench.protocol import serve, training_images
from minicvae.callbacks import Callback
from minicvae.model import CVAE, build
from minicvae.randomness import Purpose, generator

TRAIN, TEST = 60_000, 10_000  # images, as MNIST has them
WARM_UP = 20  # steps


class _Clock(Callback):
    """The seconds between the moment before the first step and the moment after the last."""

    def on_train_begin(self, model: Any, plan: Any) -> None:
        model.kernels.wait()
        self.begin = time.perf_counter()

    def on_train_end(self, model: Any, history: Any) -> None:
        model.kernels.wait()
        self.seconds = time.perf_counter() - self.begin


def tasks(preset: str, batch_size: int, device: str) -> dict[str, Callable[[int], float]]:
    """step: N training steps, as `fit` makes them; evaluate and generate: N times all test images, 10,000 new ones."""
    model = build(preset, device=device)
    rng = generator(0, Purpose.SHUFFLE)
    x = training_images()[:TRAIN].reshape(TRAIN, *model.image_shape)
    c = conditions.draw(model.condition, TRAIN, rng)

    def step(n: int) -> float:
        clock, images = _Clock(), min(n * batch_size, TRAIN)
        epochs = max(n * batch_size // images, 1)
        model.fit(
            x[:images],
            _first(c, images),
            epochs=epochs,
            batch_size=batch_size,
            verbose=0,
            callbacks=[clock],
        )
        return clock.seconds * n / (epochs * -(-images // batch_size))

    return {
        "step": step,
        "evaluate": _timed(lambda: model.evaluate(x[:TEST], _first(c, TEST))),
        "generate": _timed(lambda: _generate(model, _first(c, TEST))),
    }


def _timed(work: Callable[[], Any]) -> Callable[[int], float]:
    def run(n: int) -> float:
        begin = time.perf_counter()
        for _ in range(n):
            work()
        return time.perf_counter() - begin

    return run


def _generate(model: CVAE, c: Any) -> np.ndarray:
    return model.generate(c, seed=0)


def _first(c: Any, n: int) -> Any:
    return {name: part[:n] for name, part in c.items()} if isinstance(c, dict) else c[:n]


def main() -> None:
    """Warm up, then serve."""
    preset, batch_size, device = sys.argv[1:]
    known = tasks(preset, int(batch_size), device)
    known["step"](WARM_UP)
    serve(known)


if __name__ == "__main__":
    main()
