"""The classifier: its gradient, what it learns, its shifted images, and the file that keeps it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minicvae as mc
from minicvae import classifier as module
from minicvae.classifier import Classifier, digit_network, shifted, trained_on
from minicvae.gradcheck import check_gradients
from minicvae.layers import Conv2D, Dense

SHAPE = (8, 9)


def bars(n, seed=0):
    """(x uint8, labels): a bar at the left, in the middle or at the right, with noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    x = rng.integers(0, 60, (n, *SHAPE), np.uint8)
    for image, label in zip(x, labels, strict=True):
        image[:, 3 * label : 3 * label + 2] = 220
    return x, labels


@pytest.mark.parametrize("network", [lambda: Dense(72, 3), lambda: digit_network(SHAPE, 3)], ids=["linear", "digits"])
def test_every_gradient_is_the_slope(host, network):
    classifier = Classifier(network(), dtype="float64", device=host.name, seed=1)
    rng = np.random.default_rng(0)
    for name, value in classifier.parameters.items():
        if name.endswith("b"):
            classifier.parameters[name] = 0.1 * rng.standard_normal(value.shape)
    x, labels = rng.random((4, 72)), np.array([0, 2, 1, 2])

    def forward():
        loss, backward = classifier.loss_and_backward(x, labels)

        def scaled(dy):
            classifier.parameters.zero_grad()
            backward()
            found.update({name: dy * g for name, g in classifier.parameters.grads.items()})

        return loss, scaled

    found = {}
    report = check_gradients(forward, (), dict(classifier.parameters), found, elements=6, method="differences")
    assert report.ok, str(report)
    assert all(row.checked for row in report.rows if row.name != "together")


def test_the_loss_is_the_mean_cross_entropy_in_nats(device):
    classifier = Classifier(Dense(2, 2), dtype="float64", device=device)
    classifier.parameters["W"], classifier.parameters["b"] = np.eye(2), np.array([0.0, 1.0])
    x, labels = classifier.kernels.array(np.array([[1.0, 0.0], [0.0, 2.0]])), classifier.kernels.array(np.array([0, 0]))
    loss, _ = classifier.loss_and_backward(x, labels)
    assert loss == pytest.approx((np.log(2) + np.log(1 + np.exp(3))) / 2)


def test_it_learns_what_can_be_learnt_and_repeats_itself(device):
    (x, labels), (unseen, answers) = bars(300), bars(100, seed=1)
    found = []
    for seed in (0, 0, 1):
        classifier = Classifier(digit_network(SHAPE, 3), device=device, seed=seed)
        losses = classifier.fit(x, labels, epochs=3, learning_rate=3e-3, shift=1, seed=seed)
        assert len(losses) == 3
        assert losses[-1] < losses[0] / 2
        assert classifier.accuracy(unseen, answers) > 0.95
        found.append(losses)
    assert found[0] == found[1] != found[2]


def test_the_losses_are_the_means_over_all_examples(device):
    x, labels = bars(70)  # a whole batch and a rest
    classifier = Classifier(Dense(72, 3), dtype="float64", device=device)
    k = classifier.kernels
    expected, _ = classifier.loss_and_backward(k.array(x.reshape(70, 72) / 255), k.array(labels))
    assert classifier.fit(x, labels, epochs=2, learning_rate=1e-12) == pytest.approx([expected] * 2, rel=1e-6)


def test_the_rate_falls_along_a_cosine_over_all_steps(monkeypatch):
    rates = []
    monkeypatch.setattr(module.Adam, "start", lambda self, parameters, kernels: rates.append)
    Classifier(Dense(72, 3), device="numpy").fit(*bars(70), epochs=3, batch_size=30, learning_rate=0.5)
    np.testing.assert_allclose(rates, 0.5 * (1 + np.cos(np.pi * np.arange(9) / 9)) / 2)


def test_chance_is_all_there_is_to_learn_from_noise():
    rng = np.random.default_rng(0)
    classifier = Classifier(Dense(3, 4), device="numpy")
    classifier.fit(rng.standard_normal((2000, 3)), rng.integers(0, 4, 2000), epochs=5)
    assert classifier.accuracy(rng.standard_normal((2000, 3)), rng.integers(0, 4, 2000)) == pytest.approx(
        0.25, abs=0.05
    )


def test_accuracy_counts_over_all_batches():
    n = 2500
    classifier = Classifier(Dense(2, 2), device="numpy")
    classifier.parameters["W"] = np.eye(2)
    x = np.eye(2)[np.arange(n) % 2]
    np.testing.assert_array_equal(classifier.predict(x), np.arange(n) % 2)
    assert classifier.accuracy(x, np.where(np.arange(n) < 500, 1 - np.arange(n) % 2, np.arange(n) % 2)) == 0.8


