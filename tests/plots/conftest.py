"""Small models, untrained, one for each kind of condition, and images for them."""

import numpy as np
import pytest

import minicvae as mc
from minicvae.conditions import Classes, Parts, Vector

N, SHAPE = 40, (6, 5)


def _tiny(condition, latent_dim=2):
    sizes = {"encoder_widths": (8,), "decoder_widths": (8,), "image_shape": SHAPE, "latent_dim": latent_dim}
    return mc.build("mlp", seed=3, device="numpy", condition=condition, **sizes)


@pytest.fixture(scope="session")
def tiny():
    """tiny(condition, latent_dim=2): an untrained model."""
    return _tiny


@pytest.fixture(scope="session")
def x():
    return np.random.default_rng(0).integers(0, 256, (N, *SHAPE), dtype=np.uint8)


@pytest.fixture(scope="session")
def by_class():
    return _tiny(Classes(3))


@pytest.fixture(scope="session")
def labels():
    return np.random.default_rng(1).integers(0, 3, N).astype(np.uint8)


@pytest.fixture(scope="session")
def by_vector():
    return _tiny(Vector(4))


@pytest.fixture(scope="session")
def vectors():
    return np.random.default_rng(2).standard_normal((N, 4))


@pytest.fixture(scope="session")
def by_parts():
    return _tiny(Parts({"digit": Classes(3), "style": Vector(1)}))


@pytest.fixture(scope="session")
def dicts(labels, vectors):
    return {"digit": labels, "style": vectors[:, :1]}


@pytest.fixture(scope="session")
def deep():
    """A latent of three dimensions."""
    return _tiny(Classes(3), latent_dim=3)


@pytest.fixture(scope="session")
def tile():
    """tile(axes, row, column): what a mosaic on axes shows there."""

    def tile(axes, row, column):
        whole = np.ma.filled(axes.images[0].get_array(), np.nan)
        h, w = SHAPE
        return whole[row * (h + 1) : row * (h + 1) + h, column * (w + 1) : column * (w + 1) + w]

    return tile


@pytest.fixture(scope="session")
def headings():
    """headings(axes): the labels of the columns, and of the rows."""
    return lambda axes: (
        [label.get_text() for label in axes.get_xticklabels()],
        [label.get_text() for label in axes.get_yticklabels()],
    )
