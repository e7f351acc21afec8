"""The diagnostics, each on data of which the answer is known."""

import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial import distance as scipy_distance

import minicvae as mc
from minicvae import diagnostics
from minicvae.classifier import Classifier
from minicvae.conditions import Vector
from minicvae.diagnostics import (
    ACTIVE,
    COPIED,
    Diagnosis,
    Pair,
    diagnose,
    information,
    kl_by_dimension,
    label_probe,
    nearest,
    spread_within,
)
from minicvae.layers import Dense

seeds = st.integers(0, 2**32 - 1)


def posteriors(n, l, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, l)), rng.standard_normal((n, l)) - 1


# The latent


@given(n=st.integers(1, 5), l=st.integers(1, 4), seed=seeds)
def test_the_kl_of_each_dimension_is_the_mean_of_the_closed_form(n, l, seed):
    mean, log_var = posteriors(n, l, seed)
    expected = [np.mean((np.exp(log_var[:, j]) + mean[:, j] ** 2 - 1 - log_var[:, j]) / 2) for j in range(l)]
    np.testing.assert_allclose(kl_by_dimension(mean, log_var), expected, rtol=1e-12)


def test_a_dimension_that_ignores_the_image_tells_nothing():
    mean, log_var = np.full((50, 2), [0.0, 3.0]), np.full((50, 2), [0.0, -2.0])
    np.testing.assert_allclose(information(mean, log_var, np.zeros(50)), 0, atol=1e-12)


def test_a_dimension_that_only_knows_the_class_tells_nothing_once_the_class_is_given():
    groups = np.arange(60) % 3
    mean, log_var = 10.0 * groups[:, None], np.full((60, 1), -2.0)
    np.testing.assert_allclose(information(mean, log_var, groups), 0, atol=1e-12)
    assert information(mean, log_var, np.zeros(60))[0] == pytest.approx(np.log(3), abs=1e-6)


def test_a_dimension_that_knows_every_image_tells_which_it_is():
    groups = np.arange(40) % 4
    mean, log_var = 10.0 * np.arange(40)[:, None], np.full((40, 1), -4.0)
    assert information(mean, log_var, groups)[0] == pytest.approx(np.log(10), abs=1e-6)


def test_the_information_of_a_gaussian_channel_is_that_of_shannon():
    """x ~ N(0, 1), z = x + N(0, v): I = ½ log(1 + 1/v); two dimensions, told apart."""
    n, v = 4000, np.array([0.5, 3.0])
    mean = np.random.default_rng(0).standard_normal((n, 2))
    found = information(mean, np.tile(np.log(v), (n, 1)), np.zeros(n))
    np.testing.assert_allclose(found, np.log1p(1 / v) / 2, atol=0.03)


def test_many_images_of_a_class_are_worked_on_in_batches_that_do_not_show(monkeypatch):
    mean, log_var = posteriors(30, 2)
    groups = np.arange(30) % 2
    whole = information(mean, log_var, groups, seed=3)
    monkeypatch.setattr(diagnostics, "BATCH", 4)
    np.testing.assert_allclose(information(mean, log_var, groups, seed=3), whole, rtol=1e-12)


@given(seed=seeds)
def test_the_information_is_the_mean_log_ratio_of_the_densities(seed):
    mean, log_var = posteriors(7, 2, seed)
    groups = np.array([0, 1, 0, 0, 1, 1, 0])
    noise = mc.randomness.standard_normal((7, 2), np.float64, 5, mc.randomness.Purpose.DIAGNOSE)
    z, sd, gains = mean + np.exp(log_var / 2) * noise, np.exp(log_var / 2), np.zeros((7, 2))
    for i in range(7):
        same = groups == groups[i]
        aggregate = stats.norm.pdf(z[i], mean[same], sd[same]).mean(axis=0)
        gains[i] = stats.norm.logpdf(z[i], mean[i], sd[i]) - np.log(aggregate)
    np.testing.assert_allclose(information(mean, log_var, groups, seed=5), gains.mean(axis=0), rtol=1e-8, atol=1e-10)


def test_a_probe_reads_the_label_where_it_is_and_guesses_where_it_is_not():
    rng, groups = np.random.default_rng(0), np.random.default_rng(1).choice([2, 5, 9], 900, p=[0.5, 0.25, 0.25])
    log_var = np.full((900, 2), -4.0)
    told = np.array([[0.0, 2.0], [2.0, 0.0], [-2.0, -2.0]])[np.searchsorted([2, 5, 9], groups)]
    found = label_probe(told, log_var, groups)
    assert found.found > 0.98
    assert found.reference == pytest.approx(0.5, abs=0.06)
    found = label_probe(rng.standard_normal((900, 2)), log_var, groups)
    assert found.found == pytest.approx(found.reference, abs=0.05)


