// Sums by tensor cores, whose operands are rounded to TF32: the range of float32 with 10 bits behind the point in place of
// 23. A warp multiplies 16 by 8 with 8 by 8 numbers at once; the lane 4 g + t, g < 8 and t < 4, holds
//
//     of A (16, 8): (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4)        of B (8, 8): (t, g), (t + 4, g)
//     of C (16, 8): (g, 2 t), (g, 2 t + 1), (g + 8, 2 t), (g + 8, 2 t + 1)
//
// Source: NVIDIA, PTX ISA, matrix fragments for mma.m16n8k8.

#ifdef __CUDA_ARCH__
__device__ inline void mma(float* c, const float* a, const float* b) {
    const unsigned *x = (const unsigned*)a, *y = (const unsigned*)b;
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));
}

__device__ inline float to_tf32(float x) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return __uint_as_float(bits);
}
#endif

// The sums of a warp: as many rows of the tile as there are for each warp of a team, and all columns.
struct Fragments {
    enum { ROWS = Tile::M / (Tile::TEAM / WARP), DOWN = ROWS / 16, ACROSS = Tile::N / 8, TERMS = 8 };
    float sum[DOWN][ACROSS][4] = {};
    int top = threadIdx.x % Tile::TEAM / WARP * ROWS, g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;

    // Add the products of TERMS terms, from p on.
    __device__ void add(const real* slab_a, const real* slab_b, int p) {
        float a[DOWN][4];
#pragma unroll
        for (int d = 0; d < DOWN; d++)
#pragma unroll
            for (int u = 0; u < 4; u++) a[d][u] = slab_a[at(p + t + u / 2 * 4, top + 16 * d + g + u % 2 * 8, Tile::M)];
#pragma unroll
        for (int e = 0; e < ACROSS; e++) {
            float b[2] = {slab_b[at(p + t, 8 * e + g, Tile::N)], slab_b[at(p + t + 4, 8 * e + g, Tile::N)]};
#pragma unroll
            for (int d = 0; d < DOWN; d++) mma(sum[d][e], a[d], b);
        }
    }

    // Write them to a tile, (M, N).
    __device__ void store(real* tile) const {
#pragma unroll
        for (int d = 0; d < DOWN; d++)
#pragma unroll
            for (int e = 0; e < ACROSS; e++)
#pragma unroll
                for (int u = 0; u < 4; u++)
                    tile[(top + 16 * d + g + u / 2 * 8) * Tile::N + 8 * e + 2 * t + u % 2] = sum[d][e][u];
    }

    __device__ static float rounded(float x) { return to_tf32(x); }
};
