"""PyTorch as a contestant, written as its careful users write it.

`python -m minicvae.bench.torch_peer PRESET BATCH DEVICE MODE`. MODE: eager (Adam as it comes), fused
(Adam(fused=True)), compile (torch.compile and fused Adam), channels_last (fused; `conv` only), and on cuda graph
(torch.compile's CUDA graphs). With CUPY_TF32=1 in the environment products may use TF32, without it none does. The loss
is the Bernoulli ELBO with the closed-form KL for every preset, which for `gaussian` is less work than what minicvae
does.
"""

import os
import sys
import time
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from minicvae.bench.protocol import serve, training_images

PIXELS, CLASSES = 784, 10
TRAIN, TEST = 60_000, 10_000
DENSE = {
    "latent2d": ([512], 2, [512]),
    "mlp": ([256, 256], 16, [256, 256]),
    "mlp-small": ([256, 128], 16, [128, 256]),
    "gaussian": ([512, 32], 2, [32, 512]),
}


def mlp(widths):
    """Linear and relu in turn, ending with relu."""
    pairs = pairwise(widths)
    return nn.Sequential(*(layer for d_in, d_out in pairs for layer in (nn.Linear(d_in, d_out), nn.ReLU())))


class Dense(nn.Module):
    """The dense presets."""

    def __init__(self, encoder, latent, decoder):
        super().__init__()
        self.latent = latent
        self.encoder = nn.Sequential(mlp([PIXELS + CLASSES, *encoder]), nn.Linear(encoder[-1], 2 * latent))
        self.decoder = nn.Sequential(mlp([latent + CLASSES, *decoder]), nn.Linear(decoder[-1], PIXELS))

    def encode(self, x, c):
        """Mean and log variance of q(z|x,c)."""
        return self.encoder(torch.cat([x, c], 1)).chunk(2, 1)

    def decode(self, z, c):
        """Logits of p(x|z,c)."""
        return self.decoder(torch.cat([z, c], 1))


class Convolutional(nn.Module):
    """The preset `conv`."""

    latent = 16

    def __init__(self):
        super().__init__()
        self.images = nn.Sequential(
            *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        )
        self.class_in, self.class_out = (nn.Sequential(nn.Linear(CLASSES, 64), nn.ReLU()) for _ in range(2))
        self.heads = nn.Linear(3136 + 64, 2 * self.latent)
        self.planes = nn.Sequential(
            *(nn.Linear(self.latent + 64, 3136), nn.ReLU(), nn.Unflatten(1, (64, 7, 7))),
            *(nn.ConvTranspose2d(64, 64, 3, padding=1), nn.ReLU(), nn.Upsample(scale_factor=2)),
            *(nn.ConvTranspose2d(64, 32, 3, padding=1), nn.ReLU(), nn.Upsample(scale_factor=2)),
            *(nn.Conv2d(32, 1, 3, padding=1), nn.Flatten()),
        )

    def encode(self, x, c):
        """Mean and log variance of q(z|x,c)."""
        h = self.images(x.view(-1, 1, 28, 28))
        return self.heads(torch.cat([h, self.class_in(c)], 1)).chunk(2, 1)

    def decode(self, z, c):
        """Logits of p(x|z,c)."""
        return self.planes(torch.cat([z, self.class_out(c)], 1))


def elbo(model, x, c):
    """Nats per image."""
    mean, log_var = model.encode(x, c)
    z = mean + torch.exp(log_var / 2) * torch.randn_like(mean)
    nll = functional.binary_cross_entropy_with_logits(model.decode(z, c), x, reduction="sum")
    kl = (mean.square() + log_var.exp() - 1 - log_var).sum() / 2
    return (nll + kl) / len(x)


def tasks(preset, batch_size, device, mode):
    """What this contestant can do, by name."""
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = os.environ.get("CUPY_TF32") == "1"
    model = (Convolutional() if preset == "conv" else Dense(*DENSE[preset])).to(device)
    if mode == "channels_last":
        model = model.to(memory_format=torch.channels_last)
    adam = torch.optim.Adam(model.parameters(), 1e-3, **({} if mode == "eager" else {"fused": True}))
    compiled = {"compile": {}, "graph": {"mode": "reduce-overhead"}}
    objective = torch.compile(elbo, **compiled[mode]) if mode in compiled else elbo
    x = torch.from_numpy(training_images()[:TRAIN].reshape(TRAIN, PIXELS)).to(device) / 255
    c = functional.one_hot(torch.randint(CLASSES, (TRAIN,), device=device), CLASSES).float()

    def timed(work):
        def run(n):
            if device == "cuda":
                torch.cuda.synchronize()
            begin = time.perf_counter()
            work(n)
            if device == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter() - begin

        return run

    def step(n):
        order = torch.randperm(TRAIN, device=device).repeat(-(-n * batch_size // TRAIN))
        for index in order[: n * batch_size].split(batch_size):
            adam.zero_grad(set_to_none=True)
            objective(model, x[index], c[index]).backward()
            adam.step()

    @torch.no_grad()
    def evaluate(n):
        for _ in range(n):
            for x_part, c_part in zip(x[:TEST].split(1000), c[:TEST].split(1000), strict=True):
                elbo(model, x_part, c_part).item()

    @torch.no_grad()
    def generate(n):
        for _ in range(n):
            for c_part in c[:TEST].split(1000):
                torch.sigmoid(model.decode(torch.randn(1000, model.latent, device=device), c_part)).cpu()

    return {name: timed(work) for name, work in (("step", step), ("evaluate", evaluate), ("generate", generate))}


if __name__ == "__main__":
    preset, batch_size, device, mode = sys.argv[1:]
    known = tasks(preset, int(batch_size), device, mode)
    known["step"](20)
    serve(known)
