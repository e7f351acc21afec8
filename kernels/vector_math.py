"""An exponential, a hyperbolic tangent and exp(x) - 1 that the compiler can vectorise.

Numba turns `np.exp` into a call of the C library for every element, and a loop with a call in it stays scalar. In
float32 the polynomials below are arithmetic only, so LLVM runs them on whole vectors: the Bernoulli likelihood over
64 x 784 logits takes a tenth of the time. In float64, which is for checking, the library's exact functions stay.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

f32 = np.float32

# Callers let sums be reordered, and would pass that on: log 2 in two parts would become one again.
OPTIONS = {"fastmath": {"contract"}, "error_model": "numpy"}


@intrinsic
def _float_from_bits(typing_context, bits):
    """The float32 whose IEEE 754 bits are the given int32."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@njit(inline="always", fastmath={"contract"}, error_model="numpy")
def _exp32(x):
    """exp(x) in float32, relative error 1e-7: x = k log 2 + r with |r| <= log 2 / 2, exp(x) = 2^k exp(r).

    log 2 is subtracted in two parts (Cody and Waite 1980) so that r keeps its digits; exp(r) is its polynomial of
    degree 7 (Taylor's coefficients, whose tail is below float32's rounding at |r| = 0.35); 2^k is written into exponent
    bits, half of it at a time, since 2^128 has none. Below exp(-87), near the smallest normal number, the result stays
    there; above the largest number it is infinite; NaN stays NaN.
    """
    clamped = f32(89.0) if x > f32(89.0) else (f32(-87.0) if x < f32(-87.0) else x)
    k = np.floor(clamped * f32(1.44269504) + f32(0.5))
    r = (clamped - k * f32(0.693359375)) - k * f32(-2.12194440e-4)
    p = f32(1 / 5040)
    p = p * r + f32(1 / 720)
    p = p * r + f32(1 / 120)
    p = p * r + f32(1 / 24)
    p = p * r + f32(1 / 6)
    p = p * r + f32(0.5)
    p = p * r + f32(1.0)
    p = p * r + f32(1.0)
    half = np.int32(k) >> np.int32(1)
    lower = _float_from_bits((half + np.int32(127)) << np.int32(23))
    upper = _float_from_bits((np.int32(k) - half + np.int32(127)) << np.int32(23))
    return f32(np.inf) if x > f32(88.722839) else p * lower * upper


def exp(x: Any) -> Any:
    """exp(x), vectorised in float32; the plain Python form is for NUMBA_DISABLE_JIT=1."""
    return np.exp(x)


@overload(exp, jit_options=OPTIONS)
def _exp_overload(x):
    if x == types.float32:
        return lambda x: _exp32(x)
    return lambda x: np.exp(x)


@njit(inline="always", fastmath={"contract"}, error_model="numpy")
def _small_tanh32(x):
    """tanh(x) for |x| below 0.6, to float32's rounding.

    Lambert's continued fraction x / (1 + x²/(3 + x²/(5 + x²/(7 + x²/9)))), written as one quotient, leaves out less
    than x^11 / 10^7.
    """
    square = x * x
    return x * (f32(945) + square * (f32(105) + square)) / (f32(945) + square * (f32(420) + square * f32(15)))


@njit(inline="always", fastmath={"contract"}, error_model="numpy")
def _tanh32(x):
    """tanh(x) in float32, relative error 2e-7: of small x by a fraction, of others by t = exp(-2|x|).

    Beyond 0.6 the difference in (1 - t) / (1 + t) loses no digits.
    """
    size = abs(x)
    small = _small_tanh32(x)
    t = _exp32(f32(-2) * size)
    large = (f32(1) - t) / (f32(1) + t)
    return small if size < f32(0.6) else (large if x > f32(0) else -large)


def tanh(x: Any) -> Any:
    """tanh(x), vectorised in float32; the plain Python form is for NUMBA_DISABLE_JIT=1."""
    return np.tanh(x)


@overload(tanh, jit_options=OPTIONS)
def _tanh_overload(x):
    if x == types.float32:
        return lambda x: _tanh32(x)
    return lambda x: np.tanh(x)


@njit(inline="always", fastmath={"contract"}, error_model="numpy")
def _expm1_32(x):
    """exp(x) - 1 in float32, relative error 4e-7: near 0 by 2 t / (1 - t), t = tanh(x / 2), which loses no digits."""
    t = _small_tanh32(f32(0.5) * x)
    small = f32(2) * t / (f32(1) - t)
    large = _exp32(x) - f32(1)
    return small if abs(x) < f32(1) else large


def expm1(x: Any) -> Any:
    """exp(x) - 1, vectorised in float32; the plain Python form is for NUMBA_DISABLE_JIT=1."""
    return np.expm1(x)


@overload(expm1, jit_options=OPTIONS)
def _expm1_overload(x):
    if x == types.float32:
        return lambda x: _expm1_32(x)
    return lambda x: np.expm1(x)