@given(h=st.integers(1, 5), w=st.integers(1, 5), by=st.integers(1, 3), seed=st.integers(0, 1000))
def test_a_shifted_image_is_the_image_moved_with_nothing_but_black_around_it(h, w, by, seed):
    images = np.random.default_rng(seed).integers(1, 256, (6, h, w), np.uint8)
    before = images.copy()
    moved = shifted(images, by, np.random.default_rng(seed))
    np.testing.assert_array_equal(images, before)
    assert moved.shape == images.shape
    for image, other in zip(images, moved, strict=True):
        candidates = []
        for down in range(-by, by + 1):
            for right in range(-by, by + 1):
                candidate = np.zeros_like(image)
                rows, columns = (np.arange(size) for size in (h, w))
                to_rows, to_columns = rows[(rows - down >= 0) & (rows - down < h)], columns
                to_columns = columns[(columns - right >= 0) & (columns - right < w)]
                candidate[np.ix_(to_rows, to_columns)] = image[np.ix_(to_rows - down, to_columns - right)]
                candidates.append(candidate.tobytes())
        assert other.tobytes() in candidates


@pytest.mark.parametrize("by", [1, 2])
def test_every_shift_occurs(by):
    image = np.zeros((1000, 7, 7), np.uint8)
    image[:, 3, 3] = 1
    moved = shifted(image, by, np.random.default_rng(0)).sum(axis=0)
    within = moved[3 - by : 4 + by, 3 - by : 4 + by]
    assert (within > 10).all()
    assert moved.sum() == within.sum() == 1000


@given(h=st.integers(1, 12), w=st.integers(1, 12), classes=st.integers(2, 5))
def test_the_network_for_digits_is_the_one_that_is_described(h, w, classes):
    network = digit_network((h, w), classes)
    shapes = {name: value.shape for name, value in Classifier(network, device="numpy").parameters.items()}
    small = -(-h // 4) * -(-w // 4)  # two strides of 2, of which the edge gets a window too
    expected = [(5, 5, 1, 16), (16,), (3, 3, 16, 32), (32,), (32 * small, 128), (128,), (128, classes), (classes,)]
    assert list(shapes.values()) == expected
    activations = [layer.activation for layer in network.layers if isinstance(layer, (Conv2D, Dense))]
    assert activations == ["relu", "relu", "relu", "linear"]


def test_the_classifier_of_a_data_set_is_trained_once_and_then_read(tmp_path, monkeypatch):
    x, labels = bars(60)
    said = []
    first = trained_on(x, labels, device="numpy", cache=tmp_path, announce=lambda: said.append("training"))
    (file,) = tmp_path.iterdir()
    assert first.accuracy(x, labels) > 0.95
    assert list(first.parameters.values())[-1].shape == (3,)
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "fit", None)
        again = trained_on(x, labels, device="numpy", cache=tmp_path, announce=lambda: said.append("again"))
    assert said == ["training"]
    for name, value in first.parameters.items():
        np.testing.assert_array_equal(value, again.parameters[name])
    trained_on(x, (labels + 1) % 3, device="numpy", cache=tmp_path)
    trained_on(x[1:], labels[1:], device="numpy", cache=tmp_path)
    trained_on(x[::-1], labels, device="numpy", cache=tmp_path)
    trained_on(x, labels, epochs=1, device="numpy", cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 5
    file.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="damaged"):
        trained_on(x, labels, device="numpy", cache=tmp_path)


def test_a_classifier_that_an_older_version_has_kept_is_not_read_but_trained_anew(tmp_path, monkeypatch):
    x, labels = bars(20)
    with monkeypatch.context() as patch:
        patch.setattr(module.checkpoint, "FORMAT", "of old")
        trained_on(x, labels, epochs=1, device="numpy", cache=tmp_path)
    trained_on(x, labels, epochs=1, device="numpy", cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_more_than_99_percent_of_the_test_digits_are_recognised(tmp_path):
    train, test = mc.datasets.load("mnist")
    assert trained_on(train.x, train.y, cache=tmp_path).accuracy(test.x, test.y) > 0.99


def test_a_classifier_that_cannot_be_kept_is_not_lost(tmp_path):
    x, labels = bars(20)
    (tmp_path / "file").write_text("no folder")
    with pytest.warns(UserWarning, match="the classifier could not be kept for another time: ") as given:
        found = trained_on(x, labels, epochs=1, device="numpy", cache=tmp_path / "file")
    assert given[0].filename == __file__  # where it was asked for
    assert found.accuracy(x, labels) > 0
