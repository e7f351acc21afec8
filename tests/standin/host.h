// Lets g++ compile a CUDA kernel and the host run it: one block after the other, in each block one thread after the
// other, every thread up to its next barrier. A thread that waits keeps its stack (ucontext), so a kernel runs as it
// is written. `backwards` runs blocks and threads in the opposite order: whoever needs a barrier that is not there, or
// writes what another block reads, gives other results.

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __launch_bounds__(...)
#define __restrict__
#define __shared__ static

using std::exp;
using std::expm1;
using std::fabs;
using std::fma;
using std::isfinite;
using std::log;
using std::log1p;
using std::max;
using std::min;
using std::pow;
using std::sqrt;
using std::tanh;

struct dim3 {
    unsigned x, y, z;
};

static dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace host {

const int STACK = 1 << 16;

struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[STACK]};
    int thread = 0;
    bool ended = false;
};

static ucontext_t home;
static std::vector<std::unique_ptr<Fiber>> fibers;
static Fiber* now;
static std::function<void()> body;
static int begun, ended, backwards;

static void take(int thread) {
    now->thread = thread;
    threadIdx.x = backwards ? blockDim.x - 1 - thread : thread;
}

// Runs threads that have not begun, one after the other, until one of them waits; then whoever comes home goes on.
static void work() {
    while (begun < (int)blockDim.x) {
        take(begun++);
        body();
        ended++;
    }
    now->ended = true;
    swapcontext(&now->context, &home);
}

static void resume(Fiber* fiber) {
    now = fiber;
    take(fiber->thread);
    swapcontext(&home, &fiber->context);
}

static void barrier() { swapcontext(&now->context, &home); }

// True unless some threads of the block ended where others waited.
static bool block() {
    begun = ended = 0;
    size_t used = 0;
    while (begun < (int)blockDim.x) {
        if (used == fibers.size()) fibers.emplace_back(new Fiber);
        now = fibers[used++].get();
        now->ended = false;
        getcontext(&now->context);
        now->context.uc_stack.ss_sp = now->stack.get();
        now->context.uc_stack.ss_size = STACK;
        makecontext(&now->context, work, 0);
        swapcontext(&home, &now->context);
    }
    while (ended < (int)blockDim.x) {
        if (ended) return false;
        for (size_t i = 0; i < used; i++)
            if (!fibers[i]->ended) resume(fibers[i].get());
    }
    return true;
}

static int run(const unsigned* grid, unsigned threads, int order, std::function<void()> kernel) {
    gridDim = {grid[0], grid[1], 1};
    blockDim = {threads, 1, 1};
    backwards = order;
    body = kernel;
    unsigned count = grid[0] * grid[1];
    for (unsigned i = 0; i < count; i++) {
        unsigned at = backwards ? count - 1 - i : i;
        blockIdx = {at % grid[0], at / grid[0], 0};
        if (!block()) return 1;
    }
    return 0;
}

}  // namespace host

static void __syncthreads() { host::barrier(); }

// Threads follow each other, so everybody sees what was written, and nobody comes between reading and writing.
static void __threadfence() {}

// What a warp's tensor core does: every lane gives its numbers (as `tensor.cuh` says who holds which), and takes its part.
static void mma(float* c, const float* a, const float* b) {
    static float A[1024][4], B[1024][2];
    int lane = threadIdx.x % 32, first = threadIdx.x - lane, g = lane / 4, t = lane % 4;
    std::copy(a, a + 4, A[threadIdx.x]);
    std::copy(b, b + 2, B[threadIdx.x]);
    host::barrier();
    for (int u = 0; u < 4; u++) {
        int i = g + u / 2 * 8, j = 2 * t + u % 2;
        for (int k = 0; k < 8; k++)
            c[u] += A[first + i % 8 * 4 + k % 4][i / 8 + k / 4 * 2] * B[first + j * 4 + k % 4][k / 4];
    }
    host::barrier();
}

// To 10 bits behind the point, halves away from zero.
static float to_tf32(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, 4);
    if (std::isfinite(x)) bits = (bits + 0x1000) & ~0x1fffu;
    std::memcpy(&x, &bits, 4);
    return x;
}

static int atomicAdd(int* place, int more) {
    int before = *place;
    *place += more;
    return before;
}

template <class Number>
static Number __ldcg(const Number* place) {
    return *place;
}
