"""Sharpness-aware minimisation (SAM), and SAM-A, its asymmetric form for imbalanced classes.

Source: Foret et al. 2021, algorithm 1; Shwartz-Ziv et al. 2023 ("Simplifying Neural Network
Training Under Class Imbalance"), equations 3 to 5, and their code.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import optax

from purenoise_jax.data.batch import Batch
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.recipe import Aux, LossFn, Params, Recipe
from purenoise_jax.runtime.constraints import OneOf, Real

ASYMMETRIES = ("none", "weighted_ascent", "one_minus_share", "inverse_share")


def ascent_weights(class_counts: np.ndarray, asymmetry: str) -> np.ndarray:
    """Returns the weight of every class in the ascent step; f32[K].

    Args:
        class_counts: int[K], training images per class, each at least 1.
        asymmetry: one of `ASYMMETRIES` except "none".
    """
    counts = np.asarray(class_counts, np.float64)
    share = counts / counts.sum()
    weights = {
        "weighted_ascent": counts.max() / counts,
        "one_minus_share": 1 / (1 - share) if len(counts) > 1 else np.ones(1),
        "inverse_share": share.max() / share,
    }
    return weights[asymmetry].astype(np.float32)


def sam(
    recipe: Recipe,
    stats: DataStats,
    *,
    rho: Annotated[float, Real(0), "length of the ascent step"] = 0.05,
    asymmetry: Annotated[
        str, OneOf(ASYMMETRIES), "SAM-A: class weights in the ascent step"
    ] = "none",
) -> Recipe:
    """Descends along the gradient at params + rho * g / |g|, where g is the gradient of the loss.

    The source of SAM-A allows three readings. "weighted_ascent" is the authors' code: g is the
    gradient of the loss weighted by n_max / n, with the same rho. "one_minus_share" is equation 5,
    rho / (1 - share), which is larger for frequent classes although the text says the opposite;
    "inverse_share" follows the text. The last two weight rows by rho_c / rho and leave |g|
    unchanged.

    READING: batch statistics come from the first pass, and so do the loss and the accuracy that a
    run records. The published equation 3 multiplies by |g| once more, which would cancel the norm.
    """

    def gradient(
        loss_fn: LossFn, params: Params, batch: Batch
    ) -> tuple[tuple[jax.Array, Aux], Params]:
        value, plain = jax.value_and_grad(loss_fn, has_aux=True)(params)
        ascent, length = plain, rho / (optax.tree.norm(plain) + 1e-12)
        if asymmetry != "none":
            of_class = ascent_weights(stats.class_counts, asymmetry)
            ascent = jax.grad(loss_fn, has_aux=True)(params, of_class)[0]
            if asymmetry == "weighted_ascent":
                length = rho / (optax.tree.norm(ascent) + 1e-12)
            else:
                # The weighted loss is divided by the sum of weights, the plain loss by the rows.
                valid, weights = batch["valid"], jnp.asarray(of_class)[batch["label"]]
                length *= jnp.where(valid, weights, 0).sum() / jnp.maximum(valid.sum(), 1)
        perturbed = jax.tree.map(lambda p, g: p + length * g, params, ascent)
        return value, jax.grad(loss_fn, has_aux=True)(perturbed)[0]

    return dataclasses.replace(recipe, gradient=gradient)
