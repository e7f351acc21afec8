// Products of matrices, C = A B, made for what a small network asks for: sums of a few hundred terms, results of a few
// hundred rows, and something to be done to each number of C while it is at hand.
//
// An operand says what its number (o, p) is: o counts the rows of A or the columns of B, p the terms of the sum. So a
// one-hot matrix, the windows of an image, or a gradient times a slope are operands that nobody writes to memory.
//
// A block makes a tile of C, Tile::M by Tile::N. It carries slabs of both operands, DEPTH terms at a time, to shared
// memory, and fetches the next while it works on one. Its threads stand in TEAMS, each of which makes the whole tile
// from its share of the terms of every slab, M_EACH by N_EACH numbers a thread; then the teams' sums are added. Where C
// has too few tiles to keep a GPU busy, several blocks share the sum of a tile, each writes its piece, and the last of
// them to be done adds them up. All in one order: the same input gives the same bits.

struct Tile {
#if TILE == 32  // for results of few numbers: many warps on a small tile, so that no one waits for memory alone
    enum { M = 32, N = 32, M_EACH = 4, N_EACH = 4, TEAMS = 4, DEPTH = 64, BLOCKS = 2 };
#elif TILE == 64  // for large ones: eight times eight numbers a thread are as many products as shared memory can feed
    enum { M = 64, N = 64, M_EACH = 8, N_EACH = 8, TEAMS = 1, DEPTH = 16, BLOCKS = 4 };
#elif TILE == 8  // for long ones of few columns
    enum { M = 64, N = 8, M_EACH = 4, N_EACH = 4, TEAMS = 2, DEPTH = 32, BLOCKS = 4 };
#else
#error "TILE: expected 32, 64 or 8"
#endif
    enum {
        TEAM = M / M_EACH * (N / N_EACH),
        THREADS = TEAM * TEAMS,
        SIZE = M * N,
        GAP = 8,  // numbers between the rows of a slab
        SLAB_A = DEPTH * (M + GAP),
        SLABS = SLAB_A + DEPTH * (N + GAP),
        MEMORY = SLABS > TEAMS * SIZE ? SLABS : TEAMS * SIZE  // numbers in shared memory
    };
};

// A kernel that makes tiles, BLOCKS of them at a time on a multiprocessor.
#define PRODUCT extern "C" __global__ void __launch_bounds__(Tile::THREADS, Tile::BLOCKS)

// Where the number (p, o) of a slab lies, so that neither those who write along p nor those who read along o, nor the
// tensor cores, whose lanes read four p and eight o, meet in the same bank of shared memory. Neighbours in o stay together
// by fours.
__device__ inline int at(int p, int o, int width) {
    const int TURN = Tile::DEPTH < 32 ? 8 : 4;
    return p * (width + Tile::GAP) + (o ^ TURN * (p / 4 % (min(width, 32) / TURN)));
}

// The sums of a thread, M_EACH by N_EACH, in registers.
struct Registers {
    enum { ROWS = Tile::M_EACH, COLUMNS = Tile::N_EACH, TERMS = 4 };
    real sum[ROWS][COLUMNS] = {};
    int row = threadIdx.x % Tile::TEAM / (Tile::N / COLUMNS), column = threadIdx.x % Tile::TEAM % (Tile::N / COLUMNS);

    // The row or column of the tile that is the u-th of thread r, of `each` among `width`: in fours, far apart.
    __device__ static int place_of(int r, int u, int each, int width) { return u / 4 * (width / (each / 4)) + 4 * r + u % 4; }

    __device__ static void read(const real* slab, int p, int r, int each, int width, real* numbers) {
#pragma unroll
        for (int u = 0; u < each; u += 4) {
            Four four = *(const Four*)(slab + at(p, place_of(r, u, each, width), width));
            for (int v = 0; v < 4; v++) numbers[u + v] = four.n[v];
        }
    }

    // Add the products of TERMS terms, from p on.
    __device__ void add(const real* slab_a, const real* slab_b, int p) {
#pragma unroll
        for (int q = 0; q < TERMS; q++) {
            real x[ROWS], y[COLUMNS];
            // Of four neighbours in p all lie alike, so that one address is enough.
            read(slab_a + q * (Tile::M + Tile::GAP), p, row, ROWS, Tile::M, x);
            read(slab_b + q * (Tile::N + Tile::GAP), p, column, COLUMNS, Tile::N, y);
#pragma unroll
            for (int u = 0; u < ROWS; u++)
#pragma unroll
                for (int v = 0; v < COLUMNS; v++) sum[u][v] += x[u] * y[v];
        }
    }

