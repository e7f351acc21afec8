"""The model as users hold it: built, described, saved, and loaded again."""

import os

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minicvae as mc
from minicvae import checkpoint
from minicvae.conditions import Classes, Parts, Vector
from minicvae.distributions import Bernoulli, Gaussian, LearnedGaussian
from minicvae.layers import Chain, Dense, Flatten, Reshape
from minicvae.layers.layer import Layer, once
from minicvae.objectives import ELBO

SMALL = {"image_shape": (3, 3), "encoder_widths": (5,), "decoder_widths": (4,)}


def small(preset="mlp", **settings):
    return mc.build(preset, **SMALL | {"latent_dim": 2} | settings)


def assert_same(one, other):
    assert list(one.parameters) == list(other.parameters)
    for name, value in one.parameters.items():
        a, b = one.kernels.to_numpy(value), other.kernels.to_numpy(other.parameters[name])
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a.view(np.uint8), b.view(np.uint8), err_msg=name)
    assert one.config == other.config


@pytest.mark.parametrize("preset", mc.presets())
def test_every_preset_survives_being_saved(tmp_path, preset):
    model = mc.build(preset, seed=3)
    model.save(tmp_path / "model.safetensors")
    back = mc.load(tmp_path / "model.safetensors")
    assert_same(model, back)
    assert back.preset == preset
    c = model.condition.example(2)
    np.testing.assert_array_equal(model.generate(c), back.generate(c))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "settings",
    [
        {"likelihood": LearnedGaussian(), "objective": ELBO(0.5, "monte_carlo", 5, 1, 0.1)},
        {"likelihood": Gaussian(0.3), "condition": Classes(3, 2)},
        {"condition": Parts({"digit": Classes(4), "style": Vector(2), "width": Classes(3, 2)})},
    ],
)
def test_everything_that_makes_a_model_is_in_the_file(tmp_path, dtype, settings):
    for preset in ("mlp", "pathways"):
        model = small(preset, dtype=dtype, **settings)
        model.save(tmp_path / "m")
        back = mc.load(str(tmp_path / "m"))
        assert_same(model, back)
        for name in ("condition", "likelihood", "objective", "latent_dim", "image_shape", "dtype"):
            assert getattr(back, name) == getattr(model, name)


def test_a_model_moves_from_device_to_device(tmp_path, device):
    for start, end in (("numpy", device), (device, "numpy")):
        model = small(device=start, seed=1)
        model.save(tmp_path / "m")
        back = mc.load(tmp_path / "m", device=end)
        assert back.device == end
        assert_same(model, back)
        np.testing.assert_allclose(back.generate([1, 2]), model.generate([1, 2]), rtol=1e-5)


def test_special_numbers_are_saved_bit_for_bit(tmp_path):
    model = small()
    odd = np.array([-0.0, np.inf, 1e-45, np.nan], np.float32)
    model.parameters["encoder.1.b"] = odd
    model.save(tmp_path / "m")
    assert mc.load(tmp_path / "m").parameters["encoder.1.b"].tobytes() == odd.tobytes()


def test_a_run_folder_is_loaded_by_its_name(tmp_path):
    model = small()
    model.save(tmp_path / "run" / "model.safetensors")
    assert_same(model, mc.load(tmp_path / "run"))


def test_a_loaded_model_trains_on_as_the_saved_one_would(tmp_path):
    rng = np.random.default_rng(0)
    x, c = rng.random((8, 3, 3)), rng.integers(0, 10, 8)
    model = small()
    model.save(tmp_path / "m")
    back = mc.load(tmp_path / "m")
    for one in (model, back):
        one.fit(x, c, epochs=2, batch_size=4, verbose=0)
    assert_same(model, back)


class Doubled(Layer):
    """y = 2 x: a layer of a user's own, with no fields."""

    def forward(self, x):
        return 2 * x, once(lambda dy, need_dx=True: 2 * dy)


def from_parts(**settings):
    """A model put together from layers, one of them the user's."""
    encoder = Chain([Dense(9 + 3, 4, "tanh"), Doubled(), Reshape((2, 2)), Flatten()])
    return mc.CVAE(
        encoder, Dense(2 + 3, 9), Classes(3), latent_dim=2, image_shape=(3, 3), likelihood=Bernoulli(), **settings
    )


def test_classes_of_ones_own_are_handed_to_load(tmp_path):
    model = from_parts()
    model.save(tmp_path / "m")
    with pytest.raises(ValueError, match=r"the type 'Doubled', .*load\(path, classes=\[\.\.\.\]\)"):
        mc.load(tmp_path / "m")
    back = mc.load(tmp_path / "m", classes=[Doubled])
    assert_same(model, back)
    assert back.preset is None
    assert isinstance(back.encoder.layers[1], Doubled)


def test_numpys_sizes_can_be_saved(tmp_path):
    x = np.zeros((1, 3, 3))
    model = mc.build("mlp", image_shape=np.array(x.shape[1:]), latent_dim=np.int64(2), beta=np.float32(0.5))
    model.save(tmp_path / "m")
    assert mc.load(tmp_path / "m").latent_dim == 2


# Whole or not at all


