"""Matrix products from register tiles: C (+)= A B, written for the small batches of training.

A product of 64 rows is too small for what BLAS libraries do first, copying both operands into their own order. Here
a tile of C stays in vector registers while A and B stream past it where they lie:

                 B  k ->  [ b0 | b1 | b2 ]      3 vectors of row k, loaded
                            |    |    |
          A[0, k] ------> [ c  | c  | c  ]      one number of A, copied to all lanes, times the three vectors:
          A[1, k] ------> [ c  | c  | c  ]      24 multiply-adds for 11 loads, so that the arithmetic is the limit
            ...           [       ...    ]
          A[7, k] ------> [ c  | c  | c  ]      C is touched once, when all k are summed

The tile (`_tile_code`) is written as LLVM vector instructions, because no loop in Numba keeps 24 sums in registers;
everything around it is plain Numba. How many floats a vector holds, and how many rows fit into the registers, follows
the processor. Each element of C is one chain of multiply-adds in the order of k, so that it does not depend on how
the work is split over threads.

README.md in this folder tells which ideas led here and what each of them gained.
"""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from minicvae.kernels.compiled import kernel

VECTORS = 3  # vectors of C in a row of the tile
DEPTH = 128  # k at a time: 128 x 48 floats of B stay in the first cache while all rows of A pass by
PACK_ROWS = 128  # a product of this many rows reads B often enough that a copy in the tile's order pays


def _vector_bytes_and_rows() -> tuple[int, int]:
    """Bytes of a vector and rows of a tile: AVX-512 and Arm have 32 registers, AVX2 and SSE 16.

    Numba compiles for the host unless NUMBA_CPU_NAME or NUMBA_CPU_FEATURES say otherwise.
    """
    if platform.machine().lower() in ("arm64", "aarch64"):
        return 16, 8
    features = config.CPU_FEATURES
    if features is None:
        features = get_host_cpu_features().flatten()
    enabled = set(features.split(","))
    if {"+avx512f", "+avx512vl"} <= enabled:
        return 64, 8
    return (32, 4) if {"+avx2", "+fma"} <= enabled else (16, 4)


VECTOR_BYTES, ROWS = _vector_bytes_and_rows()


I32, I64 = ir.IntType(32), ir.IntType(64)


class _Lanes:
    """LLVM instructions on vectors of `lanes` numbers. An address is a base pointer and an offset in bytes."""

    def __init__(self, builder: Any, scalar: ir.Type, lanes: int) -> None:
        self.builder, self.scalar, self.lanes = builder, scalar, lanes
        self.bytes = VECTOR_BYTES // lanes
        self.vector = ir.VectorType(scalar, lanes)
        self.zero = ir.Constant(self.vector, [0.0] * lanes)
        self.suffix = f"v{lanes}f{8 * self.bytes}"

    def intrinsic(self, name: str, result: ir.Type, *arguments: ir.Value) -> ir.Value:
        """Call `llvm.<name>` of this vector type."""
        signature = ir.FunctionType(result, [a.type for a in arguments])
        function = cgutils.get_or_insert_function(self.builder.module, signature, f"llvm.{name}")
        return self.builder.call(function, arguments)

    def pointer(self, base: ir.Value, offset: ir.Value, pointee: ir.Type) -> ir.Value:
        """base + offset, as a pointer to a scalar or a vector."""
        return self.builder.bitcast(self.builder.gep(base, [offset]), pointee.as_pointer())

    def splat(self, number: ir.Value) -> ir.Value:
        """A vector with the number in every lane."""
        first = self.builder.insert_element(ir.Constant(self.vector, ir.Undefined), number, I32(0))
        return self.shuffle(first, first, [0] * self.lanes)

    def shuffle(self, u: ir.Value, v: ir.Value, lanes: list[int]) -> ir.Value:
        """The vector of the given lanes of u and v, where v's lanes count on from u's."""
        return self.builder.shuffle_vector(u, v, ir.Constant(ir.VectorType(I32, len(lanes)), lanes))

    def first_lanes(self, count: ir.Value) -> ir.Value:
        """The mask with true in the first `count` lanes (none for a count of 0 or less)."""
        counts = ir.VectorType(I64, self.lanes)
        first = self.builder.insert_element(ir.Constant(counts, ir.Undefined), count, I32(0))
        every = self.builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes))
        return self.builder.icmp_signed("<", ir.Constant(counts, list(range(self.lanes))), every)

    def load(self, base: ir.Value, offset: ir.Value, mask: ir.Value | None = None) -> ir.Value:
        """The vector at an address; lanes outside the mask are not read, and are 0."""
        pointer = self.pointer(base, offset, self.vector)
        if mask is None:
            return self.builder.load(pointer, align=self.bytes)
        return self.intrinsic(f"masked.load.{self.suffix}.p0", self.vector, pointer, I32(self.bytes), mask, self.zero)

    def store(self, value: ir.Value, base: ir.Value, offset: ir.Value, mask: ir.Value | None = None) -> None:
        """Write a vector to an address; lanes outside the mask are not touched."""
        pointer = self.pointer(base, offset, self.vector)
        if mask is None:
            self.builder.store(value, pointer, align=self.bytes)
        else:
            name = f"masked.store.{self.suffix}.p0"
            self.intrinsic(name, ir.VoidType(), value, pointer, I32(self.bytes), mask)

    def multiply_add(self, u: ir.Value, v: ir.Value, w: ir.Value) -> ir.Value:
        """u v + w, in one instruction where the processor has it."""
        return self.intrinsic(f"fmuladd.{self.suffix}", self.vector, u, v, w)


