"""Every reported number, from counts by class and the class counts of the training set.

A number that does not exist, such as the accuracy of a group without classes, is None.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

# Liu et al. 2019: many-shot classes have more than 100 training images, few-shot less than 20.
MANY, FEW = 100, 20
NUM_GROUPS = 5
# Name of the training images among the splits that are evaluated, as they are stored. Names that
# begin with "train/" are of training steps, with augmentation and before the step.
TRAINING_SET = "training_set"
# Classes whose logits are the largest; an image may have its own among them.
TOP = 5


class ClassResults(NamedTuple):
    """Results of an evaluation by class, each int[K].

    Attributes:
        images: test images of the class.
        correct: those of them whose predicted class is right.
        top5: those of them whose class is among the five with the largest logits; None = not
            counted.
    """

    images: np.ndarray
    correct: np.ndarray
    top5: np.ndarray | None = None


def recalls(results: ClassResults) -> list[float | None]:
    """Accuracy of every class, None where the test set has no image of it."""
    return [
        float(hit / total) if total else None
        for hit, total in zip(results.correct, results.images, strict=True)
    ]


def mean_of(values: Sequence[float | None]) -> float | None:
    """Mean of the values that exist; None without any."""
    there = [v for v in values if v is not None]
    return float(np.mean(there)) if there else None


def standard_error(values: Sequence[float]) -> float:
    """Standard error of a mean, from at least two values."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))


def frequency_groups(class_counts: np.ndarray) -> list[np.ndarray]:
    """The classes in five equal groups by training images, the rarest first (paper, figure 7).

    Args:
        class_counts: int[K].

    Returns:
        Five arrays of class indices; sizes differ by at most one. Empty with fewer than 5 classes.
    """
    if len(class_counts) < NUM_GROUPS:
        return []
    # Among equals the later class counts as rarer, as it does in a long-tailed profile.
    order = np.lexsort((-np.arange(len(class_counts)), class_counts))
    return np.array_split(order, NUM_GROUPS)


def shot_groups(class_counts: np.ndarray) -> dict[str, np.ndarray]:
    """The classes with many (> 100), medium (20 .. 100) and few (< 20) training images."""
    counts = np.asarray(class_counts)
    return {
        "many": np.flatnonzero(counts > MANY),
        "medium": np.flatnonzero((counts >= FEW) & (counts <= MANY)),
        "few": np.flatnonzero(counts < FEW),
    }


def calibration_error(bins: np.ndarray) -> float:
    """Expected calibration error in [0, 1] (Guo et al. 2017).

    Args:
        bins: f[bins, 3]: images, sum of confidences, number right, per bin of confidence.
    """
    images, confidence, right = np.asarray(bins, np.float64).T
    return float(np.abs(confidence - right).sum() / max(images.sum(), 1))


def summarize(
    results: ClassResults, nll: float, bins: np.ndarray, class_counts: np.ndarray
) -> dict[str, Any]:
    """All numbers of one evaluation.

    Args:
        results: by class.
        nll: the sum of negative log-likelihoods over the images, in nats.
        bins: see `calibration_error`.
        class_counts: int[K], training images per class.

    Returns:
        accuracy; top5_accuracy, None with five classes or fewer, of which it says nothing;
        balanced_accuracy (mean recall); per_class_accuracy [K]; group_accuracy [5], the rarest
        group first, or None; many, medium and few accuracy; geometric_mean of the recalls (0 if any
        is 0); nll, mean per image in nats; ece. Shares are in [0, 1].
    """
    images = int(results.images.sum())
    by_class = recalls(results)
    there = [r for r in by_class if r is not None]
    groups = frequency_groups(class_counts)

    def over(classes: np.ndarray) -> float | None:
        return mean_of([by_class[c] for c in classes])

    return {
        "accuracy": float(results.correct.sum() / images),
        "top5_accuracy": (
            None
            if results.top5 is None or len(by_class) <= TOP
            else float(results.top5.sum() / images)
        ),
        "balanced_accuracy": mean_of(by_class),
        "per_class_accuracy": by_class,
        "group_accuracy": [over(g) for g in groups] or None,
        **{f"{name}_accuracy": over(g) for name, g in shot_groups(class_counts).items()},
        "geometric_mean": (
            float(np.exp(np.mean(np.log(there)))) if there and min(there) > 0 else 0.0
        ),
        "nll": float(nll) / images,
        "ece": calibration_error(bins),
    }
