"""SAM for a part of the loss: that of rare classes (ImbSAM), or a share of every class (Focal-SAM).

Source: Zhou et al. 2023 ("ImbSAM: A Closer Look at Sharpness-Aware Minimization in Class-Imbalanced
Recognition") and their code; Li et al. 2025 ("Focal-SAM: Focal Sharpness-Aware Minimization for
Long-Tailed Classification"), after a summary and their code.
"""

import dataclasses
from functools import partial
from typing import Annotated

import jax
import numpy as np

from purenoise_jax.data.batch import Batch
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.recipe import Aux, Gradient, LossFn, Params, Recipe
from purenoise_jax.methods.sam import FIRST, Rho, Statistics, descent, length_over_norm
from purenoise_jax.runtime.constraints import Integer, Real
from purenoise_jax.runtime.errors import ConfigError


def partly_ascending(of_class: np.ndarray, rho: float, statistics: str) -> Gradient:
    """Makes a gradient that treats a part of the loss as SAM does, and the rest plainly.

    The part is the loss with class weights multiplied by c. Its gradient at params is replaced in
    that of the loss by its gradient at params + rho * g / |g|, where g is the gradient of the part
    at params.

    Args:
        of_class: f32[K], c of every class.
        rho: length of the ascent step.
        statistics: see `sam.descent`.
    """

    def gradient(
        loss_fn: LossFn, params: Params, batch: Batch
    ) -> tuple[tuple[jax.Array, Aux], Params]:
        del batch
        part_fn = partial(loss_fn, class_factors=of_class)
        (loss, aux), plain = jax.value_and_grad(loss_fn, has_aux=True)(params)
        ascent, _ = jax.grad(part_fn, has_aux=True)(params)
        factor = length_over_norm(rho, ascent)
        aux, found = descent(part_fn, params, ascent, factor, aux, statistics)
        # Not the sum of two parts: terms of a loss without class weights would be in both.
        return (loss, aux), jax.tree.map(lambda p, f, a: p + (f - a), plain, found, ascent)

    return gradient


def imbalanced_sam(
    recipe: Recipe,
    stats: DataStats,
    *,
    rho: Rho = 0.05,
    eta: Annotated[int, Integer(1), "most training images of a class of the tail"] = 100,
    statistics: Statistics = FIRST,
) -> Recipe:
    """Uses SAM for the loss of the tail only (ImbSAM); the loss of other rows is descended plainly.

    READING: the tail are all classes without many images, so the default is the customary border of
    100 (Liu et al. 2019). The authors' code has fewer than eta, 20 by default.

    READING: batch statistics are those of `sam`; in the authors' code both passes move them.

    Raises:
        ConfigError: no class has so few images, so the method would have no effect.
    """
    tail = stats.class_counts <= eta
    if not tail.any():
        raise ConfigError(
            f"method.imbsam.eta={eta}: no class has so few training images, so nothing would be "
            f"different; legal: at least {stats.class_counts.min()}, the size of the smallest"
        )
    gradient = partly_ascending(tail.astype(np.float32), rho, statistics)
    return dataclasses.replace(recipe, gradient=gradient)


def focal_sam(
    recipe: Recipe,
    stats: DataStats,
    *,
    rho: Rho = 0.2,
    gamma: Annotated[float, Real(0), "exponent of 1 - share of a class; 0 = all alike"] = 3.0,
    sharpness: Annotated[float, Real(0), "lambda, the weight of the sharpness in the loss"] = 0.5,
    statistics: Statistics = FIRST,
) -> Recipe:
    """Adds the sharpness of every class to the loss, more of it for rare classes (Focal-SAM).

    The loss is L + sharpness * max [L'(params + e) - L'(params)] over |e| <= rho, where L' weights
    rows by (1 - share) ** gamma of their class. The defaults are those of the authors' script for
    CIFAR-10-LT, which has logit adjustment as its loss: `balanced_softmax+focal_sam`.

    READING: batch statistics are those of `sam`; in the authors' code both passes move them.
    """
    share = stats.class_counts / stats.class_counts.sum()
    of_class = (sharpness * (1 - share) ** gamma).astype(np.float32)
    return dataclasses.replace(recipe, gradient=partly_ascending(of_class, rho, statistics))