    // Write them to a tile, (M, N).
    __device__ void store(real* tile) const {
#pragma unroll
        for (int u = 0; u < ROWS; u++)
#pragma unroll
            for (int v = 0; v < COLUMNS; v += 4) {
                int i = place_of(row, u, ROWS, Tile::M), j = place_of(column, v, COLUMNS, Tile::N);
                *(Four*)(tile + i * Tile::N + j) = {sum[u][v], sum[u][v + 1], sum[u][v + 2], sum[u][v + 3]};
            }
    }

    __device__ static real rounded(real x) { return x; }
};

#if defined(TF32) && (!defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800)
#include "tensor.cuh"
typedef Fragments Sums;
#else
typedef Registers Sums;
#endif

// What is alike for most operands: numbers are used as they are fetched, and no row or column needs to be known before.
struct Operand {
    typedef Four Raw;
    struct Anchor {};

    __device__ Anchor anchor(int) const { return {}; }
    __device__ Four finished(const Four& raw) const { return raw; }
};

// What a thread carries of a slab of WIDTH rows or columns: EACH fours, raw until they are put down, so that nobody waits
// for them before.
template <class X, int WIDTH>
struct Carried {
    enum { EACH = WIDTH * Tile::DEPTH / 4 / Tile::THREADS, RUN = Tile::DEPTH / 4 < 8 ? Tile::DEPTH / 4 : 8 };
    typename X::Raw held[EACH];
    typename X::Anchor anchors[EACH];

    __device__ Carried(const X& x, int first_o) {
#pragma unroll
        for (int u = 0; u < EACH; u++) {
            int o, p;
            place(x, u, o, p);
            anchors[u] = x.anchor(first_o + o);
        }
    }

    // The u-th four of this thread: its first number is (p, o) of the slab. Neighbouring threads fetch neighbours.
    __device__ static void place(const X& x, int u, int& o, int& p) {
        int e = threadIdx.x + u * Tile::THREADS;
        o = x.along() ? e / RUN % WIDTH : e % (WIDTH / 4) * 4;
        p = x.along() ? (e % RUN + e / (RUN * WIDTH) * RUN) * 4 : e / (WIDTH / 4);
    }

    __device__ void fetch(const X& x, int first_o, int first_p) {
#pragma unroll
        for (int u = 0; u < EACH; u++) {
            int o, p;
            place(x, u, o, p);
            held[u] = x.raw(anchors[u], first_o + o, first_p + p);
        }
    }

    __device__ void put(const X& x, real* slab) const {
#pragma unroll
        for (int u = 0; u < EACH; u++) {
            int o, p;
            place(x, u, o, p);
            Four four = x.finished(held[u]);
            for (int v = 0; v < 4; v++) four.n[v] = Sums::rounded(four.n[v]);
            if (x.along())
                for (int v = 0; v < 4; v++) slab[at(p + v, o, WIDTH)] = four.n[v];
            else
                *(Four*)(slab + at(p, o, WIDTH)) = four;
        }
    }
};

__device__ inline int tiles(int m, int n) { return (m + Tile::M - 1) / Tile::M * ((n + Tile::N - 1) / Tile::N); }

// Blocks that share the sums of a product: `pieces` for each tile. planes: Tile::SIZE numbers for each block;
// tickets: `1 + pieces / GROUP` rounded up for each tile, which are 0 before and after.
struct Shares {
    int pieces;
    real* planes;
    int* tickets;
};

#define GROUP 16  // pieces that are added up at once, and then such sums: so nobody waits for hundreds of numbers

// The sum of `count` <= GROUP numbers that other blocks have written, `step` apart, all of them fetched at once.
__device__ inline real sum_of(const real* numbers, int step, int count) {
    real found[GROUP], sum = 0;
#pragma unroll
    for (int other = 0; other < GROUP; other++) found[other] = other < count ? __ldcg(numbers + other * step) : 0;
#pragma unroll
    for (int other = 0; other < GROUP; other++) sum += found[other];
    return sum;
}

