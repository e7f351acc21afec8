// Convolutions as products with the windows of an image, none of which is ever written.

#include "product.cuh"

// n / d for 0 <= n < 2^31 by a product, several times as fast. Granlund and Montgomery 1994, theorem 4.2.
struct Divisor {
    int d, shift;
    unsigned long long factor;

    __device__ explicit Divisor(int d) : d(d), shift(31) {
        while (1 << (shift - 31) < d) shift++;
        factor = ((1ull << shift) + d - 1) / d;
    }

    __device__ int quotient(int n) const { return (int)(n * factor >> shift); }

    // The remainder; n becomes the quotient.
    __device__ int split(int& n) const {
        int whole = quotient(n), rest = n - whole * d;
        n = whole;
        return rest;
    }
};

// Images (n, h / u, w / v, c), each pixel of which counts as a block of u by v, and the windows of kh by kw on the h by w
// that they become: at I by J places, s and t apart, with p and q rows and columns of zeros before the image.
struct Images {
    const real* x;
    int h, w, c, I, J, kh, kw, s, t, p, q, u, v;
};

// Windows as an operand: the places (n, i, j) are rows of A and the cells (a, b, channel) the terms, or the other way
// round.
template <bool PLACES_OUTER>
struct Windows {
    Images image;
    Divisor by_c, by_kw, by_I, by_J, by_u, by_v;
    int outers, terms, row_size, image_size;
    bool fours;

    __device__ Windows(Images image, int outers, int terms)
        : image(image), by_c(image.c), by_kw(image.kw), by_I(image.I), by_J(image.J), by_u(image.u), by_v(image.v),
          outers(outers), terms(terms), row_size(image.w / image.v * image.c),
          image_size(image.h / image.u * row_size), fours(aligned(image.x, image.c)) {}

    __device__ static bool along() { return PLACES_OUTER; }

    // Where the number lies, or -1 outside of the image.
    __device__ int where(int place, int cell) const {
        int channel = by_c.split(cell), b = by_kw.split(cell), a = cell;
        int j = by_J.split(place), i = by_I.split(place), n = place;
        int row = i * image.s - image.p + a, column = j * image.t - image.q + b;
        if (row < 0 || row >= image.h || column < 0 || column >= image.w) return -1;
        return n * image_size + by_u.quotient(row) * row_size + by_v.quotient(column) * image.c + channel;
    }

    __device__ Four four(int o, int p) const {
        int place = PLACES_OUTER ? o : p, cell = PLACES_OUTER ? p : o;
        int places = PLACES_OUTER ? outers : terms, cells = PLACES_OUTER ? terms : outers;
        Four found = {};
        if (place >= places) return found;
        if (fours && cell + 3 < cells) {
            int start = where(place, cell);
            return start < 0 ? found : *(const Four*)(image.x + start);
        }
#pragma unroll
        for (int v = 0; v < 4; v++) {
            int start = cell + v < cells ? where(place, cell + v) : -1;
            if (start >= 0) found.n[v] = image.x[start];
        }
        return found;
    }
};

// A kernel W (a, b, in, out) that lies in any way, even backwards: cells (a, b, in) are terms, out counts columns of B.
struct Kernel {
    const real* W;
    int step_a, step_b, step_in, step_out;
    Divisor by_in, by_kw;
    int outers, terms;
    bool fours;

    __device__ Kernel(const real* W, int step_a, int step_b, int step_in, int step_out, int c, int kw, int outers,
                      int terms)
        : W(W), step_a(step_a), step_b(step_b), step_in(step_in), step_out(step_out), by_in(c), by_kw(kw),
          outers(outers), terms(terms), fours(aligned(W, step_a) && step_b % 4 == 0) {
        fours = fours && (along() ? step_in == 1 && c % 4 == 0 && step_out % 4 == 0 : step_in % 4 == 0);
    }

    __device__ bool along() const { return step_out != 1; }

    __device__ const real* where(int o, int p) const {
        int in = by_in.split(p), b = by_kw.split(p), a = p;
        return W + a * step_a + b * step_b + in * step_in + o * step_out;
    }

    __device__ Four four(int o, int p) const {
        bool whole = along() ? o < outers && p + 3 < terms : o + 3 < outers && p < terms;
        if (fours && whole) return *(const Four*)where(o, p);
        Four found = {};
#pragma unroll
        for (int v = 0; v < 4; v++) {
            int o_v = along() ? o : o + v, p_v = along() ? p + v : p;
            if (o_v < outers && p_v < terms) found.n[v] = *where(o_v, p_v);
        }
        return found;
    }
};

// y = f(P(x) W + b), b left out where there is none: m places, n channels.
KERNEL convolve(const real* x, int h, int w, int c, int I, int J, int kh, int kw, int s, int t, int p, int q, int u,
                int v, const real* W, int W_a, int W_b, int W_in, int W_out, const real* b, real* y, int m, int n,
                int activation, int pieces, real* planes, int* tickets) {
    __shared__ Four memory[Tile::MEMORY / 4];
    int cells = kh * kw * c;
    Windows<true> windows(Images{x, h, w, c, I, J, kh, kw, s, t, p, q, u, v}, m, cells);
    Kernel kernel(W, W_a, W_b, W_in, W_out, c, kw, n, cells);
    auto out = [=](int i, int j, real h_ij) { y[i * n + j] = activate(b ? h_ij + b[j] : h_ij, activation); };
    multiply(windows, kernel, out, blockIdx.x / pieces, blockIdx.x % pieces, Shares{pieces, planes, tickets}, memory);
}

// dW = P(x)^T g, or added to what is there; g (m places, n channels), dW (a, b, in, out) as `Kernel`.
KERNEL convolve_gradient(const real* x, int h, int w, int c, int I, int J, int kh, int kw, int s, int t, int p, int q,
                         int u, int v, const real* g, real* dW, int dW_a, int dW_b, int dW_in, int dW_out, int m, int n,
                         int accumulate, int pieces, real* planes, int* tickets) {
    __shared__ Four memory[Tile::MEMORY / 4];
    int cells = kh * kw * c;
    Windows<false> windows(Images{x, h, w, c, I, J, kh, kw, s, t, p, q, u, v}, cells, m);
    Matrix matrix(g, 1, n, n, m);
    auto out = [=](int cell, int j, real sum) {
        int in = cell % c, b = cell / c % kw, a = cell / c / kw;
        real* place = dW + a * dW_a + b * dW_b + in * dW_in + j * dW_out;
        *place = accumulate ? *place + sum : sum;
    };
    multiply(windows, matrix, out, blockIdx.x / pieces, blockIdx.x % pieces, Shares{pieces, planes, tickets}, memory);
}