def _operand(context: Any, builder: Any, array_type: Any, value: ir.Value) -> tuple[ir.Value, Any, Any]:
    """A 2-d array's address, shape and strides in bytes."""
    array = context.make_array(array_type)(context, builder, value)
    address = builder.bitcast(array.data, ir.IntType(8).as_pointer())
    return address, cgutils.unpack_tuple(builder, array.shape, 2), cgutils.unpack_tuple(builder, array.strides, 2)


def tile_code(rows: int, vectors: int, edge: bool) -> Any:
    """The function `tile(A, B, C, add)` for at most `rows` rows: C = A B, or C += A B where `add` is true.

    A (m, depth) with any strides, 1 <= m <= rows; B (depth, n) and C (m, n) with rows of adjacent numbers. n is
    `vectors` whole vectors, or, where `masked` is true, anything up to that. depth >= 1.
    """

    @intrinsic
    def tile(typing_context, A, B, C, add):
        lanes = VECTOR_BYTES * 8 // C.dtype.bitwidth

        def codegen(context, builder, signature, arguments):
            v = _Lanes(builder, context.get_value_type(C.dtype), lanes)
            a, (m, _), (a_row, a_column) = _operand(context, builder, A, arguments[0])
            b, (depth, _), (b_row, _) = _operand(context, builder, B, arguments[1])
            c, (_, n), (c_row, _) = _operand(context, builder, C, arguments[2])
            columns = [I64(j * VECTOR_BYTES) for j in range(vectors)]
            masks = [v.first_lanes(builder.sub(n, I64(j * lanes))) if edge else None for j in range(vectors)]

            # At an edge, rows beyond m read row m - 1 again; they are computed and not stored.
            last = builder.sub(m, I64(1)) if edge else I64(rows - 1)
            a_rows = []
            for i in range(rows):
                i_read = builder.select(builder.icmp_signed("<", last, I64(i)), last, I64(i)) if edge else I64(i)
                a_rows.append(builder.mul(i_read, a_row))

            start = builder.block
            loop, done = builder.append_basic_block("depth"), builder.append_basic_block("summed")
            builder.branch(loop)
            builder.position_at_end(loop)
            k, a_k, b_k = builder.phi(I64), builder.phi(a.type), builder.phi(b.type)
            sums = [[builder.phi(v.vector) for _ in range(vectors)] for _ in range(rows)]
            b_vectors = [v.load(b_k, j, mask) for j, mask in zip(columns, masks, strict=True)]
            for a_i, sums_i in zip(a_rows, sums, strict=True):
                a_ik = v.splat(builder.load(v.pointer(a_k, a_i, v.scalar)))
                for j, (b_kj, sum_ij) in enumerate(zip(b_vectors, sums_i, strict=True)):
                    sum_ij.add_incoming(v.zero, start)
                    sums_i[j] = v.multiply_add(a_ik, b_kj, sum_ij)
                    sum_ij.add_incoming(sums_i[j], loop)
            next_k = builder.add(k, I64(1))
            advance = (k, I64(0), next_k), (a_k, a, builder.gep(a_k, [a_column])), (b_k, b, builder.gep(b_k, [b_row]))
            for phi, first, following in advance:
                phi.add_incoming(first, start)
                phi.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", next_k, depth), loop, done)

            builder.position_at_end(done)
            stored = builder.append_basic_block("stored")
            for i in range(rows):
                row = builder.gep(c, [builder.mul(c_row, I64(i))])
                for j, sum_ij, mask in zip(columns, sums[i], masks, strict=True):
                    before = builder.select(arguments[3], v.load(row, j, mask), v.zero)
                    v.store(builder.fadd(sum_ij, before), row, j, mask)
                if edge:
                    following = builder.append_basic_block(f"row_{i + 1}")
                    builder.cbranch(builder.icmp_signed("<", I64(i), last), following, stored)
                    builder.position_at_end(following)
            builder.branch(stored)
            builder.position_at_end(stored)
            return context.get_dummy_value()

        return types.void(A, B, C, types.boolean), codegen

    return tile