def test_a_probe_reads_z_with_the_noise_of_the_posterior_and_not_its_mean():
    """Two classes at ±1 with the standard deviation 2: nobody can be right more often than Φ(1/2)."""
    groups = np.arange(8000) % 2
    found = label_probe(2.0 * groups[:, None] - 1, np.full((8000, 1), np.log(4.0)), groups)
    assert found.found == pytest.approx(stats.norm.cdf(0.5), abs=0.03)
    assert found.reference == pytest.approx(0.5, abs=0.03)


# The pictures


@given(seed=seeds, kind=st.sampled_from(["uint8", "float32"]))
def test_the_spread_is_the_mean_distance_of_all_pairs_of_a_class(seed, kind):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (9, 2, 3), np.uint8)
    pixels = images.reshape(9, 6) / 255
    groups = np.array([3, 1, 3, 1, 1, 8, 7, 8, 1])
    found = spread_within(images if kind == "uint8" else pixels.astype(np.float32), groups)
    expected = [scipy_distance.pdist(pixels[groups == g]).mean() if g != 7 else np.nan for g in (1, 3, 7, 8)]
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_equal_images_have_no_spread():
    images = np.random.default_rng(0).random((1, 784), np.float32).repeat(20, axis=0)
    assert spread_within(images, np.zeros(20))[0] < 0.02


@given(seed=seeds, n=st.integers(1, 4), m=st.integers(1, 9))
def test_the_nearest_image_is_the_nearest_of_all(seed, n, m):
    rng = np.random.default_rng(seed)
    images, among = rng.random((n, 5)), rng.integers(0, 256, (m, 5), np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diagnostics, "batches", lambda n, size: mc.models.base.batches(n, 2))
        found, distance = nearest(images, among)
    expected = scipy_distance.cdist(images, among / 255)
    np.testing.assert_allclose(distance, expected.min(axis=1), rtol=1e-5)
    np.testing.assert_allclose(expected[np.arange(n), found], expected.min(axis=1), rtol=1e-5)


def test_a_copy_is_at_no_distance():
    among = np.random.default_rng(0).integers(0, 256, (50, 28, 28), np.uint8)
    found, distance = nearest(among[[7, 3]], among)
    assert found.tolist() == [7, 3]
    assert distance.tolist() == [0, 0]


# All of it


def small(**settings):
    sizes = {"image_shape": (4, 4), "encoder_widths": (16,), "decoder_widths": (16,), "latent_dim": 3}
    return mc.build("mlp", device="numpy", **sizes | settings)


def stripes(n, seed):
    rng = np.random.default_rng(seed)
    c = rng.integers(0, 3, n)
    x = rng.integers(0, 200, (n, 4, 4), np.uint8)
    x[np.arange(n), c] = 255
    return x, c


def test_a_model_is_diagnosed_and_the_table_holds_every_number():
    model, (x, c), (training, _) = small(classes=3), stripes(60, 0), stripes(90, 1)
    classifier = Classifier(Dense(16, 3), device="numpy")
    found = diagnose(model, x, c, training=training, classifier=classifier, seed=2)
    mean, log_var = model.encode(x, c)
    generated = model.generate(c, seed=2)
    np.testing.assert_allclose(found.kl, kl_by_dimension(mean, log_var))
    np.testing.assert_allclose(found.information, information(mean, log_var, c, seed=2))
    np.testing.assert_allclose(found.variance, mean.var(axis=0), rtol=1e-5)
    assert found.leakage == label_probe(mean, log_var, c, seed=2)
    assert found.spread == pytest.approx((spread_within(generated, c).mean(), spread_within(x, c).mean()))
    assert found.nearest_real == pytest.approx([nearest(images, training)[1].mean() for images in (generated, x)])
    assert found.copied.reference == pytest.approx(nearest(generated, x)[1].mean())
    assert found.nearest_real.found < found.copied.found  # among 90 training images, and among 60 of them
    each = np.repeat([0, 1, 2], 1000)
    drawn = model.generate(each, seed=2)
    assert found.recognised == (classifier.accuracy(drawn, each), classifier.accuracy(x, c))
    text = str(found)
    for value in (*found.kl, *found.information, *found.variance):
        assert f"{value:.3f}" in text
    for pair in (found.spread, found.nearest_real, found.copied):
        assert f"{pair.found:.2f}" in text
        assert f"{pair.reference:.2f}" in text
    assert all(sentence in text for sentence in found.words())
    data = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert [entry["kl"] for entry in data["dimensions"]] == found.kl.tolist()
    assert data["leakage"] == {"found": found.leakage.found, "reference": found.leakage.reference}
    assert data["words"] == found.words()
    again = diagnose(model, x, c, training=training, classifier=classifier, seed=2)
    assert again.as_dict() == found.as_dict()


