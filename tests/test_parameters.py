"""The flat buffers: views by name, values that can be assigned, gradients that never outlive their step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicvae import initializers
from minicvae.kernels import load
from minicvae.optimizers import Adam, clip_by_global_norm
from minicvae.parameters import UNIT, Parameter, Parameters
from minicvae.randomness import Purpose, generator

shapes = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple), min_size=1, max_size=5)
dtypes = st.sampled_from(["float32", "float64"])


def buffers(shapes, kernels=None, dtype="float64", seed=0, initializer="standard_normal"):
    named = [(f"p{i}", Parameter(shape, initializer)) for i, shape in enumerate(shapes)]
    return Parameters(named, kernels or load("numpy"), dtype, seed), [p for _, p in named]


def laid_out(*values):
    """A buffer that holds the values of each parameter, and zeros between them."""
    return np.concatenate([np.pad(np.ravel(value), (0, -np.size(value) % UNIT)) for value in values])


@given(shapes=shapes, dtype=dtypes)
def test_parameters_are_views_of_the_buffer_that_follow_each_other_from_line_to_line(kernels, shapes, dtype):
    parameters, declared = buffers(shapes, kernels, dtype)
    assert parameters.size == sum(p.size for p in declared)
    assert len(parameters.value) == len(parameters.grad)
    assert [(name, value.shape) for name, value in parameters.items()] == [(f"p{i}", s) for i, s in enumerate(shapes)]
    parameters.value[...] = kernels.xp.arange(len(parameters.value))
    end = 0
    for value in map(kernels.to_numpy, parameters.values()):
        start = -(-end // UNIT) * UNIT
        end = start + value.size
        assert value.dtype == dtype
        np.testing.assert_array_equal(value.ravel(), np.arange(start, end))
    assert len(parameters.value) == -(-end // UNIT) * UNIT


@given(shapes=shapes, steps=st.integers(1, 3))
def test_what_lies_between_the_parameters_stays_zero(kernels, shapes, steps):
    parameters, declared = buffers(shapes, kernels)
    update = Adam(weight_decay=0.1).start(parameters, kernels)
    for _ in range(steps):
        parameters.zero_grad()
        for p in declared:
            p.gradient_sink()[0][...] = 1
        assert float(clip_by_global_norm(parameters, kernels, 100.0)) == pytest.approx(parameters.size**0.5)
        update(0.01)
    for buffer in (parameters.value, parameters.grad):
        assert np.count_nonzero(kernels.to_numpy(buffer)) == parameters.size


@given(shapes=shapes, data=st.data())
def test_assigning_changes_the_buffer_and_nothing_else(kernels, shapes, data):
    parameters, declared = buffers(shapes, kernels, "float32")
    i = data.draw(st.integers(0, len(shapes) - 1))
    held, before = declared[i].value, kernels.to_numpy(parameters.value)
    new = np.random.default_rng(0).standard_normal(shapes[i])
    parameters[f"p{i}"] = new
    np.testing.assert_array_equal(kernels.to_numpy(held), new.astype("float32"))
    changed = kernels.to_numpy(parameters.value) != before
    assert changed.sum() == new.size
    parameters[f"p{i}"][...] = 0
    assert not kernels.to_numpy(declared[i].value).any()


@pytest.mark.parametrize("shape", [(), (1,), (3,), (3, 2), (1, 2, 3), (2, 4)])
def test_another_shape_is_refused_and_not_broadcast(shape):
    parameters, _ = buffers([(2, 3)])
    before = parameters.value.copy()
    with pytest.raises(ValueError, match=r"^parameters\['p0'\]: expected shape \(2, 3\), got "):
        parameters["p0"] = np.ones(shape)
    np.testing.assert_array_equal(parameters.value, before)


def test_unknown_names_are_refused_and_nothing_can_be_removed():
    parameters, _ = buffers([(2,), (3,)])
    with pytest.raises(KeyError, match="'q' is none of the parameters p0, p1"):
        parameters["q"] = np.ones(2)
    with pytest.raises(KeyError):
        parameters["q"]
    with pytest.raises(TypeError, match="cannot be removed"):
        del parameters["p0"]
    assert list(parameters) == ["p0", "p1"]
    assert len(parameters) == 2
    assert repr(parameters) == "p0 (2,)\np1 (3,)"


@given(shapes=shapes, seed=st.integers(0, 2**64 - 1))
def test_the_same_seed_gives_the_same_weights_in_every_type_and_on_every_device(kernels, shapes, seed):
    exact, _ = buffers(shapes, None, "float64", seed)
    here, _ = buffers(shapes, kernels, "float32", seed)
    np.testing.assert_array_equal(kernels.to_numpy(here.value), exact.value.astype("float32"))


def test_the_i_th_parameter_has_the_i_th_stream_of_the_seed():
    parameters, _ = buffers([(3, 4), (5,)], seed=7)
    for i, value in enumerate(parameters.values()):
        stream = generator(7, Purpose.INITIALISE, step=i)
        np.testing.assert_array_equal(value, initializers.standard_normal(stream, value.shape))


def test_another_seed_gives_other_weights_and_no_two_parameters_share_theirs():
    one, other = buffers([(50,), (50,)], seed=1)[0], buffers([(50,), (50,)], seed=2)[0]
    drawn = np.concatenate([*one.values(), *other.values()])
    assert len(np.unique(drawn)) == len(drawn)


def test_the_numbers_of_a_parameter_do_not_depend_on_the_shapes_of_the_others():
    narrow, _ = buffers([(2,), (3, 3)])
    wide, _ = buffers([(20, 20), (3, 3)])
    np.testing.assert_array_equal(narrow["p1"], wide["p1"])


@pytest.mark.parametrize("shape", [(0,), (2, 0), (-1, 3)])
def test_empty_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"^shape: expected positive sizes"):
        Parameter(shape, "zeros")


def test_an_unknown_initialiser_is_refused():
    with pytest.raises(ValueError, match=r"^initializer: expected one of"):
        Parameter((2,), "ones")


# Gradients


def test_a_gradient_is_zero_until_a_backward_writes_it():
    parameters, (p, _) = buffers([(2,), (3,)])
    assert not parameters.grad.any()
    sink, accumulate = p.gradient_sink()
    assert accumulate  # somebody looked: zeros are there to be added to
    sink += 1
    np.testing.assert_array_equal(parameters.grad, laid_out([1, 1], [0, 0, 0]))


@given(steps=st.lists(st.lists(st.integers(0, 2), max_size=5), min_size=1, max_size=5))
def test_a_gradient_is_the_sum_of_what_was_written_since_zero_grad(steps):
    """steps: for each step, the parameters whose backward runs, in order; some more than once, some never."""
    parameters, declared = buffers([(2,), (1, 2), (3,)])
    for number, written in enumerate(steps, start=1):
        parameters.zero_grad()
        for i in written:
            sink, accumulate = declared[i].gradient_sink()
            contribution = np.full(sink.shape, float(number))
            sink[...] = sink + contribution if accumulate else contribution
        for i, p in enumerate(declared):
            np.testing.assert_array_equal(parameters.grads[f"p{i}"], np.full(p.shape, number * written.count(i)))
        expected = laid_out(*(np.full(p.size, number * written.count(i)) for i, p in enumerate(declared)))
        np.testing.assert_array_equal(parameters.grad, expected)


def test_looking_at_a_gradient_early_does_not_disturb_it():
    parameters, (p, q) = buffers([(2,), (2,)])
    p.gradient_sink()[0][...] = 5
    parameters.zero_grad()
    assert not parameters.grads["p0"].any()
    sink, accumulate = p.gradient_sink()
    sink[...] = sink + 3 if accumulate else 3
    sink, accumulate = q.gradient_sink()
    sink[...] = sink + 4 if accumulate else 4
    np.testing.assert_array_equal(parameters.grad, laid_out([3, 3], [4, 4]))


def test_a_block_is_a_piece_of_both_buffers(kernels):
    named = [(name, Parameter((2, 3), "zeros")) for name in ("a.0.W", "a.1.W", "b.0.W", "ab.0.W")]
    parameters = Parameters(named, kernels, "float64")
    parameters.value[...] = kernels.xp.arange(4 * UNIT)
    for names, lines in ((("a",), slice(0, 2)), (("a", "b"), slice(0, 3)), (("b",), slice(2, 3))):
        block, where = parameters.block(*names), slice(lines.start * UNIT, lines.stop * UNIT)
        block.value[...] += 1
        np.testing.assert_array_equal(*(kernels.to_numpy(values) for values in (block.value, parameters.value[where])))
    added = kernels.to_numpy(parameters.value) - np.arange(4 * UNIT)
    np.testing.assert_array_equal(added, np.repeat([2, 2, 2, 0], UNIT))


def test_a_block_has_the_gradient_of_the_step(kernels):
    first, second = Parameter((2,), "zeros"), Parameter((3,), "zeros")
    parameters = Parameters([("a.W", first), ("b.W", second)], kernels, "float64")
    for sink, accumulate in (first.gradient_sink(), second.gradient_sink()):
        assert not accumulate
        sink[...] = 7
    assert kernels.to_numpy(parameters.block("b").grad).tolist() == [7, 7, 7] + [0] * (UNIT - 3)
    parameters.zero_grad()
    assert kernels.to_numpy(parameters.block("b").grad).tolist() == [0] * UNIT


@pytest.mark.parametrize("networks", [("a", "c"), ("d",), ()])
def test_networks_that_are_no_neighbours_are_no_block(networks):
    parameters = Parameters([(f"{name}.W", Parameter((2,), "zeros")) for name in "abc"], load("numpy"), "float64")
    with pytest.raises(ValueError, match=r"^networks: expected neighbours in the buffer, got"):
        parameters.block(*networks)
