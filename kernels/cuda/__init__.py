"""The `cuda` device: CUDA kernels on CuPy arrays.

The kernels stand in the `.cu` files beside this one; what they do not do faster, the reference does on CuPy arrays.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from minicvae.kernels.cuda.graph import Recorded
from minicvae.kernels.cuda.images import CudaImages
from minicvae.kernels.cuda.launch import MOVING, NUMBERS, Launcher, blocks
from minicvae.kernels.cuda.products import TICKETS, Products
from minicvae.kernels.reference import LOG_2PI, Array
from minicvae.kernels.steps import portions

__all__ = ["Cuda"]

AHEAD = 2**18, 2**25  # bytes that are uploaded in one go: at first, so that steps may begin; later, to wait seldom
GRAPHS = "MINICVAE_CUDA_GRAPHS"  # the environment variable that keeps steps from being recorded, where it is 0
TF32 = "CUPY_TF32"  # that of CuPy, which lets products be made by tensor cores, of rounded operands
INSTALL = "install CuPy with `pip install 'minicvae[cuda12]'` (CUDA 12) or `pip install 'minicvae[cuda13]'` (CUDA 13)"


def _cupy() -> Any:
    """CuPy, or the reason why it cannot be had."""
    try:
        import cupy
    except ImportError as error:
        reason = "is not installed" if getattr(error, "name", "") == "cupy" else f"cannot be loaded ({error})"
        raise RuntimeError(f"device 'cuda': CuPy {reason}; {INSTALL}, or use device='cpu'") from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise RuntimeError(f"device 'cuda': no working NVIDIA driver ({error}); use device='cpu'") from error
    if count == 0:
        raise RuntimeError("device 'cuda': CuPy finds no NVIDIA GPU; use device='cpu'")
    try:
        cupy.zeros(1) + 1
    except Exception as error:  # the compiler that is not there, memory that is full, ...
        raise RuntimeError(f"device 'cuda': CuPy cannot run a kernel ({error}); {INSTALL}") from error
    return cupy


def _summing(d: int) -> int:
    """The threads of a block that sums over d numbers: a power of two from 32 to 256."""
    return min(256, max(32, 1 << (d - 1).bit_length()))


class Cuda(CudaImages):
    """The kernels that are worth more than CuPy's expressions; the reference does the rest.

    Those of dense layers stand in `dense.py`, those for images in `images.py`.
    """

    name = "cuda"

    def __init__(self) -> None:
        super().__init__(_cupy())
        self.launch = Launcher(self.xp)
        self.products = Products(self.xp, self.launch, os.environ.get(TF32) == "1")
        self.graphs = os.environ.get(GRAPHS, "1") != "0"
        self.stream = self.xp.cuda.Stream()  # of all graphs: what their steps share is used by one at a time
        self.lock = threading.RLock()  # while a graph is recorded nobody else may launch on its stream
        self._watches = True
        self.tickets = self.xp.zeros(TICKETS, np.int32)
        self.stop = self.xp.zeros(1, np.int32)  # 1 from the first loss of a training on that is not finite

    def to_numpy(self, values: Array) -> np.ndarray:
        """`values` copied from the GPU."""
        return self.xp.asnumpy(values)

    def concatenate(self, arrays: Sequence[Array], axis: int) -> Array:
        """Copied piece by piece: CuPy may upload the addresses of many small arrays, which no graph would have."""
        shape, start = list(arrays[0].shape), 0
        shape[axis] = sum(a.shape[axis] for a in arrays)
        joined = self.xp.empty(tuple(shape), arrays[0].dtype)
        for a in arrays:
            stop = start + a.shape[axis]
            joined[(*(slice(None),) * axis, slice(start, stop))] = a
            start = stop
        return joined

    def wait(self) -> None:
        """Until everything that was launched is done."""
        self.xp.cuda.Device().synchronize()

    def describe(self) -> tuple[str, int, str]:
        """The GPU's name, its multiprocessors, and the versions of CUDA, the driver and CuPy."""
        runtime = self.xp.cuda.runtime
        gpu, cuda, driver = runtime.getDeviceProperties(0), runtime.runtimeGetVersion(), runtime.driverGetVersion()
        versions = [f"{version // 1000}.{version % 1000 // 10}" for version in (cuda, driver)]
        software = f"CUDA {versions[0]}, driver for CUDA {versions[1]}, CuPy {self.xp.__version__}"
        return gpu["name"].decode(), gpu["multiProcessorCount"], software

    def feed(self, arrays: Iterable[np.ndarray]) -> Iterator[Array]:
        """The arrays, uploaded many at a time; another thread draws the next while these are used."""
        drawn = portions(arrays, *AHEAD)
        with ThreadPoolExecutor(1) as worker:
            coming = worker.submit(next, drawn, None)
            while (portion := coming.result()) is not None:
                coming = worker.submit(next, drawn, None)
                yield from self._uploaded(portion)

    def _uploaded(self, arrays: list[np.ndarray]) -> Iterator[Array]:
        """Views into one array of the device, which takes all in one go."""
        if arrays:
            flat, start = self.xp.asarray(np.concatenate([a.ravel() for a in arrays])), 0
            for a in arrays:
                yield flat[start : start + a.size].reshape(a.shape)
                start += a.size

    def read(self, numbers: Sequence[Sequence[Array]]) -> np.ndarray:
        """All of the numbers; an array that many of them are views of is read once."""
        held: dict[int, np.ndarray] = {}

        def number(x: Array) -> float:
            base = x if x.base is None else x.base
            if id(base) not in held:
                held[id(base)] = self.to_numpy(base).ravel()
            return float(held[id(base)][(x.data.ptr - base.data.ptr) // x.itemsize])

        return np.array([[number(x) for x in row] for row in numbers])

    def repeated(self, run: Callable[..., Any], then: Callable[[Any], None], then_too: bool) -> Callable[..., Any]:
        """Recorded as one CUDA graph, or `run` alone; not at all where `graphs` says so."""
        if not self.graphs:
            return super().repeated(run, then, then_too)
        return Recorded(self, run, then) if then_too else super().repeated(Recorded(self, run), then, then_too)

    def goes_on(self, numbers: Sequence[Array]) -> bool:
        """True without waiting; `stop` keeps the optimisers from doing anything after a number that is not finite."""
        if self._watches:
            self.watch(numbers)
        return True

    @contextmanager
    def watching_later(self) -> Iterator[None]:
        """Within, `goes_on` leaves it to its caller to `watch`."""
        self._watches = False
        try:
            yield
        finally:
            self._watches = True

    def watch(self, numbers: Sequence[Array], cells: Array | None = None, words: Sequence[Array] = ()) -> None:
        """Set `stop` if one of the numbers is not finite; of a recorded step: leave them where the last cell says.

        Then the cells are set to what follows: the next row, and what lies behind the words that were taken.
        """
        given = *numbers, *[None] * (NUMBERS - len(numbers))
        sizes = *(a.size for a in words), *[0] * (MOVING - len(words))
        self.launch("watch", np.float64, 1, *given, cells, *sizes, self.stop, threads=1)

    def take_next(self, cells: Array, words: Sequence[Array]) -> None:
        """Copy from the addresses in the cells, arrays as words of 32 bits."""
        given = [x for a in words for x in (a, a.size)]
        grid = blocks(max([a.size for a in words], default=0))
        self.launch("take_next", np.float64, grid, cells, *given, *[None, 0] * (MOVING - len(words)))

    def end_steps(self) -> None:
        """The optimisers work again."""
        self.stop.fill(0)

    def gather(self, images: Array, index: Array, dtype: Any) -> Array:
        """x = images[index], with uint8 pixels scaled to [0, 1], in one pass."""
        if images.dtype not in (np.uint8, np.dtype(dtype)):
            return super().gather(images, index, dtype)
        kernel = "gather_pixels" if images.dtype == np.uint8 else "gather_rows"
        return self.rows_of(self.whole(images), index, dtype, kernel)

    def scale_rows(self, rows: Array, scale: Array) -> Array:
        """y_nd = scale_n rows_nd."""
        y, d = self.xp.empty(rows.shape, rows.dtype), rows.shape[1]
        self.launch("scale_rows", y.dtype, blocks(y.size), self.whole(rows), self.whole(scale), y, d, y.size)
        return y

    # The Gaussian posterior

    def reparameterise(self, mean: Array, log_var: Array, eps: Array) -> Array:
        """z = mean + exp(log_var / 2) ⊙ eps, in one pass."""
        z, l = self.xp.empty(eps.shape, mean.dtype), mean.shape[1]
        rows = *self.rows(mean), *self.rows(log_var)
        self.launch("reparameterise", z.dtype, blocks(z.size), *rows, self.whole(eps), z, l, mean.size, z.size)
        return z

    def reparameterise_backward(self, dz: Array, log_var: Array, eps: Array) -> tuple[Array, Array]:
        """dmean and dlog_var in one pass over dz and eps."""
        dmean, dlog_var = self._like(log_var, 2)
        given = self.whole(dz), *self.rows(log_var), self.whole(eps)
        shape = log_var.shape[1], log_var.size, len(dz)
        self.launch("reparameterise_backward", dz.dtype, blocks(dmean.size), *given, dmean, dlog_var, *shape)
        return dmean, dlog_var

    def scaled(self, d: Array, *derivatives: Array) -> tuple[Array, ...]:
        """Two derivatives in a launch."""
        d, results = self.whole(d), self._like(d, len(derivatives))
        for i in range(0, len(derivatives), 2):
            given = [x for derivative in derivatives[i : i + 2] for x in self.rows(derivative)]
            given, outs = [*given, None, 0][:4], [*results[i : i + 2], None][:2]
            self.launch("scaled", d.dtype, blocks(d.size), d, *given, *outs, d.shape[1], d.size)
        return tuple(results)

    def joined_sum(self, a: tuple[Array, Array], b: tuple[Array, Array]) -> Array:
        """Both sums in a launch, each where it belongs."""
        (n, l), given = a[0].shape, map(self.whole, (*a, *b))
        joined = self.xp.empty((n, 2 * l), a[0].dtype)
        self.launch("joined_sum", joined.dtype, blocks(n * l), *given, joined, l, n * l)
        return joined

    def kl_standard(self, mean: Array, log_var: Array) -> tuple[Array, Array, Array]:
        """The KL and its derivative by log_var in one pass; that by mean is mean."""
        kl, dlog_var = self._like(mean, 2)
        given = *self.rows(mean), *self.rows(log_var)
        self.launch("kl_standard", kl.dtype, blocks(kl.size), *given, kl, dlog_var, mean.shape[1], kl.size)
        return kl, mean, dlog_var

    def kl_diagonal(
        self, mean: Array, log_var: Array, prior_mean: Array, prior_log_var: Array
    ) -> tuple[Array, Array, Array, Array, Array]:
        """The KL and its four derivatives in one pass."""
        results = self._like(mean, 5)
        given = [x for a in (mean, log_var, prior_mean, prior_log_var) for x in self.rows(a)]
        self.launch("kl_diagonal", mean.dtype, blocks(mean.size), *given, *results, mean.shape[1], mean.size)
        kl, dmean, dlog_var, dprior_mean, dprior_log_var = results
        return kl, dmean, dlog_var, dprior_mean, dprior_log_var

    def log_ratio(self, mean: Array, log_var: Array, eps: Array) -> tuple[Array, Array, Array]:
        """The ratio of each sample and its derivatives in one pass."""
        ratio, dmean, dlog_var = self._like(eps, 3)
        given = *self.rows(mean), *self.rows(log_var), self.whole(eps)
        shape = mean.shape[1], mean.size, ratio.size
        self.launch("log_ratio", ratio.dtype, blocks(ratio.size), *given, ratio, dmean, dlog_var, *shape)
        return ratio, dmean, dlog_var

    def kl_monte_carlo(self, mean: Array, log_var: Array, eps: Array) -> tuple[Array, Array, Array]:
        """The means over the samples in one pass."""
        kl, dmean, dlog_var = self._like(mean, 3)
        given = *self.rows(mean), *self.rows(log_var), self.whole(eps)
        shape = mean.shape[1], kl.size, len(eps)
        self.launch("kl_monte_carlo", kl.dtype, blocks(kl.size), *given, kl, dmean, dlog_var, *shape)
        return kl, dmean, dlog_var

    def log_mean_exp(self, log_w: Array) -> tuple[Array, Array]:
        """The bound of each example and the weights of its samples, in one launch."""
        samples, n = log_w.shape
        bound, weights = self.xp.empty(n, log_w.dtype), self.xp.empty(log_w.shape, log_w.dtype)
        self.launch("log_mean_exp", log_w.dtype, blocks(n), self.whole(log_w), bound, weights, n, samples)
        return bound, weights

    def _like(self, a: Array, count: int) -> list[Array]:
        """So many uninitialised arrays of the shape and type of a."""
        return [self.xp.empty(a.shape, a.dtype) for _ in range(count)]

    # Likelihoods

    def bernoulli(self, logits: Array, x: Array) -> tuple[Array, Array]:
        """The likelihood and its derivative from one exponential an element."""
        return self._likelihood("bernoulli", logits, x)

    def gaussian(self, logits: Array, x: Array, sigma: float) -> tuple[Array, Array]:
        """The likelihood and its derivative from one exponential an element."""
        return self._likelihood("gaussian", logits, x, sigma, x.shape[1] * (float(np.log(sigma)) + LOG_2PI / 2))

    def gaussian_learned(self, h: Array, x: Array) -> tuple[Array, Array]:
        """The likelihood and its derivative from one exponential an element."""
        return self._likelihood("gaussian_learned", h, x, LOG_2PI)

    def _likelihood(self, kernel: str, h: Array, x: Array, *settings: float) -> tuple[Array, Array]:
        """A block for each example."""
        n, d = x.shape
        nll, derivative = self.xp.empty(n, h.dtype), self.xp.empty(h.shape, h.dtype)
        given = self.whole(h), self.whole(x), nll, derivative, d, *settings
        self.launch(kernel, h.dtype, n, *given, threads=_summing(d))
        return nll, derivative

    def elbo(self, nll: Array, kl: Array, weight: float, floor: float) -> tuple[Array, Array, Array, Array, Array]:
        """The losses and both derivatives in one launch."""
        losses, (dnll,), (dkl,) = self.xp.empty(3, np.float64), self._like(nll, 1), self._like(kl, 1)
        given = self.whole(nll), self.whole(kl), losses, dnll, dkl, nll.size, *kl.shape, *self._number(weight), floor
        self.launch("elbo", kl.dtype, 1, *given)
        return losses[0], losses[1], losses[2], dnll, dkl

    # Optimisers

    def clip(self, grad: Array, limit: float) -> Array:
        """The norm stays on the device, and so does what it decides."""
        norm = self.norm(grad)
        grad *= limit / self.xp.maximum(norm, limit)
        return norm

    def sgd(
        self,
        value: Array,
        grad: Array,
        velocity: Array,
        learning_rate: float | Array,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
    ) -> None:
        """One pass over the three buffers."""
        size, settings = len(value), (*self._number(learning_rate), momentum, nesterov, weight_decay)
        self.launch("sgd", value.dtype, blocks(size), value, grad, velocity, size, *settings, self.stop)

    def adam(
        self,
        value: Array,
        grad: Array,
        m: Array,
        v: Array,
        step: Array,
        learning_rate: float | Array,
        beta1: float,
        beta2: float,
        epsilon: float,
        weight_decay: float,
    ) -> None:
        """One pass over the four buffers."""
        size, settings = len(value), (*self._number(learning_rate), beta1, beta2, epsilon, weight_decay)
        given = value, grad, m, v, step, size, *settings, self.stop, self.tickets
        self.launch("adam", value.dtype, blocks(blocks(size, 4)), *given)

    def _number(self, x: float | Array) -> tuple[float, Array | None]:
        """A number as the kernels take it: known here, or in the memory of the device."""
        return (0.0, x) if isinstance(x, self.xp.ndarray) else (x, None)
