// Around the products of a dense layer or a convolution: bias, gathered rows and activation, and their way back.

// y = f(Σ products + b + rows[labels]). products (planes, n, d), of which the first may be y itself, and of which there
// may be none; rows (classes, d) with labels (n,), or null: what a one-hot part adds is the row of W of each label.
KERNEL bias_activate(const real* products, int planes, const real* b, const real* rows, const label* labels, real* y,
                     int d, int size, int activation) {
    int i = place();
    if (i >= size) return;
    int j = i % d;
    real h = b[j];
    for (int plane = 0; plane < planes; plane++) h += products[(long long)plane * size + i];
    if (labels) h += rows[labels[i / d] * d + j];
    y[i] = activate(h, activation);
}

// g = dy f'(y), and its sums over blocks of `rows` rows: sums (blocks, d), or db (d,) itself where one block has them
// all. g may be null, for an f that is linear. A block has 32 columns and 8 rows of threads.
KERNEL slope_times(const real* dy, const real* y, real* g, real* sums, int n, int d, int rows, int activation,
                   int accumulate) {
    __shared__ real part[8][WARP];
    int column = threadIdx.x % WARP, row = threadIdx.x / WARP;
    int j = blockIdx.x * WARP + column;
    int start = blockIdx.y * rows, stop = min(start + rows, n);
    real sum = 0;
    if (j < d)
        for (int i = start + row; i < stop; i += 8) {
            real g_ij = dy[i * d + j] * slope(y[i * d + j], activation);
            if (g) g[i * d + j] = g_ij;
            sum += g_ij;
        }
    part[row][column] = sum;
    __syncthreads();
    if (row == 0 && j < d) {
        for (int other = 1; other < 8; other++) sum += part[other][column];
        real* out = sums + blockIdx.y * d + j;
        *out = accumulate ? *out + sum : sum;
    }
}

// total = Σ over m of sums (m, d), added to what is there where `accumulate` is true.
KERNEL sum_rows(const real* sums, real* total, int m, int d, int accumulate) {
    int j = place();
    if (j >= d) return;
    real sum = accumulate ? total[j] : 0;
    for (int i = 0; i < m; i++) sum += sums[i * d + j];
    total[j] = sum;
}

// y_nd = scale_n rows_nd.
KERNEL scale_rows(const real* rows, const real* scale, real* y, int d, int size) {
    int i = place();
    if (i < size) y[i] = scale[i / d] * rows[i];
}
