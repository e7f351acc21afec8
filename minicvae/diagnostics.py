"""What a trained CVAE does with its latent, and what its pictures are worth: numbers, a table, and words.

`diagnose` measures all of it on images that the model was not trained on. Each measure is a function of plain arrays:

    does z say anything?            kl_by_dimension, information, and the variance of the posterior means
    does z repeat the label?        label_probe
    are the pictures varied?        spread_within
    are they copies?                nearest

mean and log_var (n, l) are those of q(z|x,c); groups (n,) are numbers, equal where the conditions name the same class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from minicvae import conditions
from minicvae.classifier import Classifier
from minicvae.kernels import Reference
from minicvae.layers import Dense
from minicvae.models.base import BATCH, batches
from minicvae.models.border import check_images
from minicvae.models.cvae import ConditionalVAE
from minicvae.randomness import Purpose, generator, standard_normal
from minicvae.tables import table

__all__ = [
    "ACTIVE",
    "Diagnosis",
    "Pair",
    "diagnose",
    "information",
    "kl_by_dimension",
    "label_probe",
    "nearest",
    "spread_within",
]

ACTIVE = 0.01  # variance of the posterior mean above which a dimension counts as active: Burda et al. 2016, section 5
EACH = 1000  # images generated of each class that a classifier is to recognise
NEIGHBOURS = 1000  # generated images whose nearest neighbours are looked for
COPIED = 0.8  # of the distance to unseen images: who is so much nearer to the training images has copied them


class Pair(NamedTuple):
    """A measure, and the same measure of what it is to be compared with."""

    found: float
    reference: float


def kl_by_dimension(mean: np.ndarray, log_var: np.ndarray) -> np.ndarray:
    """mean_n KL(q(z_j|x_n,c_n) ‖ N(0, 1)) for each dimension j, in closed form; (l,) nats."""
    return Reference().kl_standard(mean, log_var)[0].mean(axis=0, dtype=np.float64)


def information(mean: np.ndarray, log_var: np.ndarray, groups: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """I(x; z_j | c) for each dimension j: what z_j tells about an image whose class is known; (l,) nats.

        I = E[log q(z_j|x,c) - log q(z_j|c)],   q(z_j|c) = 1/N_c Σ over the N_c images x_m of class c of q(z_j|x_m,c)

    Estimated with one z_j ~ q(z_j|x_n,c_n) for each image. The image itself is one of the N_c, so the estimate is 0
    where z_j ignores x, and never above log N_c, which it approaches from below where the truth lies beyond. Its
    difference from the KL is KL(q(z_j|c) ‖ p(z_j)), how far the class's own aggregate lies from the prior. Where no
    class is given all images are one group, and I is that of (x, c) and z_j. Hoffman and Johnson 2016.
    """
    mean, log_var = mean.astype(np.float64), log_var.astype(np.float64)
    z = mean + np.exp(log_var / 2) * standard_normal(mean.shape, np.float64, seed, Purpose.DIAGNOSE)

    def log_density(z: np.ndarray, mean: np.ndarray, log_var: np.ndarray) -> np.ndarray:
        return -((z - mean) ** 2 * np.exp(-log_var) + log_var) / 2  # up to a constant, which cancels

    own, kernels = log_density(z, mean, log_var), Reference()
    gain = np.empty_like(z)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        for rows in batches(len(members), BATCH):
            some = members[rows]
            for j in range(z.shape[1]):
                each = log_density(z[None, some, j], mean[members, None, j], log_var[members, None, j])
                gain[some, j] = own[some, j] - kernels.log_mean_exp(each)[0]
    return gain.mean(axis=0)


def label_probe(mean: np.ndarray, log_var: np.ndarray, groups: np.ndarray, *, seed: int = 0) -> Pair:
    """Accuracy of a linear classifier that is given z alone, and that of always naming the commonest class.

    softmax(z W + b), fitted by cross-entropy to z ~ q(z|x,c) of one half of the images and scored on the other. The
    decoder is told the class anyway, so the capacity of z is best spent on all else: the nearer to chance, the better.
    """
    noise = standard_normal(mean.shape, mean.dtype, seed, Purpose.DIAGNOSE)
    z = mean + np.exp(log_var / 2) * noise
    _, labels = np.unique(groups, return_inverse=True)
    fitted, scored = np.array_split(generator(seed, Purpose.DIAGNOSE, step=1).permutation(len(z)), 2)
    probe = Classifier(Dense(z.shape[1], int(labels.max()) + 1), dtype="float64", device="numpy", seed=seed)
    probe.fit(z[fitted], labels[fitted], epochs=20, learning_rate=0.02, seed=seed)
    commonest = np.bincount(labels[fitted]).argmax()
    return Pair(probe.accuracy(z[scored], labels[scored]), float((labels[scored] == commonest).mean()))


def spread_within(images: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Mean Euclidean distance between two images of a class, for each class in order; NaN for fewer than two images.

    images (n, ...) uint8, or floats in [0, 1]; the distance is of pixels in [0, 1]. Of a class with more than `BATCH`
    images, the first so many.
    """
    spread = []
    for group in np.unique(groups):
        members = images[groups == group][:BATCH]
        n, distances = len(members), _distances(members, members)
        np.fill_diagonal(distances, 0)  # where rounding leaves a little
        spread.append(distances.sum() / (n * (n - 1)) if n > 1 else np.nan)
    return np.array(spread)


