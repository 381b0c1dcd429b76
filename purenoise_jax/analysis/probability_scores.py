"""Numbers from probabilities: top-k accuracy, likelihood, calibration, average precision."""

from typing import Any

import numpy as np

from purenoise_jax.inference.reliability import reliability
from purenoise_jax.training.metrics import mean_of
from purenoise_jax.training.probabilities import average_precisions

TOP = (1, 2, 3, 5, 10)


def top_accuracies(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns the share of images with their class among the k largest logits, by k as text.

    Of equal logits the class with the smaller index comes first, as in `argmax`. k is of `TOP`, and
    less than K.

    Args:
        logits: f[N, K].
        labels: int[N] in [0, K).
    """
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    earlier = np.arange(logits.shape[1])[None] < labels[:, None]
    before = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)
    return {str(k): float((before < k).mean()) for k in TOP if k < logits.shape[1]}


def probability_scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Returns all numbers of this module that are not of bins, as JSON values.

    Args:
        logits: f[N, K].
        labels: int[N] in [0, K).
    """
    fit = reliability(logits, labels)
    precisions = average_precisions(logits, labels)
    return {
        "top_accuracy": top_accuracies(logits, labels),
        "nll": fit.nll,
        "ece": fit.ece,
        "average_precision": precisions,
        "mean_average_precision": mean_of(precisions),
    }
