"""Register tiles: the innermost loop of a matrix product, in a processor's vector registers.

    c_ij (+)= Σ_k a_ik b_kj        a few rows i, a few vectors of columns j, those k that are listed

A tile of sums stays in registers while the factors stream past it where they lie:

                 b   k ->  [ b0 | b1 | b2 ]      three vectors of row k, loaded
                             |    |    |
           a_0k ------->   [ c  | c  | c  ]      a number of the left factor, copied to all lanes, times the three
           a_1k ------->   [ c  | c  | c  ]
            ...            [       ...    ]      24 multiply-adds for 12 loads: arithmetic is the limit, not memory
           a_7k ------->   [ c  | c  | c  ]

`tile` and `transpose` stand here twice: as plain Python, which says what they do and runs where kernels are not
compiled, and as LLVM vector code, because no loop in Numba keeps 24 sums in registers. Matrices are flat arrays, a
place where they begin, and how far apart their rows are.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import config, types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin

__all__ = ["ROWS", "VECTORS", "VECTOR_BYTES", "tile", "transpose"]


def _vector_bytes_and_rows() -> tuple[int, int]:
    """Bytes of a vector, and rows of a tile: AVX-512 and Arm have 32 registers, AVX2 and SSE 16.

    Numba compiles for this machine unless NUMBA_CPU_FEATURES says otherwise.
    """
    if platform.machine().lower() in ("arm64", "aarch64"):
        return 16, 8
    features = config.CPU_FEATURES
    enabled = set((get_host_cpu_features().flatten() if features is None else features).split(","))
    if {"+avx512f", "+avx512vl"} <= enabled:
        return 64, 8
    return (32, 4) if {"+avx2", "+fma"} <= enabled else (16, 4)


VECTOR_BYTES, ROWS = _vector_bytes_and_rows()
VECTORS = 3  # of a tile's columns


def tile(
    rows: int,
    columns: int,
    a: np.ndarray,
    a_at: int,
    a_row: int,
    a_step: int,
    b: np.ndarray,
    b_at: int,
    b_row: int,
    terms: np.ndarray,
    first: int,
    count: int,
    c: np.ndarray,
    c_at: int,
    c_row: int,
    accumulate: bool,
) -> None:
    """c = a b, or c += a b, of `ROWS` rows or one, and of as many columns as `VECTORS` vectors have, or fewer.

    a_ik = a[a_at + i a_row + k a_step], b_kj = b[b_at + k b_row + j], c_ij = c[c_at + i c_row + j]; the sum is over the
    `count` numbers k in `terms`, int32, from `first` on.
    """
    i, j, k = np.arange(rows)[:, None], np.arange(columns), terms[first : first + count].astype(np.int64)
    x, y = a[a_at + i * a_row + k * a_step], b[b_at + k[:, None] * b_row + j]
    z = c_at + i * c_row + j
    c[z] = x @ y + (c[z] if accumulate else 0)


def transpose(a: np.ndarray, at: int, row: int, b: np.ndarray, b_at: int, b_row: int) -> None:
    """b_ji = a_ij, as many rows and columns as a vector has numbers."""
    lanes, size = VECTOR_BYTES // a.itemsize, a.itemsize
    x = np.lib.stride_tricks.as_strided(a[at:], (lanes, lanes), (row * size, size))
    np.lib.stride_tricks.as_strided(b[b_at:], (lanes, lanes), (b_row * size, size))[...] = x.T


_I32, _I64 = ir.IntType(32), ir.IntType(64)


class _Vectors:
    """LLVM instructions on whole vectors of one type of number."""

    def __init__(self, builder: Any, scalar: Any, size: int) -> None:
        self.builder, self.scalar, self.bytes = builder, scalar, size
        self.lanes = VECTOR_BYTES // size
        self.vector = ir.VectorType(scalar, self.lanes)
        self.zero = ir.Constant(self.vector, [0.0] * self.lanes)
        self.suffix = f"v{self.lanes}f{8 * size}"

    def rows(self, first: Any, apart: Any, count: int) -> list[Any]:
        """Where the first rows of a matrix lie."""
        return [self.builder.gep(first, [self.builder.mul(apart, _I64(i))]) for i in range(count)]

    def call(self, name: str, result: Any, *args: Any) -> Any:
        """An LLVM intrinsic."""
        kind = ir.FunctionType(result, [arg.type for arg in args])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.{name}"), args)

    def multiply_add(self, u: Any, v: Any, w: Any) -> Any:
        """u v + w, in one instruction where the processor has it."""
        return self.call(f"fmuladd.{self.suffix}", self.vector, u, v, w)

    def place(self, first: Any, vector: int) -> Any:
        """Where a vector of the row that begins at `first` lies."""
        return self.builder.bitcast(self.builder.gep(first, [_I64(vector * self.lanes)]), self.vector.as_pointer())

    def load(self, first: Any, vector: int, mask: Any = None) -> Any:
        """A vector of a row; lanes outside the mask are not read, and are 0."""
        place = self.place(first, vector)
        if mask is None:
            return self.builder.load(place, align=self.bytes)
        name, align = f"masked.load.{self.suffix}.p0", _I32(self.bytes)
        return self.call(name, self.vector, place, align, mask, self.zero)

    def store(self, value: Any, first: Any, vector: int, mask: Any = None) -> None:
        """The opposite of `load`."""
        place = self.place(first, vector)
        if mask is None:
            self.builder.store(value, place, align=self.bytes)
        else:
            self.call(f"masked.store.{self.suffix}.p0", ir.VoidType(), value, place, _I32(self.bytes), mask)

    def everywhere(self, number: Any) -> Any:
        """A vector with the number in every lane."""
        empty = ir.Constant(ir.VectorType(number.type, self.lanes), ir.Undefined)
        first = self.builder.insert_element(empty, number, _I32(0))
        return self.shuffle(first, first, [0] * self.lanes)

    def shuffle(self, u: Any, v: Any, lanes: list[int]) -> Any:
        """The given lanes of u and v, where v's count on from u's."""
        return self.builder.shuffle_vector(u, v, ir.Constant(ir.VectorType(_I32, self.lanes), lanes))

    def either(self, *ways: tuple[Any, Any]) -> Any:
        """The vector that comes with the block from which this one is reached; ways: (vector, block)."""
        chosen = self.builder.phi(self.vector)
        for value, block in ways:
            chosen.add_incoming(value, block)
        return chosen

    def first_lanes(self, count: Any) -> Any:
        """The mask of the first `count` lanes."""
        numbers = ir.Constant(ir.VectorType(_I64, self.lanes), list(range(self.lanes)))
        return self.builder.icmp_signed("<", numbers, self.everywhere(count))


class _Call(_Vectors):
    """The call of one of the functions above, on vectors of the numbers that the array `of` holds."""

    def __init__(self, context: Any, builder: Any, kinds: Any, args: Any, of: int) -> None:
        super().__init__(builder, context.get_value_type(kinds[of].dtype), kinds[of].dtype.bitwidth // 8)
        self.context, self.kinds, self.args = context, kinds, args

    def start(self, array: int, at: int) -> Any:
        """Where the matrix lies that begins at place args[at] of array args[array]."""
        held = self.context.make_array(self.kinds[array])(self.context, self.builder, self.args[array])
        return self.builder.gep(held.data, [self.args[at]])


def _tile(call: _Call) -> None:
    """One function for each kind of tile, and a choice among them: for the whole vectors, and for what is left of one.

    Of their own, because among other code LLVM runs out of registers and keeps the sums in memory, at half the speed.
    """
    b, args = call.builder, call.args
    place, number, flag = call.scalar.as_pointer(), _I64, ir.IntType(1)
    left, right, terms, result = [place, number, number], [place, number], [_I32.as_pointer(), number], [place, number]
    kind = ir.FunctionType(ir.VoidType(), [*left, *right, *terms, *result, number, flag])
    columns, lanes = args[1], _I64(call.lanes)
    whole, rest = b.udiv(columns, lanes), b.urem(columns, lanes)

    def at(skipped: Any) -> list[Any]:
        """The arguments of a tile that leaves out columns on the left."""
        y, z = (b.gep(call.start(array, array + 1), [skipped]) for array in (6, 12))
        count = b.sub(columns, skipped)
        return [call.start(2, 3), *args[4:6], y, args[8], call.start(9, 10), args[11], z, args[14], count, args[15]]

    for rows, vectors in product((ROWS, 1), range(1, VECTORS + 1)):
        function = cgutils.get_or_insert_function(b.module, kind, f"tile_{rows}_{vectors}_{call.suffix}")
        if function.is_declaration:
            function.linkage = "linkonce_odr"
            function.attributes.add("noinline")
            code = _Vectors(ir.IRBuilder(function.append_basic_block("fresh")), call.scalar, call.bytes)
            _sums(code, rows, vectors, function.args)
        of_these_rows = b.icmp_signed("==", args[0], _I64(rows))
        with b.if_then(b.and_(of_these_rows, b.icmp_signed("==", whole, _I64(vectors)))):
            b.call(function, at(_I64(0)))
        if vectors == 1:
            with b.if_then(b.and_(of_these_rows, b.icmp_signed(">", rest, _I64(0)))):
                b.call(function, at(b.sub(columns, rest)))


def _sums(code: _Vectors, rows: int, vectors: int, args: Sequence[Any]) -> None:
    """The sums begin at zero or at c; a loop over the terms, its rows and vectors written out; then they are stored."""
    a, a_row, a_step, b, b_row, terms, count, c, c_row, columns, accumulate = args
    build, tile = code.builder, list(product(range(rows), range(vectors)))
    mask = code.first_lanes(columns) if vectors == 1 else None
    c_rows = code.rows(c, c_row, rows)
    entry = build.block
    more, begin, loop, done = (build.append_basic_block(name) for name in ("more", "begin", "loop", "done"))

    build.cbranch(accumulate, more, begin)
    build.position_at_end(more)
    before = [code.load(c_rows[i], j, mask) for i, j in tile]
    build.branch(begin)

    build.position_at_end(begin)
    start = [code.either((code.zero, entry), (sums, more)) for sums in before]
    build.cbranch(build.icmp_signed(">", count, _I64(0)), loop, done)

    build.position_at_end(loop)
    term = build.phi(_I64)
    sums = [build.phi(code.vector) for _ in tile]
    k = build.sext(build.load(build.gep(terms, [term])), _I64)
    a_k, b_k = build.gep(a, [build.mul(k, a_step)]), build.gep(b, [build.mul(k, b_row)])
    b_kj = [code.load(b_k, j, mask) for j in range(vectors)]
    a_ik = [code.everywhere(build.load(place)) for place in code.rows(a_k, a_row, rows)]
    after = [code.multiply_add(a_ik[i], b_kj[j], held) for (i, j), held in zip(tile, sums, strict=True)]
    following = build.add(term, _I64(1))
    for value, first, last in ((term, _I64(0), following), *zip(sums, start, after, strict=True)):
        value.add_incoming(first, begin)
        value.add_incoming(last, loop)
    build.cbranch(build.icmp_signed("<", following, count), loop, done)

    build.position_at_end(done)
    ends = [code.either((first, begin), (last, loop)) for first, last in zip(start, after, strict=True)]
    for (i, j), value in zip(tile, ends, strict=True):
        code.store(value, c_rows[i], j, mask)
    build.ret_void()


def _transpose(code: _Call) -> None:
    """Swap the two off-diagonal quarters, then those of each quarter, and so on: rounds of whole rows."""
    n = code.lanes
    rows = [code.load(row, 0) for row in code.rows(code.start(0, 1), code.args[2], n)]
    step = n // 2
    while step:
        # Of two rows the second one's columns are numbered from n on.
        left = [j if not j & step else n + j - step for j in range(n)]
        right = [j + step if not j & step else n + j for j in range(n)]
        for i in (i for i in range(n) if not i & step):
            pair = rows[i], rows[i + step]
            rows[i], rows[i + step] = code.shuffle(*pair, left), code.shuffle(*pair, right)
        step //= 2
    for row, place in zip(rows, code.rows(code.start(3, 4), code.args[5], n), strict=True):
        code.store(row, place, 0)


def _in_compiled_code(function: Callable[..., None], build: Callable[[_Call], None], of: int) -> None:
    """A call of `function` is what `build` makes of it. of: the argument whose numbers fill the vectors."""

    class Typed(AbstractTemplate):
        key = function

        def generic(self, args: Any, kws: Any) -> Any:
            """Numbers are of 64 bits."""
            return signature(types.none, *(types.intp if isinstance(arg, types.Integer) else arg for arg in args))

    infer_global(function, types.Function(Typed))

    @lower_builtin(function, types.VarArg(types.Any))
    def code(context: Any, builder: Any, called_with: Any, args: Any) -> Any:
        build(_Call(context, builder, called_with.args, args, of))
        return context.get_dummy_value()


_in_compiled_code(tile, _tile, of=2)
_in_compiled_code(transpose, _transpose, of=0)
