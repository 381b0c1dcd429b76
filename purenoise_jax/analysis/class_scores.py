"""Precision, recall and F1 of every class from a confusion matrix."""

from typing import NamedTuple

import numpy as np

from purenoise_jax.training.confusion import Confusion
from purenoise_jax.training.metrics import mean_of


class ClassScores(NamedTuple):
    """Scores of the K classes in [0, 1]; None where they do not exist.

    Attributes:
        precision: share of the images predicted as the class that belong to it; None if there are
            none.
        recall: share of the images of the class that are predicted right, its accuracy; None
            without images.
        f1: harmonic mean of both, 0 if no image is right; None without images.
    """

    precision: list[float | None]
    recall: list[float | None]
    f1: list[float | None]

    @property
    def macro_f1(self) -> float | None:
        """Mean of F1 over the classes that have images; None without any."""
        return mean_of(self.f1)


def class_scores(confusion: Confusion) -> ClassScores:
    """Computes the scores of every class.

    Args:
        confusion: of the test images.
    """
    right, images, predicted = confusion.correct(), confusion.by_true(), confusion.by_predicted()
    return ClassScores(
        _shares(right, predicted),
        _shares(right, images),
        [
            f1 if n else None
            for f1, n in zip(_shares(2 * right, images + predicted), images, strict=True)
        ],
    )


def _shares(part: np.ndarray, whole: np.ndarray) -> list[float | None]:
    return [float(p / w) if w else None for p, w in zip(part, whole, strict=True)]
