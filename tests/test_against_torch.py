"""Every preset against a framework's autograd: losses and gradients in float64, on the same weights, data and noise.

Needs PyTorch (`pip install 'minicvae[torch]'`); without it the whole file is skipped.
"""

import numpy as np
import pytest

import minicvae as mc
from minicvae.distributions import Gaussian, LearnedGaussian
from minicvae.layers import Chain, Dense, Embedding, Pathways

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'minicvae[torch]'")

N = 6


def run_torch(layer, weights, prefix, inputs):
    """The layer's textbook form on torch tensors: concatenation and one-hot matrices, nothing of ours."""
    if isinstance(layer, Chain):
        for i, inner in enumerate(layer.layers):
            inputs = [run_torch(inner, weights, f"{prefix}.{i}", inputs)]
        return inputs[0]
    if isinstance(layer, Pathways):
        arrived = [
            x if path is None else run_torch(path, weights, f"{prefix}.paths.{i}", [x])
            for i, (path, x) in enumerate(zip(layer.paths, inputs, strict=True))
        ]
        return run_torch(layer.trunk, weights, f"{prefix}.trunk", arrived)
    if isinstance(layer, Embedding):
        return inputs[0] @ weights[f"{prefix}.E"]
    assert isinstance(layer, Dense)
    h = torch.cat(inputs, dim=1) @ weights[f"{prefix}.W"] + weights[f"{prefix}.b"]
    functions = {"linear": lambda h: h, "relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}
    functions["elu"] = torch.nn.functional.elu
    return functions[layer.activation](h)


def negative_log_likelihood(likelihood, h, x):
    """Summed over pixels, averaged over examples, from torch.distributions and torch's own losses."""
    if isinstance(likelihood, Gaussian):
        log_p = torch.distributions.Normal(torch.sigmoid(h), likelihood.sigma).log_prob(x)
        return -log_p.sum(1).mean()
    if isinstance(likelihood, LearnedGaussian):
        mu, v = h.chunk(2, dim=1)
        return -torch.distributions.Normal(mu, torch.exp(v / 2)).log_prob(x).sum(1).mean()
    bce = torch.nn.functional.binary_cross_entropy_with_logits(h, x, reduction="none")
    return bce.sum(1).mean()


def loss_torch(model, weights, x, c, eps):
    h = run_torch(model.encoder, weights, "encoder", [x, *c])
    mean, log_var = h.chunk(2, dim=1)
    q = torch.distributions.Normal(mean, torch.exp(log_var / 2))
    p = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    z = mean + torch.exp(log_var / 2) * eps
    if model.objective.kl == "closed":
        kl = torch.distributions.kl_divergence(q, p)
    else:
        kl = (q.log_prob(z) - p.log_prob(z)).mean(0)
    kl = torch.clamp(kl.mean(0), min=model.objective.free_bits).sum()
    decoded = z[: model.objective.decoded or None]
    reconstruction = torch.stack(
        [
            negative_log_likelihood(model.likelihood, run_torch(model.decoder, weights, "decoder", [z_s, *c]), x)
            for z_s in decoded
        ]
    ).mean()
    return reconstruction + model.objective.beta * kl


def condition_for(model, rng):
    """A drawn condition as minicvae takes it, and the same as the matrices that torch concatenates."""
    kind = model.condition
    if isinstance(kind, mc.conditions.Vector):
        c = rng.normal(size=(N, kind.dim))
        return c, [torch.tensor(c)]
    if isinstance(kind, mc.conditions.Parts):
        pairs = {
            name: (rng.integers(0, part.classes, N), part.classes)
            if isinstance(part, mc.conditions.Classes)
            else (rng.normal(size=(N, part.dim)), None)
            for name, part in kind.parts.items()
        }
        c = {name: values for name, (values, _) in pairs.items()}
        return c, [torch.tensor(v if k is None else np.eye(k)[v]) for v, k in pairs.values()]
    labels = rng.integers(0, kind.classes, N)
    return labels, [torch.tensor(np.eye(kind.classes)[labels])]


DENSE = [name for name in mc.presets() if not name.startswith("conv")]  # for those see test_convolution.py
MODELS = {name: (name, {}) for name in DENSE} | {
    "beta and free bits": ("mlp-small", {"beta": 3.0, "free_bits": 0.4}),
    "learned variance": ("mlp-small", {"likelihood": LearnedGaussian()}),
    "four samples": ("latent2d", {"objective": mc.objectives.ELBO(samples=4)}),
    "two conditions": (
        "mlp-small",
        {
            "condition": mc.conditions.Parts(
                {
                    "digit": mc.conditions.Classes(10),
                    "slant": mc.conditions.Vector(2),
                    "thickness": mc.conditions.Classes(3, embedding=4),
                }
            )
        },
    ),
}


@pytest.mark.parametrize("device", ["numpy", "cpu"])
@pytest.mark.parametrize("case", MODELS)
def test_losses_and_gradients_equal_autograd_to_1e_11(case, device):
    preset, overrides = MODELS[case]
    model = mc.build(preset, seed=1, dtype="float64", device=device, **overrides)
    rng = np.random.default_rng(2)
    for name, value in model.parameters.items():  # biases start at zero, where a mistake could hide
        if name.endswith(".b"):
            model.parameters[name] = rng.normal(size=value.shape) / 10
    x = rng.random((N, 784)) * (rng.random((N, 784)) < 0.3)
    c, c_torch = condition_for(model, rng)
    eps = rng.normal(size=(model.objective.samples, N, model.latent_dim))
    losses, grads = model.loss_and_gradients(x, c, eps=eps)

    weights = {name: torch.tensor(np.array(v), requires_grad=True) for name, v in model.parameters.items()}
    expected = loss_torch(model, weights, torch.tensor(x), c_torch, torch.tensor(eps))
    expected.backward()

    assert losses["loss"] == pytest.approx(expected.item(), rel=1e-12)
    assert set(grads) == set(weights)
    for name, weight in weights.items():
        reference = weight.grad.numpy()
        assert np.linalg.norm(reference) > 0, f"nothing was checked for {name}"
        error = np.linalg.norm(grads[name] - reference) / np.linalg.norm(reference)
        assert error < 1e-11, f"{name}: {error}"
