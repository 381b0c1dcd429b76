"""Loss weights by the effective number of images; in a later phase, deferred re-weighting (DRW).

Source: Cui et al. 2019, equation 4; Cao et al. 2019, algorithm 1 (deferred re-weighting).
"""

import dataclasses
from typing import Annotated

import numpy as np

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.runtime.constraints import Real


def effective_weights(class_counts: np.ndarray, beta: float) -> np.ndarray:
    """Returns weights (1 - beta) / (1 - beta ** n), scaled to a mean of 1; f32[K].

    Args:
        class_counts: int[K], training images per class, each at least 1.
        beta: in [0, 1); 0 gives all classes the same weight, and as beta approaches 1 the weights
            become proportional to 1 / n.
    """
    weights = (1 - beta) / (1 - beta ** np.asarray(class_counts, np.float64))
    return (weights / weights.mean()).astype(np.float32)


def class_balanced_weights(
    recipe: Recipe,
    stats: DataStats,
    *,
    beta: Annotated[
        float, Real(0, 1, below=True), "near 1, class weights are proportional to 1 / images"
    ] = 0.9999,
) -> Recipe:
    """Weights each row by its class and divides the loss of a step by the sum of the weights.

    PyTorch's weighted cross-entropy, which the authors use, also divides by this sum and not by the
    number of rows.
    """
    weights = effective_weights(stats.class_counts, beta)
    return dataclasses.replace(recipe, class_weights=weights, weighted_mean=True)
