"""Two views of each image: their rows, and a loss of both beside the supervised one."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from purenoise_jax.data.batch import Batch, natural_rows
from purenoise_jax.methods.networks import Networks
from purenoise_jax.methods.recipe import Outcome, Recipe, add_batch_loss, trains_by_default

# (projections of the first views [B, D], of the second views [B, D], natural bool[B]) -> [].
ViewLoss = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def second_view(batch: Batch) -> jax.Array:
    """The second views f32[B, H, W, C]; noise, which has no views, is the same in both."""
    if "noise_mask" not in batch:
        return batch["second"]
    return jnp.where(batch["noise_mask"][:, None, None, None], batch["image"], batch["second"])


def with_view_loss(recipe: Recipe, loss: ViewLoss, supervised_weight: float) -> Recipe:
    """Returns the recipe with a loss of two views, plus `supervised_weight` times its own.

    The recipe's own loss is that of its objective, which sees the first views. If its weight is 0,
    labels have no effect and the head stays as it is.

    READING: beside an objective that mixes rows, the views that are compared are unmixed, so that
    both are of one image. The first views then have a forward pass of their own.

    Args:
        recipe: to be changed.
        loss: of the projections.
        supervised_weight: at least 0.
    """

    def term(recipe: Recipe, networks: Networks, batch: Batch, outcome: Outcome) -> Outcome:
        outputs = outcome.outputs
        if recipe.places:
            _, outputs = networks.forward(batch["image"], batch.get("noise_mask"))
        first = outputs["projection"]
        _, others = networks.forward(second_view(batch), batch.get("noise_mask"))
        # A weight of 0 drops the losses, which may be infinite.
        own = supervised_weight * outcome.losses if supervised_weight else jnp.zeros(len(first))
        added = loss(first, others["projection"], natural_rows(batch))
        return add_batch_loss(outcome._replace(losses=own), added)

    changed = dataclasses.replace(recipe, terms=(*recipe.terms, term), views=2)
    if supervised_weight:
        return changed

    def trainable(path: tuple[str, ...]) -> bool:
        # Weight decay alone would change the head, too.
        return path[0] != "head" and trains_by_default(path)

    return dataclasses.replace(changed, trainable=trainable)
