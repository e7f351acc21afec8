// Images NHWC: the transpose of windows, pooling, upsampling. A thread for each number of the result, which it
// gathers from wherever it comes: nothing is scattered, so no two threads meet.
//
// A kernel or pool is kh by kw, a stride s by t; p and q are the rows and columns of zeros before the image.

// x_nhwc = Σ of u_nijabc over all windows that hold the pixel (col2im); size is that of x.
KERNEL overlap_add(const real* u, real* x, int h, int w, int c, int i_count, int j_count, int kh, int kw, int s, int t,
                   int p, int q, int size) {
    int index = place();
    if (index >= size) return;
    int channel = index % c, column = index / c % w + q, row = index / c / w % h + p, n = index / c / w / h;
    real sum = 0;
    for (int a = row % s; a < kh && a <= row; a += s) {
        int i = (row - a) / s;
        if (i >= i_count) continue;
        for (int b = column % t; b < kw && b <= column; b += t) {
            int j = (column - b) / t;
            if (j < j_count) sum += u[((((n * i_count + i) * j_count + j) * kh + a) * kw + b) * c + channel];
        }
    }
    x[index] = sum;
}

// The largest pixel of each window, NaN where it holds one; size is that of y.
KERNEL max_pool(const real* x, real* y, int h, int w, int c, int i_count, int j_count, int kh, int kw, int s, int t,
                int size) {
    int index = place();
    if (index >= size) return;
    int channel = index % c, j = index / c % j_count, i = index / c / j_count % i_count, n = index / c / j_count / i_count;
    const real* corner = x + ((n * h + i * s) * w + j * t) * c + channel;
    real largest = corner[0];
    for (int a = 0; a < kh; a++)
        for (int b = 0; b < kw; b++) {
            real v = corner[(a * w + b) * c];
            if (v > largest || v != v) largest = v;
        }
    y[index] = largest;
}

// Neighbouring channels, handled by one thread, which then finds out only once where they lie.
template <int EACH>
struct alignas(EACH == 4 ? 16 : sizeof(real)) Channels {
    real n[EACH];
};

// As `max_pool_backward`, EACH channels a thread.
template <int EACH>
__device__ inline void first_maxima(const real* dy, const real* x, const real* y, real* dx, int h, int w, int c,
                                    int i_count, int j_count, int kh, int kw, int s, int t, int index) {
    typedef Channels<EACH> Pixel;
    int channel = index % c, column = index / c % w, row = index / c / w % h, n = index / c / w / h;
    Pixel own = *(const Pixel*)(x + index), sum = {};
    for (int a = row % s; a < kh && a <= row; a += s) {
        int i = (row - a) / s;
        if (i >= i_count) continue;
        for (int b = column % t; b < kw && b <= column; b += t) {
            int j = (column - b) / t;
            if (j >= j_count) continue;
            int at = ((n * i_count + i) * j_count + j) * c + channel;
            const real* corner = x + ((n * h + i * s) * w + j * t) * c + channel;
            Pixel largest = *(const Pixel*)(y + at), slope = *(const Pixel*)(dy + at);
            bool first[EACH];
#pragma unroll
            for (int e = 0; e < EACH; e++) first[e] = !(own.n[e] < largest.n[e]);  // equal, or NaN
            for (int before = 0; before < a * kw + b; before++) {
                Pixel earlier = *(const Pixel*)(corner + (before / kw * w + before % kw) * c);
#pragma unroll
                for (int e = 0; e < EACH; e++) first[e] = first[e] && earlier.n[e] < largest.n[e];
            }
#pragma unroll
            for (int e = 0; e < EACH; e++)
                if (first[e]) sum.n[e] += slope.n[e];
        }
    }
    *(Pixel*)(dx + index) = sum;
}

// dx: of each window, dy at the first pixel, row by row, that is not below the maximum; size is that of x. `each`: 4
// channels a thread, of which there are then a multiple of 4, or 1.
KERNEL max_pool_backward(const real* dy, const real* x, const real* y, real* dx, int h, int w, int c, int i_count,
                         int j_count, int kh, int kw, int s, int t, int size, int each) {
    int index = place() * each;
    if (index >= size) return;
    if (each == 4)
        first_maxima<4>(dy, x, y, dx, h, w, c, i_count, j_count, kh, kw, s, t, index);
    else
        first_maxima<1>(dy, x, y, dx, h, w, c, i_count, j_count, kh, kw, s, t, index);
}

// The mean of each window; size is that of y.
KERNEL avg_pool(const real* x, real* y, int h, int w, int c, int i_count, int j_count, int kh, int kw, int s, int t,
                int size) {
    int index = place();
    if (index >= size) return;
    int channel = index % c, j = index / c % j_count, i = index / c / j_count % i_count, n = index / c / j_count / i_count;
    const real* corner = x + ((n * h + i * s) * w + j * t) * c + channel;
    real sum = 0;
    for (int a = 0; a < kh; a++)
        for (int b = 0; b < kw; b++) sum += corner[(a * w + b) * c];
    y[index] = sum / (kh * kw);
}

// dx = Σ of dy / (kh kw) over the windows that hold the pixel; size is that of x.
KERNEL avg_pool_backward(const real* dy, real* dx, int h, int w, int c, int i_count, int j_count, int kh, int kw, int s,
                         int t, int size) {
    int index = place();
    if (index >= size) return;
    int channel = index % c, column = index / c % w, row = index / c / w % h, n = index / c / w / h;
    real sum = 0;
    for (int a = row % s; a < kh && a <= row; a += s) {
        int i = (row - a) / s;
        if (i >= i_count) continue;
        for (int b = column % t; b < kw && b <= column; b += t) {
            int j = (column - b) / t;
            if (j < j_count) sum += dy[((n * i_count + i) * j_count + j) * c + channel];
        }
    }
    dx[index] = sum / (kh * kw);
}

// y: each pixel of x (n, h, w, c) a block of s by t; size is that of y.
KERNEL upsample(const real* x, real* y, int h, int w, int c, int s, int t, int size) {
    int index = place();
    if (index >= size) return;
    int channel = index % c, column = index / c % (w * t), row = index / c / (w * t) % (h * s);
    int n = index / c / (w * t) / (h * s);
    y[index] = x[((n * h + row / s) * w + column / t) * c + channel];
}

// dx: the sum over the block that the pixel became; h, w and size are those of dx.
KERNEL upsample_backward(const real* dy, real* dx, int h, int w, int c, int s, int t, int size) {
    int index = place();
    if (index >= size) return;
    int channel = index % c, column = index / c % w, row = index / c / w % h, n = index / c / w / h;
    real sum = 0;
    for (int a = 0; a < s; a++)
        for (int b = 0; b < t; b++) sum += dy[((n * h * s + row * s + a) * w * t + column * t + b) * c + channel];
    dx[index] = sum;
}
