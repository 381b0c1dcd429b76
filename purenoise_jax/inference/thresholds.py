"""Thresholds of probabilities, one for each class, with the largest F1 on labelled images.

A program that asks of each class by itself, such as an alarm, compares the probability of the
class with its threshold; the most probable class needs none. Source: Lipton, Elkan and
Naryanaswamy 2014, "Optimal thresholding of classifiers to maximize F1 measure".
"""

from typing import NamedTuple

import numpy as np


class Threshold(NamedTuple):
    """The least probability with which an image is said to be of a class.

    Attributes:
        probability: the threshold, in [0, 1].
        f1: harmonic mean of precision and recall with it, on the images that it was chosen on.
        images: number of them that are of the class.
    """

    probability: float
    f1: float
    images: int


def best_thresholds(probabilities: np.ndarray, labels: np.ndarray) -> list[Threshold | None]:
    """Chooses for every class the probability of one of the images that gives the largest F1.

    Of several it is the largest. A class of few images has a threshold of much chance.

    Args:
        probabilities: f[N, K].
        labels: int[N] in [0, K).

    Returns:
        K thresholds; None for a class without images.
    """
    return [
        _best(probabilities[:, k], labels == k) if (labels == k).any() else None
        for k in range(probabilities.shape[1])
    ]


def _best(shares: np.ndarray, own: np.ndarray) -> Threshold:
    order = np.argsort(-shares, kind="stable")
    ranked, hits = shares[order], np.cumsum(own[order])
    # F1 = 2 hits / (said to be of the class + of the class).
    f1 = 2 * hits / (np.arange(1, len(shares) + 1) + own.sum())
    # Images of one probability are on the same side.
    f1[:-1][ranked[:-1] == ranked[1:]] = -1.0
    place = int(f1.argmax())
    return Threshold(float(ranked[place]), float(f1[place]), int(own.sum()))
