"""Image-conditioned models as users hold them: trained by the one loop, measured, saved and loaded."""

import numpy as np
import pytest

import minicvae as mc
from minicvae.objectives import ELBO

SHAPE = (4, 4)
HIDDEN = mc.masks.quadrants(1, SHAPE)


def data(n=60, seed=0):
    """Images whose upper left repeats the quadrant that is seen, and whose right half is black or white by a coin."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 2, (n, 2, 2))
    right = np.broadcast_to(rng.integers(0, 2, (n, 1, 1)), (n, 2, 2))
    return np.block([[corner, right], [corner, right]]).astype(float)


def built(device="cpu", seed=0, dtype="float32", **settings):
    baseline = mc.BaselineNet.build((12,), image_shape=SHAPE, device=device, seed=seed, dtype=dtype)
    return mc.ImageCVAE.build(baseline, (12,), **{"latent_dim": 3, "seed": seed} | settings)


def same_weights(one, other):
    return all(
        (a.kernels.to_numpy(a.parameters.value) == b.kernels.to_numpy(b.parameters.value)).all()
        for a, b in ((one, other), (one.baseline, other.baseline))
    )


def test_the_networks_are_those_of_the_protocol():
    model = mc.ImageCVAE.build(mc.BaselineNet.build())
    shapes = {name: value.shape for name, value in model.parameters.items() if name.endswith("W")}
    down = {"0.W": (784, 500), "1.W": (500, 500), "2.W": (500, 400)}
    up = {"0.W": (200, 500), "1.W": (500, 500), "2.W": (500, 784)}
    named = {"recognition": down, "prior": down, "generation": up}
    assert shapes == {f"{name}.{layer}": shape for name, layers in named.items() for layer, shape in layers.items()}
    assert [value.shape for name, value in model.baseline.parameters.items() if name.endswith("W")] == [
        (784, 500),
        (500, 500),
        (500, 784),
    ]
    seeing = mc.ImageCVAE.build(mc.BaselineNet.build(), view=True)
    assert seeing.parameters["generation.0.W"].shape == (984, 500)


@pytest.mark.many_draws
def test_the_one_loop_trains_both_and_the_cvae_learns_what_the_baseline_cannot(device):
    """A coin decides 8 hidden pixels: a single answer costs log 2 in each of them, a sampled one log 2 in all."""
    x, test, model = data(400), data(200, seed=1), built(device, dtype="float64", view=True)
    settings = {"epochs": 60, "batch_size": 20, "learning_rate": 5e-3, "verbose": 0}
    history = model.baseline.fit(x, HIDDEN, **settings).history
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    assert history["kl"] == [0.0] * 60
    before = model.baseline.parameters.value.copy()
    model.fit(x, HIDDEN, **settings)
    assert (model.baseline.parameters.value == before).all()
    single = model.baseline.evaluate(test, HIDDEN)["loss"]
    assert single == pytest.approx(8 * np.log(2), abs=0.8)
    scores = {
        name: model.negative_log_likelihood(test, HIDDEN, estimator=name, samples=50).mean()
        for name in ("bound", "prior", "importance")
    }
    assert scores["importance"] < scores["bound"] < single - 3
    assert scores["importance"] <= scores["prior"] + 0.2
    right = model.complete(test[:1], HIDDEN, samples=40)[:, 0, :, 2:]
    assert (right < 0.2).all(axis=(1, 2)).any()
    assert (right > 0.8).all(axis=(1, 2)).any()


def test_the_loop_stops_early_and_keeps_the_best_weights():
    x, test, model = data(20), data(40, seed=1), built()
    for one in (model.baseline, model):
        settings = {"epochs": 200, "batch_size": 5, "learning_rate": 1e-2, "early_stopping": 3, "verbose": 0}
        history = one.fit(x, HIDDEN, validation_data=(test, HIDDEN), **settings)
        losses = history.history["val_loss"]
        assert history.stopped == "early"
        assert len(losses) == losses.index(min(losses)) + 4
        assert one.evaluate(test, HIDDEN)["loss"] == pytest.approx(min(losses), rel=1e-6)


def test_the_same_seed_is_the_same_run_and_every_image_may_have_a_mask_of_its_own(device):
    x, hidden = data(30), mc.masks.random_rectangles(30, SHAPE)
    runs = []
    for seed in (0, 0, 1):
        model = built(device)
        model.fit(x, hidden, epochs=2, batch_size=8, seed=seed, verbose=0)
        runs.append(model.kernels.to_numpy(model.parameters.value))
    assert (runs[0] == runs[1]).all()
    assert (runs[0] != runs[2]).any()


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_the_gsnn_and_the_hybrid_train_too(alpha):
    x, model = data(100), built(alpha=alpha)
    before = model.parameters["recognition.0.W"].copy()
    history = model.fit(x, HIDDEN, epochs=8, batch_size=10, learning_rate=5e-3, verbose=0).history
    assert history["loss"][-1] < 0.9 * history["loss"][0]
    assert (model.parameters["recognition.0.W"] == before).all() == (alpha == 0)
    assert (history["kl"][-1] == 0) == (alpha == 0)


@pytest.mark.parametrize("settings", [{}, {"view": True, "alpha": 0.25, "objective": ELBO(0.5, samples=2)}])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_model_and_baseline_survive_being_saved_in_one_file(tmp_path, device, settings, dtype):
    model, x = built(device, seed=3, dtype=dtype, **settings), data(3)
    model.save(tmp_path / "m")
    back = mc.ImageCVAE.load(tmp_path / "m", device=device)
    assert same_weights(model, back)
    assert back.config == model.config
    np.testing.assert_array_equal(back.complete(x, HIDDEN, samples=2), model.complete(x, HIDDEN, samples=2))
    assert isinstance(back.baseline, mc.BaselineNet)
    model.baseline.save(tmp_path / "b")
    np.testing.assert_array_equal(
        mc.BaselineNet.load(tmp_path / "b", device=device).complete(x, HIDDEN), model.baseline.complete(x, HIDDEN)
    )


def test_a_file_of_another_kind_is_refused_by_name(tmp_path):
    model = built()
    model.save(tmp_path / "image")
    model.baseline.save(tmp_path / "baseline")
    mc.build("mlp", image_shape=SHAPE).save(tmp_path / "cvae")
    for load, name, kind in (
        (mc.load, "image", "ImageCVAE"),
        (mc.load, "baseline", "BaselineNet"),
        (mc.ImageCVAE.load, "cvae", "CVAE"),
        (mc.BaselineNet.load, "image", "ImageCVAE"),
    ):
        with pytest.raises(ValueError, match=f"holds a model of the kind {kind}, not .*: use {kind}.load"):
            load(tmp_path / name)


def test_wrong_masks_are_refused_before_anything_is_trained():
    x, model = data(5), built()
    before = model.parameters.value.copy()
    with pytest.raises(ValueError, match="hidden: expected a mask of shape"):
        model.fit(x, HIDDEN[:2], verbose=0)
    with pytest.raises(ValueError, match=r"validation_data\[1\]: expected a mask of shape"):
        model.fit(x, HIDDEN, validation_data=(x, HIDDEN[:2]), verbose=0)
    assert (model.parameters.value == before).all()
