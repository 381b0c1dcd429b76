"""Loss weights by the effective number of images; in a later phase, deferred re-weighting (DRW).

Source: Cui et al. 2019, equation 4, and their code; Cao et al. 2019, algorithm 1 (deferred
re-weighting), and their code.
"""

import dataclasses
from typing import Annotated

import numpy as np

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.runtime.constraints import OneOf, Real

DivideBy = Annotated[
    str,
    OneOf(("weights", "rows")),
    "the loss of a step is divided by the sum of its rows' weights, or by their number",
    "weights",
]


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
    divide_by: DivideBy = "weights",
) -> Recipe:
    """Weights each row by the effective number of its class.

    READING: the loss of a step is divided by the sum of the weights, as by PyTorch's weighted
    cross-entropy, which Cao et al. use. Cui et al. divide by the number of rows
    (`divide_by="rows"`), so that a batch of rare classes moves the parameters further.
    """
    weights = effective_weights(stats.class_counts, beta)
    return dataclasses.replace(recipe, class_weights=weights, weighted_mean=divide_by == "weights")