def test_a_save_that_breaks_off_leaves_the_old_file(tmp_path, monkeypatch):
    model = small(seed=1)
    model.save(tmp_path / "m")
    before = (tmp_path / "m").read_bytes()

    def broken(path, content):
        with open(path, "wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(tmp_path), "write_bytes", broken)
    with pytest.raises(OSError, match="No space left"):
        small(seed=2).save(tmp_path / "m")
    assert (tmp_path / "m").read_bytes() == before
    assert os.listdir(tmp_path) == ["m"]


def test_a_save_overwrites_as_a_whole(tmp_path):
    small(seed=1).save(tmp_path / "m")
    model = small(seed=2)
    model.save(tmp_path / "m")
    assert_same(model, mc.load(tmp_path / "m"))


# Files that are refused


def test_where_there_is_no_model_the_error_names_the_place(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no model file .*nowhere"):
        mc.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"there is no model file .*model\.safetensors"):
        mc.load(tmp_path)


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[8:], bytes.lower]
)
def test_a_damaged_file_is_refused(tmp_path, damage):
    small().save(tmp_path / "m")
    (tmp_path / "m").write_bytes(damage((tmp_path / "m").read_bytes()))
    with pytest.raises(ValueError, match=r"m is not a model file, or is damaged|m is no minicvae model|damaged"):
        mc.load(tmp_path / "m")


def change_config(path, change):
    config, weights = checkpoint.read(path)
    checkpoint.write(path, change(config), weights.items())


@pytest.mark.parametrize(
    "change",
    [
        lambda config: {},
        lambda config: [1, 2],
        lambda config: {k: v for k, v in config.items() if k != "encoder"},
        lambda config: {k: v for k, v in config.items() if k != "dtype"},
        lambda config: config | {"encoder": config["encoder"] | {"width": 3}},
        lambda config: config | {"latent_dim": "two"},
        lambda config: config | {"encoder": config["decoder"]},
        lambda config: config | {"dtype": "float16"},
    ],
)
def test_a_configuration_that_makes_no_model_is_refused(tmp_path, change):
    small().save(tmp_path / "m")
    change_config(tmp_path / "m", change)
    with pytest.raises(ValueError, match=r"."):
        mc.load(tmp_path / "m")


def test_weights_that_do_not_fit_the_configuration_are_refused(tmp_path):
    model = small()
    model.save(tmp_path / "m")
    config, weights = checkpoint.read(tmp_path / "m")
    lacking = {name: value for name, value in weights.items() if name != "encoder.0.W"}
    checkpoint.write(tmp_path / "m", config, lacking.items())
    with pytest.raises(ValueError, match=r"m: the weights do not fit the configuration; they differ in encoder\.0\.W"):
        mc.load(tmp_path / "m")
    checkpoint.write(tmp_path / "m", config, (weights | {"more": np.ones(1)}).items())
    with pytest.raises(ValueError, match="they differ in more"):
        mc.load(tmp_path / "m")
    checkpoint.write(tmp_path / "m", config, (weights | {"encoder.0.b": np.ones(7)}).items())
    with pytest.raises(ValueError, match=r"encoder\.0\.b.*expected shape \(5,\), got \(7,\)"):
        mc.load(tmp_path / "m")


def test_nothing_in_a_file_is_executed(tmp_path):
    """A configuration may name only classes that are known, however it spells them."""
    small().save(tmp_path / "m")
    change_config(tmp_path / "m", lambda config: config | {"condition": {"type": "os.system", "command": "true"}})
    with pytest.raises(ValueError, match=r"names the type 'os\.system'"):
        mc.load(tmp_path / "m")


def test_the_weights_of_a_file_are_named_as_the_parameters(tmp_path):
    model = small()
    model.save(tmp_path / "m")
    tensors = load_file(tmp_path / "m")
    assert tensors.keys() == model.parameters.keys()
    save_file(tensors, tmp_path / "bare")
    with pytest.raises(ValueError, match="bare is no minicvae model"):
        mc.load(tmp_path / "bare")


# The rest of the face


def test_the_summary_is_printed_and_returned(capsys):
    text = small().summary()
    assert capsys.readouterr().out == text + "\n"


def test_the_configuration_is_plain_data():
    import json

    config = small("embedding").config
    assert json.loads(json.dumps(config)) == config
    assert config["preset"] == "embedding"
    assert config["encoder"]["type"] == "Pathways"


def test_evaluate_and_fit_are_the_functions_of_their_rooms():
    from minicvae.evaluate import evaluate
    from minicvae.training import fit

    x, c = np.random.default_rng(0).random((6, 3, 3)), [0, 1, 2, 3, 4, 5]
    one, other = small(), small()
    assert one.evaluate(x, c, seed=3) == evaluate(other, x, c, seed=3)
    one.fit(x, c, epochs=1, verbose=0)
    fit(other, x, c, epochs=1, verbose=0)
    assert_same(one, other)


def test_a_file_of_a_training_is_not_taken_for_a_model(tmp_path):
    model = mc.build("mlp-small", image_shape=(4, 4), device="numpy")
    x, y = np.zeros((6, 4, 4), np.uint8), np.arange(6)
    model.fit(x, y, epochs=1, verbose=0, checkpoint=tmp_path / "training.safetensors")
    with pytest.raises(ValueError, match="holds a training, not a model"):
        mc.load(tmp_path / "training.safetensors")


def test_an_unknown_device_is_not_the_files_fault(tmp_path):
    mc.build("mlp-small", image_shape=(4, 4), device="numpy").save(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"^device: expected one of"):
        mc.load(tmp_path / "model.safetensors", device="gpu")
