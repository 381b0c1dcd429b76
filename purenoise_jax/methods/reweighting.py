"""Loss weights by a power of the inverse class frequency.

Source: Huang et al. 2016 (inverse frequency); Zhang et al. 2021 ("Bag of Tricks", cost-sensitive
cross-entropy) for the power; Wang et al. 2023 and their code for ADRW.
"""

import dataclasses
from typing import Annotated

import numpy as np

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.class_balanced_weights import DivideBy
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.runtime.constraints import Real


def inverse_weights(class_counts: np.ndarray, power: float) -> np.ndarray:
    """Returns weights proportional to n ** -power, scaled to a mean of 1 over the classes; f32[K].

    Args:
        class_counts: int[K], training images per class, each at least 1.
        power: at least 0; 0 gives all classes the same weight.
    """
    counts = np.asarray(class_counts, np.float64)
    # Relative to the rarest class, whose weight cannot underflow.
    weights = (counts.min() / counts) ** power
    return (weights / weights.mean()).astype(np.float32)


def reweighting(
    recipe: Recipe,
    stats: DataStats,
    *,
    power: Annotated[
        float, Real(0), "of the inverse frequency: 1 = inverse, 0.5 = its square root"
    ] = 1.0,
    divide_by: DivideBy = "weights",
) -> Recipe:
    """Weights each row by a power of the inverse frequency of its class.

    READING: the weights have a mean of 1 over the classes, as class-balanced weights do; Zhang et
    al. give the rarest class a weight of 1. With `divide_by="weights"`, as in PyTorch's weighted
    cross-entropy, the scale cancels and both are the same; with "rows" it multiplies the rate.
    """
    weights = inverse_weights(stats.class_counts, power)
    return dataclasses.replace(recipe, class_weights=weights, weighted_mean=divide_by == "weights")


def adrw(
    recipe: Recipe,
    stats: DataStats,
    *,
    t: Annotated[float, Real(0), "class weights are proportional to frequency ** -t"] = 0.15,
    divide_by: DivideBy = "weights",
) -> Recipe:
    """Weights each row by the frequency of its class to the power -t, with a mean of 1 (ADRW).

    In the last fifth of the epochs it follows vector scaling, together with "tla". The default t is
    that of the authors for CIFAR-10-LT; for CIFAR-100-LT, both with a ratio of 100, it is 0.25.
    """
    return reweighting(recipe, stats, power=t, divide_by=divide_by)
