"""SAM-A, the asymmetric form of sharpness-aware minimisation for imbalanced classes.

Source: Shwartz-Ziv et al. 2023 ("Simplifying Neural Network Training Under Class Imbalance"),
equations 3 to 5, and their code.
"""

import dataclasses
from typing import Annotated

import jax
import numpy as np

from purenoise_jax.data.batch import Batch
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.recipe import Aux, LossFn, Params, Recipe
from purenoise_jax.methods.sam import FIRST, Rho, Statistics, descent, length_over_norm
from purenoise_jax.runtime.constraints import OneOf

ASYMMETRIES = ("weighted_ascent", "one_minus_share", "inverse_share")


def ascent_weights(class_counts: np.ndarray, asymmetry: str) -> np.ndarray:
    """Returns the weight of every class in the ascent step; f32[K].

    Args:
        class_counts: int[K], training images per class, each at least 1.
        asymmetry: one of `ASYMMETRIES`.
    """
    counts = np.asarray(class_counts, np.float64)
    share = counts / counts.sum()
    weights = {
        "weighted_ascent": counts.max() / counts,
        "one_minus_share": 1 / (1 - share) if len(counts) > 1 else np.ones(1),
        "inverse_share": share.max() / share,
    }
    return weights[asymmetry].astype(np.float32)


def asymmetric_sam(
    recipe: Recipe,
    stats: DataStats,
    *,
    rho: Rho = 0.05,
    asymmetry: Annotated[
        str, OneOf(ASYMMETRIES), "class weights in the ascent step"
    ] = "weighted_ascent",
    statistics: Statistics = FIRST,
) -> Recipe:
    """Descends as SAM does, after an ascent step in which rare classes count more.

    READING: the source allows three. "weighted_ascent", the default, is the authors' code: the
    ascent step follows the gradient g of the loss weighted by n_max / n, with the length rho.
    "one_minus_share" is equation 5, rho_c = rho / (1 - share), which is larger for frequent classes
    although the text says the opposite; "inverse_share" follows the text. The last two multiply
    the loss of each row by rho_c / rho in the ascent step and leave the |g| of SAM unchanged, so
    the ascent step may be longer than rho. Of "inverse_share" the source gives the proportion
    alone: here the most frequent class has the length rho, and a class with a hundredth of its
    images 100 rho. The published equation 3 multiplies by |g| once more, which would cancel the
    norm.

    READING: batch statistics are those of `sam`; in the authors' code both passes move them.
    """
    of_class = ascent_weights(stats.class_counts, asymmetry)

    def gradient(
        loss_fn: LossFn, params: Params, batch: Batch
    ) -> tuple[tuple[jax.Array, Aux], Params]:
        del batch

        def ascent_loss(params: Params) -> tuple[jax.Array, Aux]:
            if asymmetry == "weighted_ascent":
                return loss_fn(params, of_class)
            return loss_fn(params, class_factors=of_class)

        (loss, aux), plain = jax.value_and_grad(loss_fn, has_aux=True)(params)
        ascent, _ = jax.grad(ascent_loss, has_aux=True)(params)
        factor = length_over_norm(rho, ascent if asymmetry == "weighted_ascent" else plain)
        aux, found = descent(loss_fn, params, ascent, factor, aux, statistics)
        return (loss, aux), found

    return dataclasses.replace(recipe, gradient=gradient)
