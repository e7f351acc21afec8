"""The compiled loops of the `cpu` device.

Each kernel walks its arrays once and does everything there is to do at an element while it is in a register: the
gathered condition row, the bias and the activation after a product; the slope and the bias gradient before one; the
likelihood and its derivative, which share their exponential. `cpu.py` calls them, beside the products.
"""

from __future__ import annotations

import numpy as np

from minicvae.kernels.compiler import kernel
from minicvae.kernels.vector_math import exp, expm1, tanh

# Numba compiles small integers better than strings.
ACTIVATION = {"linear": 0, "relu": 1, "tanh": 2, "elu": 3, "sigmoid": 4}

CHUNK = 56  # factors of at most 2 in one product: 2^56 is far from overflow, and 14 chunks make 784


@kernel
def gather_pixels(index, x, images):
    """x = images[index] / 255."""
    scale = x.dtype.type(255)
    for i in range(len(index)):
        row = images[index[i]]
        for j in range(x.shape[1]):
            x[i, j] = row[j] / scale


@kernel
def add_rows_activate(h, W, rows, b, activation, i0, i1, j0, j1):
    """h ← f(h + Σ_p W[rows[:, p]] + b) in place, within these rows and columns; h (n, d), W (·, d), rows (n, parts)."""
    one = h.dtype.type(1)
    zero = h.dtype.type(0)
    bias = b[j0:j1]
    d = len(bias)
    for i in range(i0, i1):
        y = h[i, j0:j1]
        for p in range(rows.shape[1]):
            w = W[rows[i, p], j0:j1]
            for j in range(d):
                y[j] += w[j]
        if activation == 1:
            for j in range(d):
                v = y[j] + bias[j]
                y[j] = zero if v < zero else v
        else:
            for j in range(d):
                y[j] += bias[j]
            if activation == 2:
                for j in range(d):
                    y[j] = tanh(y[j])
            elif activation == 3:
                for j in range(d):
                    y[j] = y[j] if y[j] > zero else expm1(y[j])
            elif activation == 4:
                for j in range(d):
                    t = exp(-abs(y[j]))
                    y[j] = (one if y[j] >= zero else t) / (one + t)


@kernel
def slope_times(dy, y, g, db, activation):
    """g = dy ⊙ f'(h), told from y = f(h), and db += Σ_n g_n in the same pass; dy, y, g (n, d), db (d,)."""
    n, d = dy.shape
    one = dy.dtype.type(1)
    zero = dy.dtype.type(0)
    for i in range(n):
        if activation == 1:
            for j in range(d):
                g[i, j] = dy[i, j] if y[i, j] > zero else zero
        elif activation == 2:
            for j in range(d):
                g[i, j] = dy[i, j] * (one - y[i, j] * y[i, j])
        elif activation == 3:
            for j in range(d):
                g[i, j] = dy[i, j] * (one if y[i, j] > zero else y[i, j] + one)
        elif activation == 4:
            for j in range(d):
                g[i, j] = dy[i, j] * (y[i, j] * (one - y[i, j]))
        else:
            for j in range(d):
                g[i, j] = dy[i, j]
        for j in range(d):
            db[j] += g[i, j]


@kernel
def add_parts(sums, total, accumulate, i, j):
    """total_k = Σ_p sums_pk, or total_k += it, for k = i, ..., j - 1 as far as there are so many."""
    part = total[i:j]
    if not accumulate:
        part[:] = 0
    for p in range(len(sums)):
        row = sums[p, i:j]
        for k in range(len(part)):
            part[k] += row[k]


@kernel
def scatter_add(g, labels, dW):
    """dW[labels_n] += g_n for every n; repeated labels add up."""
    for i in range(len(labels)):
        row = dW[labels[i]]
        for j in range(g.shape[1]):
            row[j] += g[i, j]


# The posterior and the objective: a few thousand numbers, for which an array expression takes longer to begin than to
# compute. mean, log_var and what is like them: (m,), all examples' in a row; eps, z, dz: (s, m).


@kernel
def reparameterise(mean, log_var, eps, z):
    """z = mean + exp(log_var / 2) ⊙ eps."""
    half = z.dtype.type(0.5)
    for s in range(len(z)):
        for k in range(len(mean)):
            z[s, k] = mean[k] + exp(half * log_var[k]) * eps[s, k]


@kernel
def reparameterise_backward(dz, log_var, eps, dmean, dlog_var):
    """dmean = Σ_s dz_s;  dlog_var = Σ_s ½ dz_s ⊙ eps_s ⊙ exp(log_var / 2), over the samples that dz has."""
    half = dz.dtype.type(0.5)
    dmean[:] = dlog_var[:] = 0
    for s in range(len(dz)):
        for k in range(len(dmean)):
            dmean[k] += dz[s, k]
            dlog_var[k] += dz[s, k] * eps[s, k]
    for k in range(len(dmean)):
        dlog_var[k] *= half * exp(half * log_var[k])


@kernel
def kl_standard(mean, log_var, kl, dlog_var):
    """kl = ½ (exp(lv) + mean² - 1 - lv) and its derivative by lv; that by mean is mean."""
    half = kl.dtype.type(0.5)
    for k in range(len(kl)):
        v = expm1(log_var[k])
        kl[k] = half * (v - log_var[k] + mean[k] * mean[k])
        dlog_var[k] = half * v


