"""JAX as a contestant, its step jitted as a whole with all buffers donated.

`python -m minicvae.bench.jax_peer PRESET BATCH DEVICE MODE`, for the dense presets; the same work as in torch_peer.py.
MODE: jit.
"""

import functools
import sys
import time
from itertools import pairwise

import jax
import numpy as np
from jax import numpy as jnp

from minicvae.bench.protocol import serve, training_images

PIXELS, CLASSES = 784, 10
TRAIN = 60_000
DENSE = {
    "latent2d": ([512], 2, [512]),
    "mlp": ([256, 256], 16, [256, 256]),
    "mlp-small": ([256, 128], 16, [128, 256]),
    "gaussian": ([512, 32], 2, [32, 512]),
}


def initialise(widths, keys):
    """Weights and biases of a stack of dense layers."""
    pairs = pairwise(widths)
    return [(jax.random.normal(next(keys), pair) / pair[0] ** 0.5, jnp.zeros(pair[1])) for pair in pairs]


def mlp(layers, h):
    """Dense layers with relu between them."""
    for W, b in layers[:-1]:
        h = jax.nn.relu(h @ W + b)
    W, b = layers[-1]
    return h @ W + b


def elbo(parameters, x, c, key):
    """Nats per image."""
    encoder, decoder = parameters
    mean, log_var = jnp.split(mlp(encoder, jnp.concatenate([x, c], 1)), 2, axis=1)
    z = mean + jnp.exp(log_var / 2) * jax.random.normal(key, mean.shape)
    logits = mlp(decoder, jnp.concatenate([z, c], 1))
    nll = jnp.sum(jax.nn.softplus(logits) - x * logits)
    return (nll + jnp.sum(mean**2 + jnp.exp(log_var) - 1 - log_var) / 2) / len(x)


@functools.partial(jax.jit, donate_argnums=0)
def update(state, x, c, index, key):
    """One step of Adam."""
    parameters, m, v, t = state
    gradients = jax.grad(elbo)(parameters, x[index], c[index], key)
    t = t + 1
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, gradients)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, gradients)
    rate, root = 1e-3 / (1 - 0.9**t), 1 / (1 - 0.999**t)
    parameters = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v * root) + 1e-8), parameters, m, v)
    return parameters, m, v, t


def tasks(preset, batch_size):
    """What this contestant can do, by name."""
    encoder, latent, decoder = DENSE[preset]
    keys = iter(jax.random.split(jax.random.key(0), 32))
    parameters = (
        initialise([PIXELS + CLASSES, *encoder, 2 * latent], keys),
        initialise([latent + CLASSES, *decoder, PIXELS], keys),
    )
    state = (parameters, *(jax.tree.map(jnp.zeros_like, parameters) for _ in range(2)), jnp.float32(0))
    rng = np.random.default_rng(0)
    x = jnp.asarray(training_images()[:TRAIN].reshape(TRAIN, PIXELS) / np.float32(255))
    c = jnp.asarray(np.eye(CLASSES, dtype=np.float32)[rng.integers(CLASSES, size=TRAIN)])
    key = jax.random.key(1)

    def step(n):
        nonlocal state, key
        begin = time.perf_counter()
        order = np.resize(rng.permutation(TRAIN), n * batch_size).reshape(n, batch_size)
        for index in order:
            key, here = jax.random.split(key)
            state = update(state, x, c, index, here)
        jax.block_until_ready(state)
        return time.perf_counter() - begin

    return {"step": step}


if __name__ == "__main__":
    preset, batch_size, _, _ = sys.argv[1:]
    known = tasks(preset, int(batch_size))
    known["step"](20)
    serve(known)
