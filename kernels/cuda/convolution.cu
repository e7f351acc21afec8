// Convolutions as products with the windows of an image, none of which is ever written.

#include "product.cuh"

// n / d for 0 <= n < 2^31 by a product, several times as fast. Granlund and Montgomery 1994, theorem 4.2.
struct Divisor {
    int d, shift;
    unsigned factor;

    __device__ int quotient(int n) const { return d == 1 ? n : (int)((unsigned long long)n * factor >> shift); }

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

struct Divisors {
    Divisor c, kw, I, J, u, v;
};

// Those of an image, each found by another thread of the block: a division of 64 bits takes long.
__device__ inline const Divisors& divisors_of(const Images& image) {
    __shared__ Divisor found[6];
    int ds[] = {image.c, image.kw, image.I, image.J, image.u, image.v}, d = 1;
#pragma unroll
    for (int i = 0; i < 6; i++)
        if (threadIdx.x == i) d = ds[i];
    if (threadIdx.x < 6) {
        int shift = 31;
        while (1 << (shift - 31) < d) shift++;
        found[threadIdx.x] = {d, shift, (unsigned)(((1ull << shift) + d - 1) / d)};
    }
    __syncthreads();
    return *(const Divisors*)found;
}

// Windows as an operand: the places (n, i, j) are rows of A and the cells (a, b, channel) the terms, or the other way
// round.
template <bool PLACES_OUTER>
struct Windows {
    typedef Four Raw;
    struct Anchor {  // what a place, or a cell, adds to where a number lies in x, and to its row and column in the image
        int start, row, column;
    };
    Images image;
    Divisors by;
    int outers, terms, row_size, image_size;
    bool fours;

    __device__ Windows(const Images& image, const Divisors& by, int outers, int terms)
        : image(image), by(by), outers(outers), terms(terms), row_size(by.v.quotient(image.w) * image.c),
          image_size(by.u.quotient(image.h) * row_size), fours(aligned(image.x, image.c)) {}

    __device__ static bool along() { return PLACES_OUTER; }
    __device__ Four finished(const Four& raw) const { return raw; }

    __device__ Anchor of_place(int place) const {
        int j = by.J.split(place), i = by.I.split(place);
        return {place * image_size, i * image.s - image.p, j * image.t - image.q};
    }

    __device__ Anchor of_cell(int cell) const {
        int channel = by.c.split(cell), b = by.kw.split(cell);
        return {channel, cell, b};
    }

    __device__ Anchor anchor(int o) const { return PLACES_OUTER ? of_place(o) : of_cell(o); }

    // Where the number lies, or -1 outside of the image.
    __device__ int where(const Anchor& place, const Anchor& cell) const {
        int row = place.row + cell.row, column = place.column + cell.column;
        if (row < 0 || row >= image.h || column < 0 || column >= image.w) return -1;
        return place.start + cell.start + by.u.quotient(row) * row_size + by.v.quotient(column) * image.c;
    }

    __device__ Four raw(const Anchor& anchor, int o, int p) const {
        int place = PLACES_OUTER ? o : p, cell = PLACES_OUTER ? p : o;
        int places = PLACES_OUTER ? outers : terms, cells = PLACES_OUTER ? terms : outers;
        Four found = {};
        if (place >= places) return found;
        Anchor window = PLACES_OUTER ? anchor : of_place(place);
        if (fours && cell + 3 < cells) {
            int start = where(window, PLACES_OUTER ? of_cell(cell) : anchor);
            return start < 0 ? found : *(const Four*)(image.x + start);
        }
#pragma unroll
        for (int v = 0; v < 4; v++) {
            int start = cell + v < cells ? where(window, of_cell(cell + v)) : -1;
            if (start >= 0) found.n[v] = image.x[start];
        }
        return found;
    }
};

// A kernel W (a, b, in, out) that lies in any way, even backwards: cells (a, b, in) are terms, out counts columns of B.
struct Weights : Operand {
    const real* W;
    int step_a, step_b, step_in, step_out;
    Divisor by_in, by_kw;
    int outers, terms;
    bool fours;

    __device__ Weights(const real* W, int step_a, int step_b, int step_in, int step_out, const Divisors& by, int outers,
                      int terms)
        : W(W), step_a(step_a), step_b(step_b), step_in(step_in), step_out(step_out), by_in(by.c), by_kw(by.kw),
          outers(outers), terms(terms), fours(aligned(W, step_a) && step_b % 4 == 0) {
        fours = fours && (along() ? step_in == 1 && by.c.d % 4 == 0 && step_out % 4 == 0 : step_in % 4 == 0);
    }

    __device__ bool along() const { return step_out != 1; }

    __device__ const real* where(int o, int p) const {
        int in = by_in.split(p), b = by_kw.split(p), a = p;
        return W + a * step_a + b * step_b + in * step_in + o * step_out;
    }

    __device__ Four raw(Anchor, int o, int p) const {
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
PRODUCT convolve(const real* x, int h, int w, int c, int I, int J, int kh, int kw, int s, int t, int p, int q, int u,
                int v, const real* W, int W_a, int W_b, int W_in, int W_out, const real* b, real* y, int m, int n,
                int activation, int pieces, real* planes, int* tickets) {
    __shared__ Four memory[Tile::MEMORY / 4];
    int cells = kh * kw * c;
    Images image{x, h, w, c, I, J, kh, kw, s, t, p, q, u, v};
    const Divisors& by = divisors_of(image);
    Windows<true> windows(image, by, m, cells);
    Weights weights(W, W_a, W_b, W_in, W_out, by, n, cells);
    auto out = [=](int i, int j, real h_ij) { y[i * n + j] = activate(b ? h_ij + b[j] : h_ij, activation); };
    multiply(windows, weights, out, blockIdx.x, Shares{pieces, planes, tickets}, memory);
}

// dW = P(x)^T g, or added to what is there; g (m places, n channels), dW (a, b, in, out) as `Weights`.
PRODUCT convolve_gradient(const real* x, int h, int w, int c, int I, int J, int kh, int kw, int s, int t, int p, int q,
                         int u, int v, const real* g, real* dW, int dW_a, int dW_b, int dW_in, int dW_out, int m, int n,
                         int accumulate, int pieces, real* planes, int* tickets) {
    __shared__ Four memory[Tile::MEMORY / 4];
    int cells = kh * kw * c;
    Images image{x, h, w, c, I, J, kh, kw, s, t, p, q, u, v};
    Windows<false> windows(image, divisors_of(image), cells, m);
    Matrix matrix(g, 1, n, n, m);
    auto out = [=](int cell, int j, real sum) {
        int in = cell % c, b = cell / c % kw, a = cell / c / kw;
        real* place = dW + a * dW_a + b * dW_b + in * dW_in + j * dW_out;
        *place = accumulate ? *place + sum : sum;
    };
    multiply(windows, matrix, out, blockIdx.x, Shares{pieces, planes, tickets}, memory);
}
