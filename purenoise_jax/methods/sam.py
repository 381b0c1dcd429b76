"""Sharpness-aware minimisation (SAM), and the steps that its asymmetric forms share.

Source: Foret et al. 2021, algorithm 1.
"""

import dataclasses
from typing import Annotated

import jax
import optax

from purenoise_jax.data.batch import Batch
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.recipe import Aux, LossFn, Params, Recipe
from purenoise_jax.runtime.constraints import OneOf, Real

FIRST, BOTH = "first", "both"
Rho = Annotated[float, Real(0), "length of the ascent step"]
Statistics = Annotated[
    str,
    OneOf((FIRST, BOTH)),
    "running statistics move in the first pass, or in both: also in that after the ascent step",
    FIRST,
]


def length_over_norm(rho: float, gradient: Params) -> jax.Array:
    """Returns rho / |g|, f32[], with |g| over all arrays of the gradient; finite where it is 0."""
    return rho / (optax.tree.norm(gradient) + 1e-12)


def descent(
    loss_fn: LossFn, params: Params, direction: Params, factor: jax.Array, aux: Aux, statistics: str
) -> tuple[Aux, Params]:
    """Returns the gradient at params + factor * direction, and what the step keeps of its passes.

    Args:
        loss_fn: the loss of the descent step.
        params: parameters before the step.
        direction: of the ascent step, a gradient at the parameters.
        factor: f32[], by which the direction is multiplied.
        aux: of the pass at the parameters.
        statistics: `FIRST` or `BOTH`.

    Returns:
        The batch statistics after the step and the logits of the first pass; and the gradient.
    """
    before = aux.batch_stats if statistics == BOTH else None

    def loss(params: Params) -> tuple[jax.Array, Aux]:
        return loss_fn(params, batch_stats=before)

    ascended = jax.tree.map(lambda p, g: p + factor * g, params, direction)
    gradient, after = jax.grad(loss, has_aux=True)(ascended)
    return aux._replace(batch_stats=(after if statistics == BOTH else aux).batch_stats), gradient


def sam(
    recipe: Recipe, stats: DataStats, *, rho: Rho = 0.05, statistics: Statistics = FIRST
) -> Recipe:
    """Descends along the gradient at params + rho * g / |g|, where g is the gradient of the loss.

    READING: batch statistics come from the first pass, because evaluation uses parameters without
    an ascent step. Published PyTorch code lets them move in every pass (`statistics=both`); the
    second then continues from the first. The loss and the accuracy that a run records are those of
    the first pass in any case.

    The length that suits depends on the loss. With a ResNet-32 Rangwani et al. 2022 found 0.1 for
    cross-entropy on CIFAR-10-LT and 0.2 on CIFAR-100-LT, and 0.8 for LDAM with DRW on both; the
    default is that of Foret et al.

    DEVIATION: the authors' loss contains the weight decay. Here the optimiser adds it to the
    gradient that was found, as PyTorch's optimisers do.
    """
    del stats

    def gradient(
        loss_fn: LossFn, params: Params, batch: Batch
    ) -> tuple[tuple[jax.Array, Aux], Params]:
        del batch
        (loss, aux), ascent = jax.value_and_grad(loss_fn, has_aux=True)(params)
        factor = length_over_norm(rho, ascent)
        aux, found = descent(loss_fn, params, ascent, factor, aux, statistics)
        return (loss, aux), found

    return dataclasses.replace(recipe, gradient=gradient)
