"""Class-balanced weights by the effective number of images; from a later epoch on, DRW.

Source: Cui et al. 2019, equation 4; Cao et al. 2019, algorithm 1 (deferred re-weighting).
"""

import dataclasses
from typing import Annotated

import numpy as np

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.runtime.constraints import Real


def effective_weights(class_counts: np.ndarray, beta: float) -> np.ndarray:
    """Weights (1 - beta) / (1 - beta ** n), scaled to a mean of 1; f32[K].

    Args:
        class_counts: int[K], training images per class, each at least 1.
        beta: in [0, 1); 0 weighs all classes the same, and towards 1 a weight becomes 1 / n.
    """
    weights = (1 - beta) / (1 - beta ** np.asarray(class_counts, np.float64))
    return (weights / weights.mean()).astype(np.float32)


def class_balanced_weights(
    recipe: Recipe,
    stats: DataStats,
    *,
    beta: Annotated[float, Real(0, 1, below=True), "towards 1 a class weighs 1 / images"] = 0.9999,
) -> Recipe:
    """Weighs each row by its class. The loss of a step is divided by the sum of the weights.

    The sum, not the number of rows, is what PyTorch's weighted cross-entropy divides by, which the
    authors use.
    """
    weights = effective_weights(stats.class_counts, beta)
    return dataclasses.replace(recipe, class_weights=weights, weighted_mean=True)
