// The product of two matrices that lie in any way.

#include "product.cuh"

// C = A B, or C + A B; A (m, k) and B (k, n) have any distance between rows and between columns.
PRODUCT product(const real* A, int A_row, int A_column, const real* B, int B_row, int B_column, real* C, int m, int n,
               int k, int accumulate, int pieces, real* planes, int* tickets) {
    __shared__ Four memory[Tile::MEMORY / 4];
    Matrix a(A, A_row, A_column, m, k), b(B, B_column, B_row, n, k);
    auto out = [=](int i, int j, real h) { C[i * n + j] = accumulate ? C[i * n + j] + h : h; };
    multiply(a, b, out, blockIdx.x, Shares{pieces, planes, tickets}, memory);
}
