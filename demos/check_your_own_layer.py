"""Check your own layer: write a backward with a mistake in it, let the checker find it, mend it.

Run it as a script, or cell by cell in an editor that knows `# %%`:

    python demos/check_your_own_layer.py          # seconds; nothing is trained
"""

# %% The layer: LayerNorm, with scale and shift
# For each example n, over its d features:   x̂ = (x - mean(x)) / σ,  σ² = var(x) + 1e-5,  y = x̂ ⊙ gain + bias.
# A layer is a forward that returns its own backward. Any function of float64 arrays will do.
import argparse
from pathlib import Path

import numpy as np

from minicvae.cli.demo import parsed
from minicvae.gradcheck import assert_gradients, check_gradients

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
folder = Path("runs/demos/check_your_own_layer")
parser.add_argument("--out", type=Path, default=folder, help="folder for the pictures")
parser.add_argument("--full", action="store_true", help="the same: there is no longer protocol")
out = parsed(parser).out


def layer_norm(x, gain, bias):
    centred = x - x.mean(axis=1, keepdims=True)
    sigma = np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    normal = centred / sigma
    y = normal * gain + bias

    def backward(dy):
        dnormal = dy * gain
        # x moves y in three ways: by itself, through σ and through the mean. One of them is missing here.
        dx = (dnormal - normal * (dnormal * normal).mean(axis=1, keepdims=True)) / sigma
        return dx, (dy * normal).sum(axis=0), dy.sum(axis=0)

    return y, backward


# %% Is backward the derivative of forward? The checker hands it a random dy, and looks at every element
rng = np.random.default_rng(0)
x, gain, bias = rng.normal(size=(8, 12)), rng.uniform(0.5, 2, 12), rng.normal(size=12)

report = check_gradients(layer_norm, (x, gain, bias), title="layer_norm")
print(report, "\n")

# %% The picture: analytic less numeric, a field for each element of dx; the small square is in the worst one
# gain and bias pass, x does not. Every row of the picture is a stripe, and the sentence below the table says the same:
# the error does not change along axis 1, so a term that is averaged over the features is missing: the path through
# the mean.
report.figure("x").savefig(out / "wrong.png", dpi=150)


# %% Mended
def mended_layer_norm(x, gain, bias):
    centred = x - x.mean(axis=1, keepdims=True)
    sigma = np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    normal = centred / sigma
    y = normal * gain + bias

    def backward(dy):
        dnormal = dy * gain
        through_mean = dnormal.mean(axis=1, keepdims=True)
        through_sigma = normal * (dnormal * normal).mean(axis=1, keepdims=True)
        dx = (dnormal - through_mean - through_sigma) / sigma
        return dx, (dy * normal).sum(axis=0), dy.sum(axis=0)

    return y, backward


report = check_gradients(mended_layer_norm, (x, gain, bias), title="mended_layer_norm")
print(report, "\n")
report.figure("x").savefig(out / "mended.png", dpi=150)


# %% A check that checks nothing says so
# With L = Σ y, a popular choice, dL/dx is zero whatever x is, for the rows of x̂ sum to zero. A backward that returns
# zeros would pass; here the verdict is "vacuous".
def summed(x):
    return layer_norm(x, np.ones(12), np.zeros(12))[0].sum(), lambda dL: np.zeros_like(x)


print(check_gradients(summed, (x,), title="summed"), "\n")

# %% In a test, one line: it raises AssertionError, with the table, if the gradient is ever wrong again
assert_gradients(mended_layer_norm, (x, gain, bias))
print(f"The pictures are in {out}/: wrong.png and mended.png")
