// The Gaussian posterior: samples, divergences, and their derivatives. The formulas stand in `reference.py`.
//
// mean and log_var (n, l) are usually the two halves of a network's output: rows of l numbers, `..._step` apart. size
// is n l, one thread each, but where it says s n l.

// z = mean + exp(log_var / 2) eps; eps, z (s, n, l). size = s n l, of which `one` = n l is a sample.
KERNEL reparameterise(const real* mean, int mean_step, const real* log_var, int log_var_step, const real* eps, real* z,
                      int l, int one, int size) {
    int i = place();
    if (i >= size) return;
    int row = i % one / l, j = i % l;
    z[i] = mean[row * mean_step + j] + exp(log_var[row * log_var_step + j] / 2) * eps[i];
}

// dmean = Σ_s dz, dlog_var = ½ exp(log_var / 2) Σ_s dz eps; dz, eps (s, n, l).
KERNEL reparameterise_backward(const real* dz, const real* log_var, int log_var_step, const real* eps, real* dmean,
                               real* dlog_var, int l, int size, int samples) {
    int i = place();
    if (i >= size) return;
    real sum = 0, weighted = 0;
    for (int s = 0; s < samples; s++) {
        sum += dz[s * size + i];
        weighted += dz[s * size + i] * eps[s * size + i];
    }
    dmean[i] = sum;
    dlog_var[i] = weighted * (exp(log_var[i / l * log_var_step + i % l] / 2) / 2);
}

// da = d a, db = d b; b may be left out.
KERNEL scaled(const real* d, const real* a, int a_step, const real* b, int b_step, real* da, real* db, int l, int size) {
    int i = place();
    if (i >= size) return;
    int row = i / l, j = i % l;
    da[i] = d[i] * a[row * a_step + j];
    if (b) db[i] = d[i] * b[row * b_step + j];
}

// joined = [a1 + b1, a2 + b2], (n, 2 l).
KERNEL joined_sum(const real* a1, const real* a2, const real* b1, const real* b2, real* joined, int l, int size) {
    int i = place();
    if (i >= size) return;
    int start = i / l * 2 * l + i % l;
    joined[start] = a1[i] + b1[i];
    joined[start + l] = a2[i] + b2[i];
}

// kl = ½ (exp(lv) + mean² - 1 - lv), and its derivative by lv; that by mean is mean.
KERNEL kl_standard(const real* mean, int mean_step, const real* log_var, int log_var_step, real* kl, real* dlog_var,
                   int l, int size) {
    int i = place();
    if (i >= size) return;
    real m = mean[i / l * mean_step + i % l], lv = log_var[i / l * log_var_step + i % l], v = expm1(lv);
    kl[i] = (v - lv + m * m) / 2;
    dlog_var[i] = v / 2;
}

// The KL between two Gaussians and its four derivatives.
KERNEL kl_diagonal(const real* mean, int mean_step, const real* log_var, int log_var_step, const real* prior_mean,
                   int prior_mean_step, const real* prior_log_var, int prior_log_var_step, real* kl, real* dmean,
                   real* dlog_var, real* dprior_mean, real* dprior_log_var, int l, int size) {
    int i = place();
    if (i >= size) return;
    int row = i / l, j = i % l;
    real gap = mean[row * mean_step + j] - prior_mean[row * prior_mean_step + j];
    real lv = log_var[row * log_var_step + j], s = prior_log_var[row * prior_log_var_step + j];
    real ratio = expm1(lv - s), scale = exp(-s / 2), u = gap * scale;
    kl[i] = (ratio - (lv - s) + u * u) / 2;
    dmean[i] = u * scale;
    dlog_var[i] = ratio / 2;
    dprior_mean[i] = -(u * scale);
    dprior_log_var[i] = -(ratio + u * u) / 2;
}

// log q(z_s) - log p(z_s) of every sample, and its derivatives; eps and the results (s, n, l), size = s n l.
KERNEL log_ratio(const real* mean, int mean_step, const real* log_var, int log_var_step, const real* eps, real* ratio,
                 real* dmean, real* dlog_var, int l, int one, int size) {
    int i = place();
    if (i >= size) return;
    int row = i % one / l, j = i % l;
    real lv = log_var[row * log_var_step + j], e = eps[i];
    real step = exp(lv / 2) * e, z = mean[row * mean_step + j] + step;
    ratio[i] = (z * z - e * e - lv) / 2;
    dmean[i] = z;
    dlog_var[i] = (z * step - 1) / 2;
}

// The means of `log_ratio` and of its derivatives over the samples; (n, l) each.
KERNEL kl_monte_carlo(const real* mean, int mean_step, const real* log_var, int log_var_step, const real* eps, real* kl,
                      real* dmean, real* dlog_var, int l, int size, int samples) {
    int i = place();
    if (i >= size) return;
    real m = mean[i / l * mean_step + i % l], lv = log_var[i / l * log_var_step + i % l], width = exp(lv / 2);
    real ratio = 0, sum = 0, weighted = 0;
    for (int s = 0; s < samples; s++) {
        real e = eps[s * size + i], step = width * e, z = m + step;
        ratio += (z * z - e * e - lv) / 2;
        sum += z;
        weighted += (z * step - 1) / 2;
    }
    kl[i] = ratio / samples;
    dmean[i] = sum / samples;
    dlog_var[i] = weighted / samples;
}

// bound_n = log (1/S) Σ_s exp(log_w_sn), and the normalised weights; log_w, weights (s, n). A thread for each n.
KERNEL log_mean_exp(const real* log_w, real* bound, real* weights, int n, int samples) {
    int i = place();
    if (i >= n) return;
    real largest = log_w[i];
    for (int s = 1; s < samples; s++) largest = max(largest, log_w[s * n + i]);
    real total = 0;
    for (int s = 0; s < samples; s++) total += weights[s * n + i] = exp(log_w[s * n + i] - largest);
    for (int s = 0; s < samples; s++) weights[s * n + i] /= total;
    bound[i] = largest + log(total / samples);
}