@pytest.mark.parametrize("seen", [20, 50])
def test_generated_images_are_held_to_as_many_unseen_images_as_there_are_training_images(seen):
    model, (x, c), (training, _) = small(classes=3), stripes(30, 0), stripes(seen, 1)
    found, generated = diagnose(model, x, c, training=training, seed=2), model.generate(c, seed=2)
    assert found.copied.reference == pytest.approx(nearest(generated, x[:seen])[1].mean())
    assert (found.copied.found == pytest.approx(found.nearest_real.found)) == (seen <= 30)


def test_as_many_images_of_each_class_are_generated_for_the_classifier_whatever_else_is_asked_for(monkeypatch):
    monkeypatch.setattr(diagnostics, "EACH", 5)
    condition = mc.conditions.Parts({"stripe": mc.conditions.Classes(3), "slant": Vector(1)})
    model, (x, c) = small(condition=condition), stripes(60, 0)
    slants = np.arange(60.0)[:, None]
    seen = []

    class Watching(Classifier):
        def accuracy(self, x, labels):
            seen.append(labels)
            return super().accuracy(x, labels)

    asked = []
    model.generate = lambda c, seed: asked.append(c) or type(model).generate(model, c, seed=seed)
    diagnose(model, x, {"stripe": c, "slant": slants}, classifier=Watching(Dense(16, 3), device="numpy"))
    assert seen[0].tolist() == asked[1]["stripe"].tolist() == [0] * 5 + [1] * 5 + [2] * 5
    for stripe, slant in zip(asked[1]["stripe"], asked[1]["slant"][:, 0], strict=True):
        assert c[int(slant)] == stripe  # a class's own entries, whole


def test_what_there_is_no_data_for_is_left_out():
    model = small(condition=Vector(2))
    found = diagnose(model, stripes(20, 0)[0], np.random.default_rng(0).standard_normal((20, 2)))
    assert found.leakage is found.nearest_real is found.copied is found.recognised is None
    assert "probe" not in str(found)
    assert found.as_dict()["leakage"] is None


def test_a_model_that_has_collapsed_is_said_to_have_collapsed():
    x, c = stripes(400, 0)
    found = {}
    for beta in (1e-3, 50.0):
        model = small(classes=3, beta=beta)
        model.fit(x, c, epochs=60, batch_size=40, learning_rate=5e-3, verbose=0)
        found[beta] = diagnose(model, *stripes(200, 1))
    assert found[50.0].words()[0].startswith("The latent has collapsed")
    assert not found[50.0].active.any()
    assert found[50.0].kl.sum() < 0.05
    assert any("much alike" in sentence for sentence in found[50.0].words())
    assert found[1e-3].words()[0] == "All 3 dimensions of z are in use."
    assert not any("alike" in sentence for sentence in found[1e-3].words())


def test_copies_are_said_to_be_copies():
    (x, c), (training, _) = stripes(40, 0), stripes(40, 1)
    model = small(classes=3)
    model.generate = lambda c, seed: training / 255
    words = diagnose(model, x, c, training=training).words()
    assert any(sentence.startswith("The generated images are copies") for sentence in words)
    model.generate = lambda c, seed: stripes(40, 2)[0] / 255
    assert "The generated images are no copies" in " ".join(diagnose(model, x, c, training=training).words())


def known(**changes):
    numbers = np.array([0.5, 0.0])
    settings = {"kl": numbers, "information": numbers, "variance": numbers, "leakage": None, "spread": Pair(1.0, 1.0)}
    return Diagnosis(**settings | {"nearest_real": None, "copied": None, "recognised": None} | changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "1 of 2 dimensions of z are unused: the decoder ignores them."),
        ({"variance": np.array([0.1, 0.02])}, "All 2 dimensions of z are in use."),
        (
            {"leakage": Pair(0.5, 0.1)},
            "z repeats the label: a linear probe of z names it in 50% of all cases (chance 10%).",
        ),
        (
            {"leakage": Pair(0.2, 0.1)},
            "z hardly knows the label: a linear probe names it in 20% of all cases (chance 10%).",
        ),
        ({"recognised": Pair(0.5, 1.0)}, "Only 50% of the generated images show the class that was asked for."),
    ],
)
def test_the_words_say_what_the_numbers_mean(changes, sentence):
    assert sentence in known(**changes).words()
    assert len(known(**changes).words()) <= 2


