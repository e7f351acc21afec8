"""The products of the presets by the kernels of the library and by cuBLAS, microseconds each on the GPU.

    python tests/cuda/race_products.py

With CUPY_TF32=1 in the environment both may use tensor cores. All launches of a measurement wait in the queue while the
GPU multiplies two large matrices, so that what the host takes to launch them is not measured.
"""

import sys
from functools import partial
from statistics import median

import numpy as np

from minicvae.kernels import load

SIDE, REPEATS, ROUNDS = 8192, 50, 7
# (rows, terms, columns): forward, dW and dx of dense layers and convolutions at batches of 128.
SHAPES = {
    "mlp, first layer": (128, 784, 256),
    "mlp, first layer, dW": (784, 128, 256),
    "mlp, hidden layer": (128, 256, 256),
    "mlp, last layer": (128, 256, 784),
    "mlp, last layer, dx": (128, 784, 256),
    "conv, 32 -> 64": (25_088, 288, 64),
    "conv, 32 -> 64, dW": (288, 25_088, 64),
    "conv, 64 -> 32": (25_088, 576, 32),
    "conv, 32 -> 1": (100_352, 288, 1),
    "conv, 32 -> 1, dW": (288, 100_352, 1),
    "large": (2048, 2048, 2048),
}


def microseconds(cuda, run, busy):
    """Of a launch, the median over the rounds."""
    found = []
    for _ in range(ROUNDS):
        begin, end = cuda.Event(), cuda.Event()
        busy()
        begin.record()
        for _ in range(REPEATS):
            run()
        end.record()
        end.synchronize()
        found.append(1e3 * cuda.get_elapsed_time(begin, end) / REPEATS)
    return median(found)


def main():
    kernels = load("cuda")
    xp, rng = kernels.xp, np.random.default_rng(0)
    square = xp.asarray(rng.random((SIDE, SIDE), np.float32))
    print(f"{'(m, k) (k, n)':32} {'minicvae':>9} {'cuBLAS':>9}  ratio, us")
    for name, (m, k, n) in SHAPES.items():
        a, b = (xp.asarray(rng.standard_normal(shape, np.float32)) for shape in ((m, k), (k, n)))
        out = xp.empty((m, n), np.float32)
        ways = partial(kernels.products.product, a, b, out), partial(xp.matmul, a, b, out=out)
        for run in ways:
            run()
        own, blas = (microseconds(xp.cuda, run, partial(xp.matmul, square, square)) for run in ways)
        print(f"{name:32} {own:9.2f} {blas:9.2f}  {blas / own:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
