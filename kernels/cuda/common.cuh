// What every kernel starts with. REAL is float or double, given by the compiler's command line.
//
// A kernel stands in one place, `KERNEL name(parameters)`; `launch.py` reads its name and the types of its parameters
// from there. Matrices are C-contiguous unless a parameter `..._step` says how many numbers lie between two rows.
// Every number of a result is computed by one thread in one order: the same input gives the same bits.

typedef REAL real;
typedef long long label;  // NumPy's int64
typedef unsigned char byte;

#define KERNEL extern "C" __global__ void

enum { LINEAR, RELU, TANH, ELU, SIGMOID };  // the order of ACTIVATIONS in `launch.py`

#define WARP 32
#define MOST 256  // threads of a block that sums; a power of two

// Four numbers, fetched at once where they lie at a multiple of 16 bytes.
struct alignas(16) Four {
    real n[4];
};

__device__ inline bool aligned(const real* x, int step) { return (unsigned long long)x % 16 == 0 && step % 4 == 0; }

// The element that this thread computes.
__device__ inline int place() { return blockIdx.x * blockDim.x + threadIdx.x; }

// 1 / (1 + exp(-h)), with the exponent never positive.
__device__ inline real sigmoid(real h) {
    real t = exp(-fabs(h));
    return h >= 0 ? 1 / (1 + t) : t / (1 + t);
}

// y = f(h). Written so that NaN stays NaN.
__device__ inline real activate(real h, int f) {
    switch (f) {
        case RELU: return h < 0 ? 0 : h;
        case TANH: return tanh(h);
        case ELU: return h > 0 ? h : expm1(h);
        case SIGMOID: return sigmoid(h);
        default: return h;
    }
}

// f'(h), told from y = f(h). What f is, is asked once; then numbers choose without a branch, of many at a time.
struct Slopes {
    bool linear, relu, tanh, elu, sigmoid;

    __device__ explicit Slopes(int f)
        : linear(f == LINEAR), relu(f == RELU), tanh(f == TANH), elu(f == ELU), sigmoid(f == SIGMOID) {}

    __device__ real operator()(real y) const {
        real above = tanh ? 1 - y * y : sigmoid ? y * (1 - y) : 1;
        real below = relu ? 0 : elu ? y + 1 : above;
        return y > 0 ? above : below;
    }
};

// Whether this block is the last of `count` to come here; then it sees what the others have written before. ticket: 0
// before and after.
__device__ inline bool last_of(int count, int* ticket) {
    __shared__ bool last;
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();  // whoever sees the ticket sees what the block has written
        last = atomicAdd(ticket, 1) == count - 1;
        if (last) *ticket = 0;
        __threadfence();
    }
    __syncthreads();
    return last;
}

// The sum of `x` over the threads of a block, pairs first, then pairs of pairs; every thread gets it.
// blockDim.x is a power of two, at most MOST, and every thread calls.
template <class Number>
__device__ inline Number block_sum(Number x) {
    __shared__ Number part[MOST];
    int t = threadIdx.x;
    part[t] = x;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (t < half) part[t] += part[t + half];
        __syncthreads();
    }
    Number sum = part[0];
    __syncthreads();  // before anyone writes the next sum
    return sum;
}
