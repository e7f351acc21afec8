"""Every preset against a framework's autograd: losses and gradients in float64, on the same weights, data and noise.

Needs PyTorch (`pip install 'minicvae[torch]'`); without it the whole file is skipped.
"""

from functools import partial

import numpy as np
import pytest

import minicvae as mc
from minicvae import layers
from minicvae.conditions import Classes, Nothing, Parts, Vector
from minicvae.distributions import Gaussian, LearnedGaussian
from minicvae.objectives import IWAE

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'minicvae[torch]'")

N = 6
ACTIVATIONS = {
    "linear": torch.nn.Identity(),
    "relu": torch.relu,
    "tanh": torch.tanh,
    "elu": torch.nn.functional.elu,
    "sigmoid": torch.sigmoid,
}


def run_torch(layer, weights, prefix, *inputs):
    """The layer's textbook form on torch tensors: concatenation, one-hot matrices, nothing of ours."""
    within = dict(layer.children())
    own = {name.removeprefix(f"{prefix}."): weight for name, weight in weights.items()}

    def run(name, *inputs):
        return run_torch(within[name], weights, f"{prefix}.{name}", *inputs)

    match layer:
        case layers.Chain():
            for name in within:
                inputs = (run(name, *inputs),)
            return inputs[0]
        case layers.Pathways():
            arrived = [run(f"paths.{i}", x) if f"paths.{i}" in within else x for i, x in enumerate(inputs)]
            return run("trunk", *arrived)
        case layers.Embedding():
            return inputs[0] @ own["E"]
        case layers.Dense():
            return ACTIVATIONS[layer.activation](torch.cat(inputs, dim=1) @ own["W"] + own["b"])
        case layers.JoinPlanes():
            x, *c = inputs
            return torch.cat([x, *(part[:, None, None].expand(*x.shape[:3], -1) for part in c)], dim=3)
        case layers.Flatten():
            return inputs[0].flatten(1)
        case layers.Reshape():
            return inputs[0].reshape(len(inputs[0]), *layer.shape)
    (x,) = inputs
    x = x.permute(0, 3, 1, 2)  # torch's images are NCHW
    match layer:
        case layers.FlattenPlanes():
            return x.flatten(1)
        case layers.MaxPool2D():
            y = torch.nn.functional.max_pool2d(x, layer.size, layer.step)
        case layers.AvgPool2D():
            y = torch.nn.functional.avg_pool2d(x, layer.size, layer.step)
        case layers.UpSample2D():
            y = x.repeat_interleave(layer.size[0], dim=2).repeat_interleave(layer.size[1], dim=3)
        case layers.Conv2D() | layers.ConvTranspose2D():
            y = convolved(layer, x, own["W"].permute(3, 2, 0, 1).contiguous(), own["b"])
    return y.permute(0, 2, 3, 1)


def convolved(layer, x, W, b):
    """A convolution or its transpose, NCHW; for the transpose with "same" the kernel must be as large as its stride."""
    activation, stride, padding = layer.settings
    if isinstance(layer, layers.Conv2D):
        if padding == "same":
            top, left = (margins(*sizes) for sizes in zip(x.shape[2:], layer.size, stride, strict=True))
            x = torch.nn.functional.pad(x, [*left, *top])
        y = torch.nn.functional.conv2d(x, W, b, stride)
    else:
        y = torch.nn.functional.conv_transpose2d(x, W, b, stride)
        if padding == "same":  # what sticks out is cut off
            h, w = x.shape[2] * stride[0], x.shape[3] * stride[1]
            (top, _), (left, _) = (margins(*sizes) for sizes in zip((h, w), layer.size, stride, strict=True))
            y = y[:, :, top : top + h, left : left + w]
    return ACTIVATIONS[activation](y)