_one_vector, _two_vectors, _three_vectors = (tile_code(ROWS, vectors, edge=False) for vectors in (1, 2, 3))
_edge = tile_code(ROWS, VECTORS, edge=True)


@kernel
def _copy(b, room):
    """b (depth, width), copied to where its rows lie one after the other."""
    depth, width = b.shape
    rows = room[:depth, :width]
    for k in range(depth):
        for j in range(width):
            rows[k, j] = b[k, j]
    return rows


def _product_in_python(A: np.ndarray, B: np.ndarray, C: np.ndarray, add: bool) -> None:
    """`product` where nothing is compiled (NUMBA_DISABLE_JIT=1)."""
    C[...] = A @ B + (C if add else 0)


@kernel
def _product(A, B, C, add):
    """C = A B, or C += A B where `add` is true.

    A (m, depth) with any strides, B (depth, n) and C (m, n) with rows of adjacent numbers. B is cut into blocks of
    `DEPTH` k and panels of three vectors of columns; past each of these, all rows of A go tile by tile.
    """
    m, n = C.shape
    depth = len(B)
    lanes = VECTOR_BYTES // C.itemsize
    if depth == 0 and not add:
        C[:, :] = 0
    packed = np.empty((DEPTH if m >= PACK_ROWS else 0, VECTORS * lanes), C.dtype)
    blocks = (depth + DEPTH - 1) // DEPTH
    for block in range(blocks):
        k = slice(block * depth // blocks, (block + 1) * depth // blocks)
        start = 0
        while start < n:
            vectors = min((n - start) // lanes, VECTORS)
            if (n - start) // lanes == VECTORS + 1:
                vectors = VECTORS - 1  # four are two and two: one vector alone leaves the arithmetic waiting
            j = slice(start, start + vectors * lanes if vectors else n)
            start = j.stop
            panel = _copy(B[k, j], packed) if m >= PACK_ROWS else B[k, j]
            for i in range(0, m, ROWS):
                rows = slice(i, i + ROWS)
                if vectors == 0 or i + ROWS > m:
                    _edge(A[rows, k], panel, C[rows, j], add or block > 0)
                elif vectors == 3:
                    _three_vectors(A[rows, k], panel, C[rows, j], add or block > 0)
                elif vectors == 2:
                    _two_vectors(A[rows, k], panel, C[rows, j], add or block > 0)
                else:
                    _one_vector(A[rows, k], panel, C[rows, j], add or block > 0)


product = _product_in_python if config.DISABLE_JIT else _product


@kernel
def transpose(a, aT):
    """aT = aᵀ, in squares that stay in the first cache; a (m, n) -> aT (n, m)."""
    m, n = a.shape
    for i0 in range(0, m, 16):
        for j0 in range(0, n, 16):
            for j in range(j0, min(j0 + 16, n)):
                for i in range(i0, min(i0 + 16, m)):
                    aT[j, i] = a[i, j]
