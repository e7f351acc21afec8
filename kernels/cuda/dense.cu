// Dense layers, each way in one launch.

#include "product.cuh"

// Examples of up to two matrices of numbers, of which features come one after the other, x1 (m, d1) and x2 (m, d2);
// then those of a one-hot matrix held as its labels; then as many ones as there are features left.
struct Inputs {
    const real *x1, *x2;
    int step1, d1, step2, d2;
    const label* labels;
    int classes;

    __device__ real number(int example, int feature) const {
        if (feature < d1) return x1[example * step1 + feature];
        if ((feature -= d1) < d2) return x2[example * step2 + feature];
        if ((feature -= d2) < classes) return labels[example] == feature;
        return 1;
    }
};

// Inputs as an operand: examples are rows of A and features the terms, or the other way round.
template <bool FORWARD>
struct Joined : Operand {
    Inputs inputs;
    int outers, terms;
    bool fours;

    __device__ Joined(Inputs inputs, int outers, int terms)
        : inputs(inputs), outers(outers), terms(terms), fours(aligned(inputs.x1, inputs.step1)) {}

    __device__ static bool along() { return FORWARD; }

    __device__ Four raw(Anchor, int o, int p) const {
        int example = FORWARD ? o : p, feature = FORWARD ? p : o;
        int examples = FORWARD ? outers : terms, features = FORWARD ? terms : outers;
        if (fours && example < examples && feature + 3 < min(inputs.d1, features))
            return *(const Four*)(inputs.x1 + example * inputs.step1 + feature);
        Four found;
#pragma unroll
        for (int v = 0; v < 4; v++)
            found.n[v] = example < examples && feature + v < features ? inputs.number(example, feature + v) : 0;
        return found;
    }
};

// y = f([x1, x2] W + b + rows[labels] + y): b, rows with labels, and y may be left out; W (d1 + d2, n), y (m, n).
PRODUCT dense(const real* x1, int x1_step, int d1, const real* x2, int x2_step, int d2, const real* W, const real* b,
             const real* rows, const label* labels, real* y, int m, int n, int activation, int accumulate, int pieces,
             real* planes, int* tickets) {
    __shared__ Four memory[Tile::MEMORY / 4];
    Joined<true> a(Inputs{x1, x2, x1_step, d1, x2_step, d2, labels, 0}, m, d1 + d2);
    Matrix w(W, 1, n, n, d1 + d2);
    auto out = [=](int i, int j, real h) {
        if (b) h += b[j];
        if (labels) h += rows[labels[i] * n + j];
        if (accumulate) h += y[i * n + j];
        y[i * n + j] = activate(h, activation);
    };
    multiply(a, w, out, blockIdx.x, Shares{pieces, planes, tickets}, memory);
}

// g = dy f'(y), (m, n), of which nothing is written: examples are rows of A and outputs the terms, or the other way round.
template <bool EXAMPLES_OUTER>
struct Slope {
    struct Raw {
        Four dy, y;
    };
    struct Anchor {};
    const real *dy, *y;
    int n, outers, terms;
    Slopes slope;
    bool fours;

    __device__ Slope(const real* dy, const real* y, int n, int f, int outers, int terms)
        : dy(dy), y(y), n(n), outers(outers), terms(terms), slope(f), fours(aligned(dy, n) && aligned(y, n)) {}

    __device__ static bool along() { return EXAMPLES_OUTER; }
    __device__ Anchor anchor(int) const { return {}; }

    __device__ Raw raw(Anchor, int o, int p) const {
        int example = EXAMPLES_OUTER ? o : p, j = EXAMPLES_OUTER ? p : o;
        int examples = EXAMPLES_OUTER ? outers : terms, columns = EXAMPLES_OUTER ? terms : outers;
        Raw found = {};
        if (example >= examples) return found;
        int start = example * n + j;
        if (fours && j + 3 < columns) {
            found.dy = *(const Four*)(dy + start);
            if (!slope.linear) found.y = *(const Four*)(y + start);
            return found;
        }
#pragma unroll
        for (int v = 0; v < 4; v++)
            if (j + v < columns) {
                found.dy.n[v] = dy[start + v];
                if (!slope.linear) found.y.n[v] = y[start + v];
            }
        return found;
    }

    __device__ Four finished(const Raw& raw) const {
        Four g;
#pragma unroll
        for (int v = 0; v < 4; v++) g.n[v] = raw.dy.n[v] * slope(raw.y.n[v]);
        return g;
    }
};

// With g = dy f'(y) (m, n) and X = [x1, x2, one-hot of the labels] (m, d), where d = d1 + d2 + classes:
//
//     dW = X^T g (d, n)       db = Σ g, the row of dW that belongs to an input of ones
//     dx1 = g W1^T (m, d1)    dx2 = g W2^T (m, d2)
//
// dW and db are added to what is there where `accumulate` is true. db, and dx1 or dx2 with a width of 0, may be left
// out; W begins with the rows of whichever is first. The first blocks make dx, whose sums are the longer ones, those after
// them dW.
PRODUCT dense_backward(const real* dy, const real* y, const real* x1, int x1_step, int d1, const real* x2, int x2_step,
                      int d2, const label* labels, int classes, const real* W, real* dW, real* db, real* dx1,
                      int width1, real* dx2, int width2, int m, int n, int activation, int accumulate, int pieces_W,
                      real* planes_W, int* tickets_W, int pieces_x, real* planes_x, int* tickets_x) {
    __shared__ Four memory[Tile::MEMORY / 4];
    int block = blockIdx.x, blocks_x = tiles(m, width1 + width2) * pieces_x;
    if (block < blocks_x) {
        Slope<true> g(dy, y, n, activation, m, n);
        Matrix w(W, n, 1, width1 + width2, n);
        auto out = [=](int i, int j, real h) {
            if (j < width1)
                dx1[i * width1 + j] = h;
            else
                dx2[i * width2 + j - width1] = h;
        };
        multiply(g, w, out, block, Shares{pieces_x, planes_x, tickets_x}, memory);
        return;
    }
    block -= blocks_x;
    int d = d1 + d2 + classes, rows = d + (db ? 1 : 0);
    Joined<false> a(Inputs{x1, x2, x1_step, d1, x2_step, d2, labels, classes}, rows, m);
    Slope<false> g(dy, y, n, activation, n, m);
    auto out = [=](int i, int j, real h) {
        real* place = i < d ? dW + i * n + j : db + j;
        *place = accumulate ? *place + h : h;
    };
    multiply(a, g, out, block, Shares{pieces_W, planes_W, tickets_W}, memory);
}
