// Negative log-likelihoods in nats with their derivatives: a block for each example.

// nll_n = Σ_d softplus(l) - x l, its derivative sigmoid(l) - x.
KERNEL bernoulli(const real* logits, const real* x, real* nll, real* derivative, int d) {
    int row = blockIdx.x * d;
    real sum = 0;
#pragma unroll 4
    for (int j = threadIdx.x; j < d; j += blockDim.x) {
        real l = logits[row + j], pixel = x[row + j], t = exp(-fabs(l));
        sum += (l < 0 ? 0 : l) + log1p(t) - pixel * l;
        derivative[row + j] = (l >= 0 ? 1 / (1 + t) : t / (1 + t)) - pixel;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) nll[blockIdx.x] = sum;
}

// nll_n = Σ_d ½ u² + constant, u = (sigmoid(l) - x) / sigma, its derivative u / sigma mu (1 - mu).
KERNEL gaussian(const real* logits, const real* x, real* nll, real* derivative, int d, real sigma, real constant) {
    int row = blockIdx.x * d;
    real sum = 0;
#pragma unroll 4
    for (int j = threadIdx.x; j < d; j += blockDim.x) {
        real mu = sigmoid(logits[row + j]), u = (mu - x[row + j]) / sigma;
        sum += u * u;
        derivative[row + j] = u / sigma * mu * (1 - mu);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) nll[blockIdx.x] = sum / 2 + constant;
}

// nll_n = ½ Σ_d (x - mu)² e^-v + v + log 2π, h = [mu, v] (n, 2 d), and its derivative by h.
KERNEL gaussian_learned(const real* h, const real* x, real* nll, real* derivative, int d, real log_2pi) {
    const real *mu = h + 2 * blockIdx.x * d, *v = mu + d;
    real *dmu = derivative + 2 * blockIdx.x * d, *dv = dmu + d;
    real sum = 0;
#pragma unroll 4
    for (int j = threadIdx.x; j < d; j += blockDim.x) {
        real precision = exp(-v[j]), r = mu[j] - x[blockIdx.x * d + j], square = r * r * precision;
        sum += square + v[j];
        dmu[j] = r * precision;
        dv[j] = (1 - square) / 2;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) nll[blockIdx.x] = (sum + d * log_2pi) / 2;
}
