"""Counts of images by the probability of their predicted class (Guo et al. 2017)."""

from typing import NamedTuple

import numpy as np

from purenoise_jax.training.evaluation import ECE_BINS
from purenoise_jax.training.metrics import calibration_error


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


class Scaled(NamedTuple):
    """Fit of the probabilities of some images before and after temperature scaling.

    Attributes:
        split: "test" or "val"; "" = images of no split.
        title: the images in words.
        temperature: by which the logits are divided.
        before: at temperature 1.
        after: at `temperature`.
    """

    split: str
    title: str
    temperature: float
    before: Reliability
    after: Reliability


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
    # abs, because the negative of 0 is -0.
    nll = abs(np.take_along_axis(log_shares, labels[:, None], axis=1).mean())
    return Reliability(bins, float(nll), calibration_error(bins))


def scaled(
    logits: np.ndarray,
    labels: np.ndarray,
    temperature: float,
    *,
    shift: np.ndarray | float = 0.0,
    split: str = "",
    title: str = "",
) -> Scaled:
    """Compares the fit of the probabilities at temperature 1 and at another one.

    Args:
        logits: f[N, K].
        labels: int[N] in [0, K).
        temperature: by which the logits are divided.
        shift: see `temperature.fit_temperature`.
        split: see `Scaled`.
        title: see `Scaled`.
    """
    shift = np.maximum(shift, -1e30)
    before, after = (reliability(logits / t + shift, labels) for t in (1.0, temperature))
    return Scaled(split, title, temperature, before, after)