// out(i, j, Σ_p A_ip B_pj) for the numbers of a tile, by the `block`-th of the blocks that make the product.
// fours: Tile::MEMORY numbers, shared by the block.
template <class A, class B, class Out>
__device__ void multiply(A a, B b, Out out, int block, Shares shares, Four* fours) {
    int tile = block / shares.pieces, piece = block % shares.pieces;
    int across = (b.outers + Tile::N - 1) / Tile::N;
    int top = tile / across * Tile::M, left = tile % across * Tile::N;
    int depth = ((a.terms + shares.pieces - 1) / shares.pieces + 3) / 4 * 4;  // fours stay whole
    int begin = piece * depth, end = min(begin + depth, a.terms);
    a.terms = b.terms = end;
    real *memory = fours->n, *slab_a = memory, *slab_b = memory + Tile::SLAB_A;
    int team = threadIdx.x / Tile::TEAM;
    Sums sums;
    Carried<A, Tile::M> next_a(a, top);
    Carried<B, Tile::N> next_b(b, left);
    for (int next = begin;; next += Tile::DEPTH) {  // fetch the next slabs while those before are worked on
        if (next < end) {
            next_a.fetch(a, top, next);
            next_b.fetch(b, left, next);
        }
        if (next > begin) {
            int count = min((int)Tile::DEPTH, end - (next - Tile::DEPTH));
            for (int p = 0; p < count; p += Sums::TERMS * Tile::TEAMS) sums.add(slab_a, slab_b, p + Sums::TERMS * team);
        }
        __syncthreads();  // nobody reads the slabs any more
        if (next >= end) break;
        next_a.put(a, slab_a);
        next_b.put(b, slab_b);
        __syncthreads();
    }

    // The tile as each team has summed it, and then number by number, neighbours by neighbouring threads.
    sums.store(memory + team * Tile::SIZE);
    __syncthreads();
    int group = piece / GROUP, count = min(GROUP, shares.pieces - group * GROUP);
    int groups = (shares.pieces + GROUP - 1) / GROUP, *tickets = shares.tickets + tile * (groups + 1);
    real* planes = shares.planes + (long long)tile * shares.pieces * Tile::SIZE;
    real* own = planes + group * GROUP * Tile::SIZE;  // of the group
    if (shares.pieces > 1) {
        for (int e = threadIdx.x; e < Tile::SIZE; e += Tile::THREADS) {
            real h = memory[e];
            for (int other = 1; other < Tile::TEAMS; other++) h += memory[other * Tile::SIZE + e];
            own[piece % GROUP * Tile::SIZE + e] = h;
        }
        if (!last_of(count, tickets + 1 + group)) return;
    }
    if (groups > 1) {
        for (int e = threadIdx.x; e < Tile::SIZE; e += Tile::THREADS) own[e] = sum_of(own + e, Tile::SIZE, count);
        if (!last_of(groups, tickets)) return;
    }
    for (int e = threadIdx.x; e < Tile::SIZE; e += Tile::THREADS) {
        real h = 0;
        if (groups > 1)
            h = sum_of(planes + e, GROUP * Tile::SIZE, groups);
        else if (shares.pieces > 1)
            h = sum_of(planes + e, Tile::SIZE, count);
        else
            for (int other = 0; other < Tile::TEAMS; other++) h += memory[other * Tile::SIZE + e];
        int i = top + e / Tile::N, j = left + e % Tile::N;
        if (i < a.outers && j < b.outers) out(i, j, h);
    }
}

// A matrix: the number (o, p) lies at o `outer` + p `term`, one of which is 1 where fours are to be fetched at once.
struct Matrix : Operand {
    const real* x;
    int outer, term, outers, terms;
    bool fours;

    __device__ Matrix(const real* x, int outer, int term, int outers, int terms)
        : x(x), outer(outer), term(term), outers(outers), terms(terms), fours(aligned(x, outer == 1 ? term : outer)) {}

    __device__ bool along() const { return outer != 1; }

    __device__ Four raw(Anchor, int o, int p) const {
        long long start = (long long)o * outer + (long long)p * term;
        bool forwards = along() ? term == 1 && p + 3 < terms && o < outers : o + 3 < outers && p < terms;
        if (fours && forwards) return *(const Four*)(x + start);
        Four found;
#pragma unroll
        for (int v = 0; v < 4; v++) {
            bool inside = along() ? o < outers && p + v < terms : o + v < outers && p < terms;
            found.n[v] = inside ? x[start + (long long)v * (along() ? term : outer)] : 0;
        }
        return found;
    }
};