def margins(size, kernel, stride):
    """The zeros before and after `size` pixels for ceil(size / stride) places, as TensorFlow's "same" has them."""
    places = -(-size // stride)
    zeros = max((places - 1) * stride + kernel - size, 0)
    return zeros // 2, zeros - zeros // 2


def negative_log_likelihood(likelihood, h, x):
    """Of each example, summed over pixels, from torch.distributions and torch's own losses."""
    if isinstance(likelihood, Gaussian):
        log_p = torch.distributions.Normal(torch.sigmoid(h), likelihood.sigma).log_prob(x)
        return -log_p.sum(1)
    if isinstance(likelihood, LearnedGaussian):
        mu, v = h.chunk(2, dim=1)
        return -torch.distributions.Normal(mu, torch.exp(v / 2)).log_prob(x).sum(1)
    bce = torch.nn.functional.binary_cross_entropy_with_logits(h, x, reduction="none")
    return bce.sum(1)


def loss_torch(model, weights, x, c, eps):
    h = run_torch(model.encoder, weights, "encoder", x, *c)
    mean, log_var = h.chunk(2, dim=1)
    q = torch.distributions.Normal(mean, torch.exp(log_var / 2))
    p = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    if model.prior:
        m, s = run_torch(model.prior, weights, "prior", *c).chunk(2, dim=1)
        p = torch.distributions.Normal(m, torch.exp(s / 2))
    z = mean + torch.exp(log_var / 2) * eps
    decoded = z[: model.objective.used]
    nll = torch.stack(
        [
            negative_log_likelihood(model.likelihood, run_torch(model.decoder, weights, "decoder", z_s, *c), x)
            for z_s in decoded
        ]
    )
    log_ratio = q.log_prob(z) - p.log_prob(z)
    if isinstance(model.objective, IWAE):
        log_w = -nll - model.objective.beta * log_ratio.sum(2)
        return (np.log(len(z)) - torch.logsumexp(log_w, 0)).mean()
    kl = torch.distributions.kl_divergence(q, p) if model.objective.kl == "closed" else log_ratio.mean(0)
    kl = torch.clamp(kl.mean(0), min=model.objective.free_bits).sum()
    loss = nll.mean() + model.objective.beta * kl
    return loss + game_torch(model, weights, z, eps, c) if model.adversary else loss


def game_torch(model, weights, z, eps, c):
    """Both sides of the game as one loss: each side's own weights alone see its gradient."""
    softplus, d = torch.nn.functional.softplus, model.adversary.discriminator
    fixed = {name: weight.detach() for name, weight in weights.items()}
    fooling = sum(softplus(-run_torch(d, fixed, "discriminator", z_s, *c)).mean() for z_s in z) / len(z)
    discrimination = sum(
        softplus(-run_torch(d, weights, "discriminator", eps_s, *c)).mean()
        + softplus(run_torch(d, weights, "discriminator", z_s.detach(), *c)).mean()
        for z_s, eps_s in zip(z, eps, strict=True)
    ) / len(z)
    return model.adversary.weight * fooling + discrimination


def condition_for(kind, rng):
    """A drawn condition as minicvae takes it, and the same as the matrices that torch concatenates."""
    if isinstance(kind, Parts):
        pairs = {name: condition_for(part, rng) for name, part in kind.parts.items()}
        return {name: c for name, (c, _) in pairs.items()}, [matrix for _, (matrix,) in pairs.values()]
    if isinstance(kind, Nothing):
        return N, [torch.zeros(N, 0, dtype=torch.float64)]
    if isinstance(kind, Vector):
        c = rng.normal(size=(N, kind.dim))
        return c, [torch.tensor(c)]
    labels = rng.integers(0, kind.classes, N)
    return labels, [torch.tensor(np.eye(kind.classes)[labels])]


def every_layer(**settings):
    """A model of one's own, on images of 6 x 6, in which every type of layer has a part."""
    trunk = [
        layers.JoinPlanes(),
        layers.Conv2D(1 + 2 + 3, 4, kernel=(3, 2), stride=(1, 2), padding="valid", activation="elu"),  # 4 x 3
        layers.MaxPool2D(2, stride=1),  # 3 x 2
        layers.Flatten(),
        layers.Dense(24, 4),
    ]
    decoder = [
        layers.Dense(2 + 5 + 3, 12, "tanh"),
        layers.Reshape((2, 2, 3)),
        layers.ConvTranspose2D(3, 2, kernel=(3, 2), stride=(2, 3), padding="valid", activation="sigmoid"),  # 5 x 5
        layers.AvgPool2D((2, 3), stride=(3, 1)),  # 2 x 3
        layers.UpSample2D((3, 2)),
        layers.FlattenPlanes(),
    ]
    return mc.CVAE(
        layers.Pathways([layers.Reshape((6, 6, 1)), layers.Embedding(5, 2), None], layers.Chain(trunk)),
        layers.Chain(decoder),
        Parts({"digit": Classes(5), "slant": Vector(3)}),
        latent_dim=2,
        image_shape=(6, 6),
        likelihood=LearnedGaussian(),
        **settings,
    )


CONDITIONS = {"digit": Classes(10), "slant": Vector(2), "thickness": Classes(3, embedding=4)}
MODELS = {name: partial(mc.build, name) for name in mc.presets()} | {
    "beta and free bits": partial(mc.build, "mlp-small", beta=3.0, free_bits=0.4),
    "learned variance": partial(mc.build, "mlp-small", likelihood=LearnedGaussian()),
    "four samples": partial(mc.build, "latent2d", objective=mc.objectives.ELBO(samples=4)),
    "importance-weighted bound": partial(mc.build, "latent2d", objective=IWAE(samples=5)),
    "importance-weighted bound, weighted": partial(mc.build, "gaussian", objective=IWAE(samples=3, beta=0.5)),
    "VAE of five samples": partial(mc.build, "iwae", objective=mc.objectives.ELBO(samples=5)),
    "closed KL to a learnt prior": partial(mc.build, "embedding", conditional_prior=True),
    "sampled KL to a learnt prior": partial(mc.build, "gaussian", conditional_prior=True),
    "adversary of three samples": partial(
        mc.build, "adversarial", objective=mc.objectives.ELBO(samples=3), condition=Classes(10, embedding=4)
    ),
    "two conditions": partial(mc.build, "mlp-small", condition=Parts(CONDITIONS)),
    "every layer": every_layer,
}


def compare(model):
    """The loss of a float64 model, torch's, and by name each parameter's ‖ours - theirs‖ / ‖theirs‖."""
    rng = np.random.default_rng(2)
    for name, value in model.parameters.items():  # biases start at zero, where a mistake could hide
        if name.endswith(".b"):
            model.parameters[name] = rng.normal(size=value.shape) / 10
    x = rng.random((N, model.data_dim)) * (rng.random((N, model.data_dim)) < 0.3)
    c, c_torch = condition_for(model.condition, rng)
    eps = rng.normal(size=(model.objective.samples, N, model.latent_dim))
    losses, grads = model.loss_and_gradients(x, c, eps=eps)

    values = {name: model.kernels.to_numpy(value) for name, value in model.parameters.items()}
    weights = {name: torch.tensor(value, requires_grad=True) for name, value in values.items()}
    expected = loss_torch(model, weights, torch.tensor(x), c_torch, torch.tensor(eps))
    expected.backward()
    theirs = {name: weight.grad.numpy() for name, weight in weights.items()}
    norms = {name: np.linalg.norm(gradient) for name, gradient in theirs.items()}
    assert grads.keys() == theirs.keys()
    assert min(norms.values()) > 0, "nothing was checked for some parameter"
    errors = {name: np.linalg.norm(grads[name] - theirs[name]) / norms[name] for name in theirs}
    game = model.adversary.weight * losses["fooling"] + losses["discrimination"] if model.adversary else 0.0
    return losses["loss"] + game, expected.item(), errors


@pytest.mark.parametrize("case", MODELS)
def test_losses_and_gradients_equal_autograd_to_1e_11(case, device):
    loss, expected, errors = compare(MODELS[case](seed=1, dtype="float64", device=device))
    assert loss == pytest.approx(expected, rel=1e-12)
    assert {name: error for name, error in errors.items() if not error < 1e-11} == {}


LAYERS = {name: type(l) for root, network in every_layer().networks for name, l in network.named_layers(root)}


def test_every_type_of_layer_is_held_to_autograd():
    public = (getattr(layers, name) for name in layers.__all__)
    types = {t for t in public if isinstance(t, type) and issubclass(t, layers.Layer)}
    assert set(LAYERS.values()) == types - {layers.Layer}


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "encoder.paths.0"])  # no weights come before it
def test_a_backward_that_is_wrong_by_a_billionth_is_seen(name):
    model = every_layer(dtype="float64", device="numpy")
    layer = dict(pair for root, network in model.networks for pair in network.named_layers(root))[name]
    plain = layer.forward

    def forward(*inputs):
        y, backward = plain(*inputs)
        return y, lambda dy, need_dx=True: backward(dy * (1 + 1e-9), need_dx=need_dx)

    layer.forward = forward
    _, _, errors = compare(model)
    assert max(errors.values()) > 1e-11