def nearest(images: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of the images, which of `among` is nearest and its Euclidean distance; (n,) indices, (n,) distances.

    images (n, ...), among (m, ...), each uint8, or floats in [0, 1]; the distance is of pixels in [0, 1].
    """
    found, least = np.zeros(len(images), np.int64), np.full(len(images), np.inf)
    for rows in batches(len(among), 10 * BATCH):
        distances = _distances(images, among[rows])
        best = distances.argmin(axis=1)
        closer = distances[np.arange(len(images)), best] < least
        found[closer], least[closer] = rows.start + best[closer], distances[closer, best[closer]]
    gap = (_as_floats(images) - _as_floats(among[found])).reshape(len(images), -1)
    return found, np.sqrt((gap * gap).sum(axis=1, dtype=np.float64))  # exact, also for an image and its copy


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """‖a_i - b_j‖ = √(‖a_i‖² + ‖b_j‖² - 2 a_i·b_j), (n, m): one matrix product in place of n m differences."""
    a, b = (_as_floats(part).reshape(len(part), -1) for part in (a, b))
    square = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2 * (a @ b.T)
    return np.sqrt(np.maximum(square, 0))


def _as_floats(images: np.ndarray) -> np.ndarray:
    return images / np.float32(255) if images.dtype == np.uint8 else images


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found; `str()` is a table with words below it, `as_dict()` JSON data.

    kl, information, variance: of each dimension of z, (l,): nats, nats, and the variance of the posterior mean.
    leakage: accuracy of `label_probe`, and chance; None without classes.
    spread: `spread_within`, mean over the classes, of generated images and of real ones. A generated image is E[x|z,c],
    smoother than a real one and so a little less spread even where nothing is wrong. None without two of a class.
    copied: mean distance of generated images to the nearest of the training images, and to the nearest of as many that
    the model never saw. nearest_real: that of unseen real images to the nearest of all training images, beside that of
    generated ones. None without training images.
    recognised: share of generated images, `EACH` of every class, in which a classifier sees the class that was asked
    for, and of real images; None without a classifier.
    """

    kl: np.ndarray
    information: np.ndarray
    variance: np.ndarray
    leakage: Pair | None
    spread: Pair | None
    nearest_real: Pair | None
    copied: Pair | None
    recognised: Pair | None

    @property
    def active(self) -> np.ndarray:
        """Which dimensions are active: those whose posterior mean has a variance above `ACTIVE`; (l,) bool."""
        return self.variance > ACTIVE

    def words(self) -> list[str]:
        """What the numbers mean, a sentence each."""
        said = self._collapse(), self._leak(), self._sameness(), self._copying(), self._obedience()
        return [sentence for sentence in said if sentence]

    def _collapse(self) -> str:
        active, l = int(self.active.sum()), len(self.kl)
        if active == 0:
            return (
                "The latent has collapsed: the posterior is the same for every image, so z says nothing and the "
                "decoder draws one picture for each condition. Try a lower beta, KL annealing or free bits."
            )
        if active < l:
            return f"{l - active} of {l} dimensions of z are unused: the decoder ignores them."
        return f"All {l} dimensions of z are in use." if l > 1 else "The one dimension of z is in use."

    def _leak(self) -> str:
        if self.leakage is None:
            return ""
        found, chance = self.leakage
        if found > chance + 0.2 * (1 - chance):
            return (
                f"z repeats the label: a linear probe of z names it in {found:.0%} of all cases (chance {chance:.0%})."
            )
        return f"z hardly knows the label: a linear probe names it in {found:.0%} of all cases (chance {chance:.0%})."

    def _sameness(self) -> str:
        if self.spread is None:
            return ""
        generated, real = self.spread
        if not generated < 0.5 * real:
            return ""
        return (
            f"The generated images of a class are much alike: they lie {generated / real:.0%} as far apart as real "
            "ones, which is what mode collapse looks like."
        )

    def _copying(self) -> str:
        if self.copied is None:
            return ""
        near, far = self.copied
        if near < COPIED * far:
            return (
                f"The generated images are copies: they lie nearer to training images ({near:.2f}) than to as many "
                f"that the model never saw ({far:.2f})."
            )
        return "The generated images are no copies: images that the model never saw are as near to them."

    def _obedience(self) -> str:
        if self.recognised is None or self.recognised.found > 0.9 * self.recognised.reference:
            return ""
        return f"Only {self.recognised.found:.0%} of the generated images show the class that was asked for."

    def as_dict(self) -> dict[str, Any]:
        """All numbers and words as JSON data."""
        names = ("leakage", "spread", "nearest_real", "copied", "recognised")
        dimensions = zip(self.kl, self.information, self.variance, self.active, strict=True)
        return {
            "dimensions": [
                {"kl": float(kl), "information": float(known), "variance_of_mean": float(v), "active": bool(active)}
                for kl, known, v, active in dimensions
            ],
            "active_dimensions": int(self.active.sum()),
            **{name: pair and pair._asdict() for name in names for pair in [getattr(self, name)]},
            "words": self.words(),
        }

    def __str__(self) -> str:
        rows = [
            [f"z[{j}]", *(f"{v[j]:.3f}" for v in (self.kl, self.information, self.variance)), ["no", "yes"][active]]
            for j, active in sorted(enumerate(self.active.tolist()), key=lambda entry: -self.kl[entry[0]])
        ]
        total = ["all", f"{self.kl.sum():.3f}", "", "", f"{int(self.active.sum())} of {len(self.kl)}"]
        latent = table(["latent", "KL", "I(x; z | c)", "variance of mean", "active"], [*rows, total], "<>>>>")
        measures = [
            ("label read from z by a linear probe", self.leakage, "by chance", ".1%"),
            ("distance within a class, generated", self.spread, "real images", ".2f"),
            ("distance to the nearest training image", self.nearest_real, "unseen real images", ".2f"),
            ("the same, of fewer training images", self.copied, "as many unseen images", ".2f"),
            (f"recognised by a classifier, {EACH:,} a class", self.recognised, "real images", ".1%"),
        ]
        pictures = table(
            ["measure", "", "compared with", ""],
            [[name, f"{p.found:{form}}", to, f"{p.reference:{form}}"] for name, p, to, form in measures if p],
            "<><>",
        )
        return "\n\n".join([latent, pictures, "\n".join(self.words())])


def diagnose(
    model: ConditionalVAE,
    x: Any,
    c: Any,
    *,
    training: Any = None,
    classifier: Classifier | None = None,
    seed: int = 0,
) -> Diagnosis:
    """Measure the model on (x, c), which it was not trained on, and on images generated for the entries of c.

    One is generated for each entry; and for the classifier `EACH` of every class, evenly from its entries. training:
    the images that the model was trained on, to see whether it copies them. classifier: of the classes of c, to see
    whether it recognises what was asked for.

    Raises ValueError or TypeError for wrong x or c, or where x holds fewer than two images.
    """
    images, parts = model.check_data(x, c)
    if len(images) < 2:
        raise ValueError(f"x: expected at least two images, got {len(images)}")
    mean, log_var = model.encode(x, c)
    by_prior = model.encode(x, c, relative=True)  # mean and log_var as its own prior sees them
    generated = model.generate(c, seed=seed).reshape(images.shape)
    groups = conditions.groups(parts, model.kernels)
    classes = len(np.unique(groups))
    spreads = [spread_within(pictures, groups) for pictures in (generated, images)]
    some = generator(seed, Purpose.DIAGNOSE, step=2).permutation(len(images))[:NEIGHBOURS]
    near = copied = recognised = None
    if training is not None:
        seen = check_images(training, model.image_shape, "training")
        near = Pair(*(float(nearest(pictures[some], seen)[1].mean()) for pictures in (generated, images)))
        count = min(len(seen), len(images))
        fewer = seen[generator(seed, Purpose.DIAGNOSE, step=3).permutation(len(seen))[:count]]
        copied = Pair(*(float(nearest(generated[some], others)[1].mean()) for others in (fewer, images[:count])))
    if classifier is not None:
        evenly = np.concatenate([np.resize(np.flatnonzero(groups == group), EACH) for group in np.unique(groups)])
        drawn = model.generate(conditions.take(c, evenly), seed=seed)
        recognised = Pair(classifier.accuracy(drawn, groups[evenly]), classifier.accuracy(images, groups))
    return Diagnosis(
        kl_by_dimension(*by_prior),
        information(mean, log_var, groups, seed=seed),
        by_prior[0].var(axis=0, dtype=np.float64),
        label_probe(mean, log_var, groups, seed=seed) if classes > 1 else None,
        Pair(*(float(spread[~np.isnan(spread)].mean()) for spread in spreads)) if len(images) > classes else None,
        near,
        copied,
        recognised,
    )