@given(l=st.integers(1, 9), data=st.data())
def test_the_unused_dimensions_are_counted(l, data):
    active = data.draw(st.integers(1, l))
    variance = np.random.default_rng(l).permutation(np.where(np.arange(l) < active, 0.5, ACTIVE))
    words = known(kl=variance, variance=variance).words()[0]
    whole = f"All {l} dimensions of z are" if l > 1 else "The one dimension of z is"
    assert words.startswith(f"{l - active} of {l} dimensions" if active < l else whole)


shares = st.floats(0.01, 1)


@example(reference=1.0, share=0.5)
@example(reference=1.0, share=0.9)
@given(reference=shares, share=st.floats(0.01, 3).filter(lambda share: min(abs(share - x) for x in (0.5, 0.9)) > 1e-6))
def test_the_words_judge_by_the_share_of_what_real_images_give(reference, share):
    pair = Pair(share * reference, reference)
    assert any("much alike" in sentence for sentence in known(spread=pair).words()) == (share < 0.5)
    assert any("asked for" in sentence for sentence in known(recognised=pair).words()) == (share <= 0.9)


@given(real=st.floats(0.1, 10), share=st.floats(0.01, 0.49))
def test_images_that_are_much_alike_are_compared_with_real_ones(real, share):
    generated = share * real
    (sentence,) = known(spread=Pair(generated, real)).words()[1:]
    assert f"they lie {generated / real:.0%} as far apart as real ones" in sentence


@example(chance=0.0, way=0.2)
@given(chance=st.floats(0, 0.9), way=st.floats(0, 1).filter(lambda way: abs(way - 0.2) > 1e-6))
def test_z_repeats_the_label_from_a_fifth_of_the_way_on_that_leads_from_chance_to_certainty(chance, way):
    words = known(leakage=Pair(chance + way * (1 - chance), chance)).words()[1]
    assert words.startswith("z repeats" if way > 0.2 else "z hardly knows")


@example(far=1.0, share=COPIED)
@given(far=st.floats(0.1, 10), share=st.floats(0, 2).filter(lambda share: abs(share - COPIED) > 1e-6))
def test_copies_are_much_nearer_to_training_images_than_to_as_many_unseen_ones(far, share):
    words = known(copied=Pair(share * far, far)).words()[1]
    assert words.startswith("The generated images are copies" if share < COPIED else "The generated images are no")


@given(kl=st.lists(st.floats(0, 9), min_size=1, max_size=6, unique_by=lambda x: round(x, 2)))
def test_the_table_begins_with_the_dimension_of_the_largest_kl(kl):
    numbers = np.array(kl)
    lines = str(known(kl=numbers, information=numbers, variance=numbers)).splitlines()
    order = [int(line[2:].split("]")[0]) for line in lines if line.startswith("z[")]
    assert order == np.argsort(-numbers).tolist()


def test_of_two_classes_a_label_can_be_read_and_of_one_it_cannot():
    model, (x, c) = small(classes=3), stripes(60, 0)
    assert diagnose(model, x, np.minimum(c, 1)).leakage is not None
    assert diagnose(model, x, np.zeros_like(c)).leakage is None


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match=r"^x: expected at least two images, got 1"):
        diagnose(small(), np.zeros((1, 4, 4)), [0])
    with pytest.raises(ValueError, match=r"^c: expected labels 0 to 9, got 10 at index 1"):
        diagnose(small(), np.zeros((2, 4, 4)), [0, 10])


def test_training_images_of_another_scale_or_shape_are_refused():
    model = mc.build("mlp-small", image_shape=(4, 4), device="numpy")
    x, y = np.zeros((12, 4, 4), np.uint8), np.arange(12) % 10
    for training in (np.full((5, 4, 4), 255.0), np.zeros((5, 3, 3)), np.zeros((0, 4, 4))):
        with pytest.raises(ValueError, match=r"^training: "):
            mc.diagnostics.diagnose(model, x, y, training=training)


def test_where_no_class_has_two_images_nothing_is_said_of_their_distances():
    model = mc.build("mlp", image_shape=(2, 2), encoder_widths=(4,), decoder_widths=(4,), latent_dim=2, device="numpy")
    found = diagnose(model, np.zeros((10, 2, 2)), np.arange(10))
    assert found.spread is None
    assert "distance within a class" not in str(found)
    json.dumps(found.as_dict(), allow_nan=False)


def test_images_of_a_class_that_are_all_equal_have_nothing_to_be_compared_with():
    assert known(spread=Pair(1.0, 0.0)).words() == known().words()
    assert known(spread=Pair(0.0, 0.0)).words() == known().words()
