"""Products of matrices on a GPU: by cuBLAS, or by kernels of our own where a CUDA graph is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from minicvae.kernels.cuda.launch import blocks
from minicvae.kernels.reference import Array

__all__ = ["Cublas", "Epilogue", "Tiled"]

ACTIVATIONS = ("linear", "relu", "tanh", "elu", "sigmoid")  # in the order of the names in `common.cuh`
Pair = tuple[int, int]
ENOUGH = 128  # tiles that keep a GPU busy
LEAST = 128  # of the terms of a sum, below which it is not cut


class Epilogue(NamedTuple):
    """What follows a product AB: f(AB + b + rows[labels]); b (n,), rows (classes, n) and labels (m,) may lack."""

    b: Array = None
    activation: str = "linear"
    rows: Array = None
    labels: Array = None


class Cublas:
    """Products by cuBLAS, and their epilogue in another launch."""

    def __init__(self, xp: Any, launch: Any) -> None:
        self.xp, self.launch = xp, launch

    def plain(self, a: Array, b: Array, out: Array | None = None, accumulate: bool = False) -> Array:
        """AB, written to `out` or added to it where there is one."""
        if out is None:
            return a @ b
        if accumulate:
            out += a @ b
        else:
            self.xp.matmul(a, b, out=out)
        return out

    def joined(
        self, pairs: Sequence[tuple[Array, Array]], shape: Pair, epilogue: Epilogue, others: Sequence[Array] = ()
    ) -> Array:
        """f(Σ AB + Σ others + b + rows[labels]) over pairs (A, B) and others (m, n), maybe none; shape (m, n)."""
        total = None
        for term in (*others, *(a @ b for a, b in pairs)):
            total = term if total is None else total + term
        if total is None:
            total = self.xp.zeros(shape, epilogue.b.dtype)
        return self.finish(total, 1, total, epilogue)

    def finish(self, planes: Array, count: int, out: Array, epilogue: Epilogue) -> Array:
        """out = f(the sum of `count` planes + b + rows[labels]); `out` may be the first plane."""
        b, f, rows, labels = epilogue
        d, given = len(b), ACTIVATIONS.index(f)
        self.launch(
            "bias_activate", out.dtype, blocks(out.size), planes, count, b, rows, labels, out, d, out.size, given
        )
        return out


class Tiled(Cublas):
    """Products by `product.cu`, with the epilogue in the same launch where C has tiles enough."""

    def plain(self, a: Array, b: Array, out: Array | None = None, accumulate: bool = False) -> Array:
        """AB, written to `out` or added to it where there is one."""
        m, n = a.shape[0], b.shape[1]
        out = self.xp.empty((m, n), a.dtype) if out is None else out
        count = self._planes(a, b)
        if count == 1:
            self._multiply(a, b, out, 1, Epilogue(), accumulate)
        else:
            planes = self.xp.empty((count, m, n), a.dtype)
            self._multiply(a, b, planes, count, Epilogue(), False)
            self.launch("sum_rows", out.dtype, blocks(out.size), planes, out, count, out.size, accumulate)
        return out

    def joined(
        self, pairs: Sequence[tuple[Array, Array]], shape: Pair, epilogue: Epilogue, others: Sequence[Array] = ()
    ) -> Array:
        """f(Σ AB + Σ others + b + rows[labels]) over pairs (A, B) and others (m, n), maybe none; shape (m, n)."""
        counts = [self._planes(a, b) for a, b in pairs]
        out = self.xp.empty(shape, epilogue.b.dtype)
        if counts == [1] and not others:
            self._multiply(*pairs[0], out, 1, epilogue, False)
            return out
        planes, start = self.xp.empty((sum(counts) + len(others), *shape), out.dtype), 0
        for (a, b), count in zip(pairs, counts, strict=True):
            self._multiply(a, b, planes[start : start + count], count, Epilogue(), False)
            start += count
        for i, other in enumerate(others):
            planes[start + i] = other
        return self.finish(planes, len(planes), out, epilogue)

    def _planes(self, a: Array, b: Array) -> int:
        """Into how many pieces the sum over k is cut: a function of the sizes alone, so that the bits are too."""
        (m, k), n = a.shape, b.shape[1]
        tiles = blocks(m, self._tile(m, n)) * blocks(n, self._tile(m, n))
        return max(1, min(ENOUGH // tiles, k // LEAST))

    def _tile(self, m: int, n: int) -> int:
        return 64 if blocks(m, 64) * blocks(n, 64) >= ENOUGH else 32

    def _multiply(self, a: Array, b: Array, out: Array, planes: int, epilogue: Epilogue, accumulate: bool) -> None:
        (m, k), n = a.shape, b.shape[1]
        tile, bias, f, rows, labels = self._tile(m, n), *epilogue
        grid = blocks(m, tile) * blocks(n, tile), planes
        steps = [step // x.itemsize for x in (a, b) for step in x.strides]
        given = a, *steps[:2], b, *steps[2:], bias, rows, labels, out, m, n, k
        ends = blocks(k, planes), ACTIVATIONS.index(f), accumulate
        self.launch("product_64" if tile == 64 else "product_32", out.dtype, grid, *given, *ends)
