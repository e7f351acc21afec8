"""Objects as JSON data and back: every class of the library, and those of a user."""

import json
from dataclasses import dataclass, fields, is_dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae import conditions, distributions, layers, objectives, optimizers, schedules
from minicvae.conditions import Classes, Nothing, Parts, Vector
from minicvae.description import describe, restore
from minicvae.distributions import Bernoulli, Gaussian, LearnedGaussian
from minicvae.layers import (
    AvgPool2D,
    Chain,
    Conv2D,
    ConvTranspose2D,
    Dense,
    Embedding,
    Flatten,
    FlattenPlanes,
    JoinPlanes,
    Layer,
    MaxPool2D,
    Pathways,
    Reshape,
    UpSample2D,
)
from minicvae.objectives import ELBO, IWAE
from minicvae.optimizers import SGD, Adam, AdamW
from minicvae.schedules import Constant, Cosine, Cyclical, Exponential, Linear, Steps, Tripling

EXAMPLES = [
    Dense(3, 4),
    Dense(3, 4, "elu", "standard_normal"),
    Embedding(10, 16),
    Flatten(),
    Reshape((7, 7, 64)),
    Conv2D(1, 8, (3, 5), 2, "valid", "relu"),
    ConvTranspose2D(8, 1),
    MaxPool2D((2, 3), 1),
    AvgPool2D(),
    UpSample2D((1, 2)),
    FlattenPlanes(),
    JoinPlanes(),
    Chain([Dense(3, 4, "relu"), Chain([Flatten()])]),
    Pathways([None, Embedding(3, 2)], Dense(5, 1)),
    Classes(10),
    Classes(10, 16),
    Vector(5),
    Nothing(),
    Parts({"digit": Classes(10), "all": Parts({"style": Vector(2)})}),
    Bernoulli(),
    Gaussian(0.5),
    LearnedGaussian(),
    ELBO(0.5, "monte_carlo", 5, 1, 0.1),
    IWAE(5, 0.5),
    SGD(0.9, True, 0.1),
    Adam(),
    AdamW(weight_decay=0.3),
    Constant(0.1),
    Linear(0.0, 1.0, 0.3),
    Cosine(1.0, 0.0, 0.1),
    Exponential(1.0, 0.1),
    Steps((1.0, 0.5), (0.3,)),
    Cyclical(),
    Tripling(0.1, 2),
]
CLASSES = {type(example) for example in EXAMPLES}


def through_json(value, classes=CLASSES):
    return restore(json.loads(json.dumps(describe(value))), classes)


def contents(value):
    """Everything that a described object says, as plain data; layers by themselves compare by identity."""
    if is_dataclass(value):
        return type(value), {f.name: contents(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, (list, tuple)):  # JSON knows only lists
        return [contents(v) for v in value]
    return {key: contents(v) for key, v in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_every_class_comes_back_as_it_went(example):
    assert contents(through_json(example)) == contents(example)


def test_every_public_class_of_the_library_is_among_the_examples():
    found = {kind for kind in vars(layers).values() if isinstance(kind, type) and issubclass(kind, Layer)}
    found |= {*conditions.CONDITIONS, *distributions.LIKELIHOODS, *objectives.OBJECTIVES, *schedules.SCHEDULES}
    found |= set(optimizers.OPTIMIZERS.values())
    assert found - {Layer} == CLASSES


def test_a_restored_layer_computes_what_the_first_one_did():
    layer = Pathways([None, Embedding(3, 2)], Chain([Dense(5, 4, "tanh"), Reshape((2, 2)), Flatten()]))
    back = through_json(layer)
    x, c = np.ones((2, 3)), conditions.Classes(3).encode([0, 2], layer.kernels, "float64")
    outputs = []
    for one in (layer, back):
        one.initialise("numpy", "float64", seed=3)
        outputs.append(one.forward(x, *c)[0])
    np.testing.assert_array_equal(*outputs)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text().filter(lambda key: key != "type"), inner),
    max_leaves=10,
)


@given(value=json_values)
def test_plain_data_describes_itself(value):
    assert describe(value) == value
    assert through_json(value) == value


@dataclass(frozen=True)
class Mine:
    """A class of a user's own."""

    size: int
    inner: tuple = ()


def test_classes_of_ones_own_are_restored_where_they_are_named():
    mine = Mine(3, [Classes(2)])
    assert through_json(mine, [Mine, Classes]) == mine
    with pytest.raises(ValueError, match=r"names the type 'Mine', which is none of .*load\(path, classes=\[\.\.\.\]\)"):
        through_json(mine)


@pytest.mark.parametrize("value", [object(), {1, 2}, np.ones(2), 1j, Mine, lambda: 0])
def test_what_has_no_description_is_refused(value):
    with pytest.raises(TypeError, match="cannot be described: expected a dataclass, or plain JSON data"):
        describe([{"deep": value}])


@pytest.mark.parametrize("number", [np.int64(3), np.uint8(3), np.float32(0.5), np.float64(0.5)])
def test_numpys_numbers_describe_themselves_as_pythons(number):
    """A model built with `latent_dim=array.shape[1]` or `beta=np.float32(2)` must not fail when it is saved."""
    described = describe(number)
    assert described == number.item()
    assert json.loads(json.dumps(described)) == number.item()


def test_a_part_may_have_any_name():
    condition = Parts({"type": Classes(3), "parts": Vector(2)})
    assert through_json(condition) == condition
