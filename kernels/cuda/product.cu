// Matrix products of our own, with what follows them in the same launch: for where cuBLAS cannot go, inside a graph.
//
// A block makes a tile of C, 256 threads EACH x EACH numbers apiece, from strips of A and B that it keeps in shared
// memory, DEPTH columns of A and rows of B at a time. Where C has too few tiles to keep a GPU busy, the sum over k is
// cut into pieces of `depth`, a plane of C for each (blockIdx.y), which `bias_activate` or `sum_rows` adds up in order.

#define DEPTH 16

// C = A B, or with one plane f(A B + b + rows[labels] + C): b (n,), rows (classes, n) with labels (m,) and C may be
// left out. A (m, k) and B (k, n) have any distance between rows and between columns.
template <int EACH>
__device__ void multiply(const real* A, int A_row, int A_column, const real* B, int B_row, int B_column, const real* b,
                         const real* rows, const label* labels, real* C, int m, int n, int k, int depth, int activation,
                         int accumulate) {
    const int TILE = 16 * EACH;
    __shared__ real a[DEPTH][TILE + 1], c[DEPTH][TILE + 1];
    int tiles = (n + TILE - 1) / TILE;
    int top = blockIdx.x / tiles * TILE, left = blockIdx.x % tiles * TILE;
    int begin = blockIdx.y * depth, end = min(begin + depth, k);
    int row = threadIdx.x / 16, column = threadIdx.x % 16;
    real sum[EACH][EACH] = {};
    for (int first = begin; first < end; first += DEPTH) {
        // Neighbouring threads read neighbouring numbers, whichever way a matrix lies.
        for (int t = threadIdx.x; t < TILE * DEPTH; t += blockDim.x) {
            int i = A_column == 1 ? t / DEPTH : t % TILE, p = A_column == 1 ? t % DEPTH : t / TILE;
            bool inside = top + i < m && first + p < end;
            a[p][i] = inside ? A[(long long)(top + i) * A_row + (long long)(first + p) * A_column] : 0;
            int j = B_column == 1 ? t % TILE : t / DEPTH, q = B_column == 1 ? t / TILE : t % DEPTH;
            inside = left + j < n && first + q < end;
            c[q][j] = inside ? B[(long long)(first + q) * B_row + (long long)(left + j) * B_column] : 0;
        }
        __syncthreads();
#pragma unroll
        for (int p = 0; p < DEPTH; p++)
#pragma unroll
            for (int u = 0; u < EACH; u++)
#pragma unroll
                for (int v = 0; v < EACH; v++) sum[u][v] += a[p][row + 16 * u] * c[p][column + 16 * v];
        __syncthreads();
    }
    C += (long long)blockIdx.y * m * n;
#pragma unroll
    for (int u = 0; u < EACH; u++)
#pragma unroll
        for (int v = 0; v < EACH; v++) {
            int i = top + row + 16 * u, j = left + column + 16 * v;
            if (i >= m || j >= n) continue;
            real h = sum[u][v];
            if (b) h += b[j];
            if (labels) h += rows[labels[i] * n + j];
            if (accumulate) h += C[i * n + j];
            C[i * n + j] = activate(h, activation);
        }
}

// Tiles of 32 x 32, for small products.
KERNEL product_32(const real* A, int A_row, int A_column, const real* B, int B_row, int B_column, const real* b,
                  const real* rows, const label* labels, real* C, int m, int n, int k, int depth, int activation,
                  int accumulate) {
    multiply<2>(A, A_row, A_column, B, B_row, B_column, b, rows, labels, C, m, n, k, depth, activation, accumulate);
}

// Tiles of 64 x 64, for large ones: each number that is fetched is used twice as often.
KERNEL product_64(const real* A, int A_row, int A_column, const real* B, int B_row, int B_column, const real* b,
                  const real* rows, const label* labels, real* C, int m, int n, int k, int depth, int activation,
                  int accumulate) {
    multiply<4>(A, A_row, A_column, B, B_row, B_column, b, rows, labels, C, m, n, k, depth, activation, accumulate);
}
