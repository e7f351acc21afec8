// Steps of the optimisers over the flat buffers: a thread for each parameter. The formulas stand in `reference.py`.
// Where `stop` is set, a loss was not finite, and everything stays as it is.

KERNEL sgd(real* value, const real* grad, real* velocity, int size, real rate, real momentum, int nesterov,
           real weight_decay, const int* stop) {
    int i = place();
    if (i >= size || *stop) return;
    real g = grad[i] + weight_decay * value[i], v = momentum * velocity[i] + g;
    velocity[i] = v;
    value[i] -= rate * (nesterov ? g + momentum * v : v);
}

// rest_i = 1 - beta_i and correction_i = 1 / (1 - beta_i^t) are given, for the host takes them in double precision.
KERNEL adam(real* value, const real* grad, real* m, real* v, int size, real rate, real beta1, real rest1, real beta2,
            real rest2, real epsilon, real correction1, real correction2, real weight_decay, const int* stop) {
    int i = place();
    if (i >= size || *stop) return;
    real g = grad[i], m_i = beta1 * m[i] + rest1 * g, v_i = beta2 * v[i] + rest2 * g * g;
    m[i] = m_i;
    v[i] = v_i;
    value[i] -= rate * (m_i * correction1 / (sqrt(v_i * correction2) + epsilon) + weight_decay * value[i]);
}
