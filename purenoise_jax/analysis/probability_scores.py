"""Numbers from probabilities: top-k accuracy, likelihood, calibration, average precision."""

from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import average_precision_score

from purenoise_jax.training.evaluation import ECE_BINS
from purenoise_jax.training.metrics import calibration_error, mean_of

TOP = (1, 2, 3, 5, 10)


class Reliability(NamedTuple):
    """Fit of the probabilities to the share of images that are predicted right.

    Attributes:
        bins: f64[ECE_BINS, 3], per bin of confidence the number of images, the sum of their
            confidences, and the number predicted right.
        nll: mean negative log-likelihood, in nats.
        ece: expected calibration error in [0, 1] (Guo et al. 2017, equation 3).
    """

    bins: np.ndarray
    nll: float
    ece: float


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Returns the logarithm of the softmax of logits f[N, K], f64[N, K]."""
    logits = np.asarray(logits, np.float64)
    away = logits - logits.max(axis=1, keepdims=True)
    found: np.ndarray = away - np.log(np.exp(away).sum(axis=1, keepdims=True))
    return found


def reliability(logits: np.ndarray, labels: np.ndarray) -> Reliability:
    """Counts images by confidence, the largest probability, in bins (i / 15, (i + 1) / 15].

    Args:
        logits: f[N, K].
        labels: int[N] in [0, K).
    """
    log_shares = log_probabilities(logits)
    confidence = np.exp(log_shares.max(axis=1)).astype(np.float32)
    right = logits.argmax(axis=1) == labels
    places = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    bins = np.zeros((ECE_BINS, 3))
    np.add.at(bins, places, np.stack([np.ones(len(labels)), confidence, right], axis=1))
    nll = -np.take_along_axis(log_shares, labels[:, None], axis=1).mean()
    return Reliability(bins, float(nll), calibration_error(bins))


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


def average_precisions(logits: np.ndarray, labels: np.ndarray) -> list[float | None]:
    """Returns the average precision of every class, its images against all others.

    It is the sum over the images of the class of the precision among the images with at least the
    same probability of the class, divided by their number, without interpolation.

    Args:
        logits: f[N, K].
        labels: int[N] in [0, K).

    Returns:
        K numbers in [0, 1]; None for a class without images.
    """
    log_shares = log_probabilities(logits)
    there = np.bincount(labels, minlength=logits.shape[1]) > 0
    return [
        float(average_precision_score(labels == k, log_shares[:, k])) if there[k] else None
        for k in range(logits.shape[1])
    ]


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