@kernel
def kl_monte_carlo(mean, log_var, eps, kl, dmean, dlog_var):
    """The mean over the samples of ½ (z² - eps² - lv), and its derivatives z and ½ (z eps exp(lv/2) - 1)."""
    half, one = kl.dtype.type(0.5), kl.dtype.type(1)
    share = one / kl.dtype.type(len(eps))
    kl[:] = dmean[:] = dlog_var[:] = 0
    for s in range(len(eps)):
        for k in range(len(kl)):
            step = exp(half * log_var[k]) * eps[s, k]
            z = mean[k] + step
            kl[k] += half * (z * z - eps[s, k] * eps[s, k] - log_var[k])
            dmean[k] += z
            dlog_var[k] += half * (z * step - one)
    for k in range(len(kl)):
        kl[k] *= share
        dmean[k] *= share
        dlog_var[k] *= share


@kernel
def elbo(nll, kl, weight, floor, dnll, dkl, sums):
    """sums = loss, reconstruction and kl of a batch, in float64; and derivatives. nll (s, n), kl (n, l), weight ()."""
    (n, l), beta = kl.shape, weight[()]
    reconstruction = 0.0
    for s in range(nll.shape[0]):
        for i in range(n):
            reconstruction += nll[s, i]
            dnll[s, i] = 1 / nll.size
    reconstruction /= nll.size
    means = np.zeros(l)
    for i in range(n):
        for j in range(l):
            means[j] += kl[i, j]
    loss, total = reconstruction, 0.0
    for j in range(l):
        mean = means[j] / n
        total += mean
        loss += beta * (floor if mean < floor else mean)
        means[j] = beta / n if mean > floor else 0.0
    for i in range(n):
        for j in range(l):
            dkl[i, j] = means[j]
    sums[0], sums[1], sums[2] = loss, reconstruction, total


@kernel
def bernoulli(logits, x, nll, derivative):
    """nll_n = Σ_d softplus(l) - x l and derivative = sigmoid(l) - x, with one exponential for both.

    Σ log(1 + t_d) = log Π (1 + t_d): one logarithm for every `CHUNK` factors, each of which lies in (1, 2].
    """
    n, d = logits.shape
    one = logits.dtype.type(1)
    zero = logits.dtype.type(0)
    whole = d // CHUNK
    for i in range(n):
        total = zero
        for chunk in range(whole + 1):
            start = chunk * CHUNK
            product = one
            linear = zero
            # A constant trip count is what lets LLVM vectorise the loop over a whole chunk.
            if chunk < whole:
                for j in range(CHUNK):
                    v = logits[i, start + j]
                    target = x[i, start + j]
                    t = exp(-abs(v))
                    product *= one + t
                    linear += (v if v > zero else zero) - target * v
                    derivative[i, start + j] = (one if v >= zero else t) / (one + t) - target
            else:
                for j in range(start, d):
                    v = logits[i, j]
                    target = x[i, j]
                    t = exp(-abs(v))
                    product *= one + t
                    linear += (v if v > zero else zero) - target * v
                    derivative[i, j] = (one if v >= zero else t) / (one + t) - target
            total += np.log(product) + linear
        nll[i] = total


@kernel
def gaussian(logits, x, nll, derivative, precision, constant):
    """nll_n = Σ_d ½ (mu - x)² precision + constant, mu = sigmoid(l), and its derivative by l."""
    n, d = logits.shape
    one = logits.dtype.type(1)
    zero = logits.dtype.type(0)
    half = logits.dtype.type(0.5)
    for i in range(n):
        total = zero
        for j in range(d):
            v = logits[i, j]
            t = exp(-abs(v))
            mu = (one if v >= zero else t) / (one + t)
            r = mu - x[i, j]
            total += r * r
            derivative[i, j] = r * precision * mu * (one - mu)
        nll[i] = half * precision * total + constant


@kernel
def sigmoid(h, y):
    """y = 1 / (1 + exp(-h)), number by number."""
    one = h.dtype.type(1)
    zero = h.dtype.type(0)
    for i in range(len(h)):
        t = exp(-abs(h[i]))
        y[i] = (one if h[i] >= zero else t) / (one + t)


@kernel
def scale_rows(rows, scale, y):
    """y_nd = scale_n rows_nd."""
    for i in range(len(rows)):
        s = scale[i]
        for j in range(rows.shape[1]):
            y[i, j] = rows[i, j] * s


# Where a unit is dead its gradient is 0, and its moments shrink step by step into the subnormal numbers, on which a
# processor takes a hundred times as long: Adam came to need 850 us in place of 300. So what is smaller than the
# smallest normal number, `tiny`, is 0 here.


@kernel
def sgd(value, grad, velocity, rate, momentum, nesterov, decay, tiny):
    """v ← momentum v + g;  value ← value - rate (v, or g + momentum v with Nesterov), with g = grad + decay value."""
    zero = value.dtype.type(0)
    for i in range(len(value)):
        g = grad[i] + decay * value[i]
        v = momentum * velocity[i] + g
        v = zero if abs(v) < tiny else v
        velocity[i] = v
        value[i] -= rate * (g + momentum * v if nesterov else v)


@kernel
def adam(value, grad, m, v, rate, beta1, rest1, beta2, rest2, epsilon, m_scale, v_scale, decay, tiny):
    """m ← beta1 m + rest1 g;  v ← beta2 v + rest2 g²;  value ← value - rate (m̂ / (√v̂ + epsilon) + decay value).

    m_scale, v_scale: m̂ / m and v̂ / v.
    """
    zero = value.dtype.type(0)
    for i in range(len(value)):
        g = grad[i]
        m_i = beta1 * m[i] + rest1 * g
        v_i = beta2 * v[i] + rest2 * g * g
        m_i = zero if abs(m_i) < tiny else m_i
        v_i = zero if abs(v_i) < tiny else v_i
        m[i] = m_i
        v[i] = v_i
        value[i] -= rate * (m_i * m_scale / (np.sqrt(v_i * v_scale) + epsilon) + decay * value[i])
