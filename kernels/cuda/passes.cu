// Passes around products that are made elsewhere: bias and activation, slope and the bias's gradient, factors of rows.

// y = f(y + b), in place.
KERNEL bias_activate(real* y, const real* b, int d, int size, int activation) {
    int i = place();
    if (i < size) y[i] = activate(y[i] + b[i % d], activation);
}

// The sums of `x` over the threads of a block that have the same column, t % columns; the first `columns` threads get them.
__device__ inline real column_sum(real x, int columns) {
    __shared__ real part[MOST];
    int t = threadIdx.x;
    __syncthreads();  // nobody reads what was there
    part[t] = x;
    __syncthreads();
    for (int half = blockDim.x / 2; half >= columns; half /= 2) {
        if (t < half) part[t] += part[t + half];
        __syncthreads();
    }
    return part[t];
}

// g = dy f'(y) and db = Σ g over rows, added to what is there where `accumulate` is true. g may be null, for an f that is
// linear. A block has `columns` columns, a power of two, and `rows` rows; the last for some columns adds up what all have
// left in sums (blocks, d).
KERNEL slope_times(const real* dy, const real* y, real* g, real* db, real* sums, int* tickets, int n, int d, int columns,
                   int rows, int activation, int accumulate) {
    int column = threadIdx.x % columns, row = threadIdx.x / columns, step = blockDim.x / columns;
    int j = blockIdx.x * columns + column, start = blockIdx.y * rows, stop = min(start + rows, n);
    bool first = row == 0 && j < d;
    Slopes slope(activation);
    real sum = 0;
    if (j < d)
#pragma unroll 4
        for (int i = start + row; i < stop; i += step) {
            real g_ij = dy[i * d + j] * slope(y[i * d + j]);
            if (g) g[i * d + j] = g_ij;
            sum += g_ij;
        }
    sum = column_sum(sum, columns);
    if (gridDim.y > 1) {
        if (first) sums[blockIdx.y * d + j] = sum;
        if (!last_of(gridDim.y, tickets + blockIdx.x)) return;
        sum = 0;
        if (j < d)
#pragma unroll 4
            for (int block = row; block < gridDim.y; block += step) sum += __ldcg(sums + block * d + j);
        sum = column_sum(sum, columns);
    }
    if (first) db[j] = accumulate ? db[j] + sum : sum;
}

// y_nd = scale_n rows_nd.
KERNEL scale_rows(const real* rows, const real* scale, real* y, int d, int size) {
    int i = place();
    if (i < size) y[i] = scale[i / d] * rows[i];
}
