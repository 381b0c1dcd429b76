"""Intervals of accuracies: how far chance in the choice of the images moves them.

Sources: Clopper and Pearson 1934, "The use of confidence or fiducial limits illustrated in the case
of the binomial", for a share of images; Korn and Graubard 1998, "Confidence intervals for
proportions with small expected number of positive counts estimated from survey data", for a mean
over classes, which is a share in a sample of unequal weights.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import betaincinv

from purenoise_jax.training.metrics import ClassResults, frequency_groups, shot_groups

LEVEL = 0.95
# Images with the mean accuracy that are added to a class before its variance is computed: the
# square of the 97.5 % quantile of the normal distribution, as Agresti and Coull 1998 add to a
# share.
ADDED = 1.96**2


class Interval(NamedTuple):
    """The ends of an interval of a share in [0, 1]."""

    low: float
    high: float


class Intervals(NamedTuple):
    """95 % intervals of accuracies over the images of a split.

    They contain the chance in the choice of the images, and not that of the training.

    Attributes:
        accuracy: of all images.
        balanced_accuracy: of the mean over the classes.
        per_class: K intervals; None without images.
    """

    accuracy: Interval
    balanced_accuracy: Interval
    per_class: list[Interval | None]


def accuracy_intervals(results: ClassResults) -> Intervals:
    """Returns the intervals of the accuracies of an evaluation.

    Args:
        results: by class; at least one image.
    """
    images, correct = (np.asarray(part, np.int64) for part in results[:2])
    balanced = of_classes(results, np.arange(len(images)))
    assert balanced is not None, "there is an image"
    low, high = _exact(correct, np.maximum(images, 1))
    per_class = [
        Interval(float(low[k]), float(high[k])) if images[k] else None for k in range(len(images))
    ]
    return Intervals(of_share(int(correct.sum()), int(images.sum())), balanced, per_class)


def of_share(correct: float, images: float) -> Interval:
    """Returns the exact interval of a share of images, after Clopper and Pearson.

    Args:
        correct: number of images that are right, in [0, `images`].
        images: their number, above 0. Neither has to be whole.
    """
    low, high = _exact(np.asarray(correct), np.asarray(images))
    return Interval(float(low), float(high))


def of_classes(results: ClassResults, classes: np.ndarray) -> Interval | None:
    """Returns the interval of the mean accuracy of classes, whose images are drawn class by class.

    It is that of a share of as many images as would give the mean this variance (Korn and
    Graubard). For one class it is the exact interval of its images.

    DEVIATION: Korn and Graubard estimate the variance from the shares alone. That of a class which
    is never or always right would be 0, and such are all classes of one image. So each class has
    `ADDED` more images, with the mean accuracy. If all images are right, or none is, their variance
    is taken to be that of one share in all classes. There is no t distribution, because a class has
    no clusters, and no upper bound on the number of images.

    A bootstrap is no choice here: its samples of a class with one image are alike. Neither is the
    mean of draws of Beta(right + 1/2, wrong + 1/2), Jeffreys' posterior of each class: with one
    image a class, it lies near 1/2 and becomes narrow with the number of classes.

    Args:
        results: by class.
        classes: int[C] in [0, K), those to take the mean over.

    Returns:
        None if these classes have no image.
    """
    images, correct = (np.asarray(part, np.float64)[classes] for part in results[:2])
    images, correct = images[images > 0], correct[images > 0]
    if not len(images):
        return None
    mean = float((correct / images).mean())
    shares = (correct + ADDED * mean) / (images + ADDED)
    variance = float((shares * (1 - shares) / images).sum()) / len(images) ** 2
    if 0 < mean < 1:
        size = mean * (1 - mean) / variance
    else:
        size = len(images) ** 2 / float((1 / images).sum())
    return of_share(mean * size, size)


def interval_numbers(results: ClassResults, class_counts: np.ndarray) -> dict[str, Any]:
    """Returns the ends of the intervals of an evaluation as JSON values.

    Args:
        results: by class; at least one image.
        class_counts: int[K], training images per class.

    Returns:
        [low, high] by the names of `metrics.summarize`, for every accuracy there; None where there
        is none.
    """
    found, images = accuracy_intervals(results), int(results.images.sum())
    top5 = None if results.top5 is None else of_share(int(results.top5.sum()), images)
    groups = [of_classes(results, group) for group in frequency_groups(class_counts)]
    numbers: dict[str, Any] = {
        "accuracy": found.accuracy,
        "top5_accuracy": top5,
        "balanced_accuracy": found.balanced_accuracy,
        "per_class_accuracy": found.per_class,
        "group_accuracy": groups or None,
        **{
            f"{name}_accuracy": of_classes(results, group)
            for name, group in shot_groups(class_counts).items()
        },
    }
    return {name: _as_lists(value) for name, value in numbers.items()}


def _as_lists(value: Any) -> Any:
    if isinstance(value, Interval):
        return [*value]
    return [*map(_as_lists, value)] if isinstance(value, list) else value


def _exact(correct: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    tail, wrong = (1 - LEVEL) / 2, np.maximum(images - correct, 0)
    # At the ends, one argument of the quantile is 0.
    low = betaincinv(np.maximum(correct, 1e-9), wrong + 1, tail)
    high = betaincinv(correct + 1, np.maximum(wrong, 1e-9), 1 - tail)
    return np.where(correct > 0, low, 0.0), np.where(wrong > 0, high, 1.0)
