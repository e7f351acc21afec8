// Steps of the optimisers over the flat buffers: a thread for each parameter. The formulas stand in `reference.py`.
// Where `stop` is set, a loss was not finite, and everything stays as it is. The rate may lie on the device, where a graph
// reads it anew at every launch.

KERNEL sgd(real* value, const real* grad, real* velocity, int size, double rate, const double* rate_there, real momentum,
           int nesterov, real weight_decay, const int* stop) {
    int i = place();
    if (i >= size || *stop) return;
    real rate_now = rate_there ? *rate_there : rate;
    real g = grad[i] + weight_decay * value[i], v = momentum * velocity[i] + g;
    velocity[i] = v;
    value[i] -= rate_now * (nesterov ? g + momentum * v : v);
}

// Four parameters a thread. step: t, which the last block to be done makes one more; what depends on it alone is taken in
// double precision.
KERNEL adam(real* value, const real* grad, real* m, real* v, label* step, int size, double rate,
            const double* rate_there, double beta1, double beta2, real epsilon, real weight_decay, const int* stop,
            int* ticket) {
    __shared__ real corrections[2];
    if (*stop) return;
    int i = 4 * place();
    bool fours = i + 3 < size && aligned(value, 0) && aligned(grad, 0) && aligned(m, 0) && aligned(v, 0);
    Four x, g, m_i, v_i;
    if (fours) x = *(Four*)(value + i), g = *(const Four*)(grad + i), m_i = *(Four*)(m + i), v_i = *(Four*)(v + i);
    label t = *step + 1;
    if (threadIdx.x < 2) corrections[threadIdx.x] = 1 / (1 - pow(threadIdx.x ? beta2 : beta1, (double)t));
    __syncthreads();
    real rate_now = rate_there ? *rate_there : rate, kept1 = beta1, rest1 = 1 - beta1, kept2 = beta2, rest2 = 1 - beta2;
    auto update = [=](real& x, real g, real& m, real& v) {
        m = kept1 * m + rest1 * g;
        v = kept2 * v + rest2 * g * g;
        x -= rate_now * (m * corrections[0] / (sqrt(v * corrections[1]) + epsilon) + weight_decay * x);
    };
    if (fours) {
#pragma unroll
        for (int u = 0; u < 4; u++) update(x.n[u], g.n[u], m_i.n[u], v_i.n[u]);
        *(Four*)(value + i) = x, *(Four*)(m + i) = m_i, *(Four*)(v + i) = v_i;
    } else
        for (int j = i; j < min(i + 4, size); j++) update(value[j], grad[j], m[j], v[j]);
    if (last_of(gridDim.x, ticket) && threadIdx.x == 0) *step = t;
}
