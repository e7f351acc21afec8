// Rows taken from a table, and gradients put back into it.

// x_nd = images[index_n, d] / 255.
KERNEL gather_pixels(const byte* images, const label* index, real* x, int d, int size) {
    int i = place();
    if (i < size) x[i] = images[index[i / d] * d + i % d] / (real)255;
}

// x_nd = table[index_n, d].
KERNEL gather_rows(const real* table, const label* index, real* x, int d, int size) {
    int i = place();
    if (i < size) x[i] = table[index[i / d] * d + i % d];
}

// dE_kd = Σ over {n: labels_n = k} of g_nd, in the order of n: a thread for each number of dE, and no two that add to
// the same one. size = classes d.
KERNEL scatter_rows(const real* g, const label* labels, real* dE, int n, int d, int size, int accumulate) {
    int i = place();
    if (i >= size) return;
    int k = i / d, j = i % d;
    real sum = accumulate ? dE[i] : 0;
    for (int m = 0; m < n; m++)
        if (labels[m] == k) sum += g[m * d + j];
    dE[i] = sum;
}

// What a recorded step works on: up to three arrays, as words, from the addresses in `cells`. A thread for each word of the
// longest.
KERNEL take_next(const label* cells, int* a, int a_words, int* b, int b_words, int* c, int c_words) {
    int i = place();
    if (i < a_words) a[i] = ((const int*)cells[0])[i];
    if (i < b_words) b[i] = ((const int*)cells[1])[i];
    if (i < c_words) c[i] = ((const int*)cells[2])[i];
}
