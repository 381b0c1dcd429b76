"""Intervals of accuracies: how far chance in the choice of the test images moves them.

Source: Efron and Tibshirani 1993, "An introduction to the bootstrap", chapter 13: percentile
intervals.
"""

from typing import NamedTuple

import numpy as np

from purenoise_jax.training.metrics import ClassResults

RESAMPLES, LEVEL = 2000, 0.95
# With more classes than MANY there are fewer resamples, because each takes longer.
MANY, FEWER = 1000, 500
# Numbers that are drawn at a time.
CHUNK = 1 << 22


class Interval(NamedTuple):
    """The ends of an interval of a share in [0, 1]."""

    low: float
    high: float


class Intervals(NamedTuple):
    """95 % intervals of accuracies over the test images.

    They contain the chance in the choice of the test images, and not that of the training.

    Attributes:
        accuracy: of all images.
        balanced_accuracy: of the mean over the classes.
        per_class: K intervals; None without test images.
    """

    accuracy: Interval
    balanced_accuracy: Interval
    per_class: list[Interval | None]


def bootstrap(results: ClassResults, seed: int = 0) -> Intervals:
    """Draws test sets of the same size from the test images with replacement, `RESAMPLES` times.

    An accuracy depends only on the class of each image and on its being right, so the counts of
    these 2K kinds of images are drawn. A class that a resample does not contain is left out of it.

    DEVIATION: all resamples of images that are never or always right are alike, so the interval
    would be a point. Their accuracy has the exact one of Clopper and Pearson 1934 instead.

    Args:
        results: by class; at least one image.
        seed: of the draws.
    """
    images, correct = (np.asarray(part, np.int64) for part in results[:2])
    total, classes = int(images.sum()), len(images)
    kinds = np.concatenate([correct, images - correct]) / total
    rng = np.random.default_rng(seed)
    resamples = RESAMPLES if classes <= MANY else FEWER
    shares = np.full((resamples, classes), np.nan, np.float32)
    accuracy = np.empty(resamples)
    size = max(CHUNK // (2 * classes), 1)
    for first in range(0, resamples, size):
        part = slice(first, min(first + size, resamples))
        drawn = rng.multinomial(total, kinds, size=part.stop - first)
        right, number = drawn[:, :classes], drawn[:, :classes] + drawn[:, classes:]
        accuracy[part] = right.sum(axis=1) / total
        np.divide(right, number, out=shares[part], where=number > 0, casting="unsafe")
    balanced = np.nanmean(shares, axis=1)
    return Intervals(
        _of_share(accuracy, total, int(correct.sum())),
        _interval(balanced),
        [
            _of_share(shares[:, k], int(images[k]), int(correct[k])) if images[k] else None
            for k in range(classes)
        ],
    )


def _interval(values: np.ndarray) -> Interval:
    low, high = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def _of_share(shares: np.ndarray, images: int, correct: int) -> Interval:
    if 0 < correct < images:
        return _interval(shares)
    lost = ((1 - LEVEL) / 2) ** (1 / images)
    return Interval(lost, 1.0) if correct else Interval(0.0, 1 - lost)
