"""Second stages: the classifier trains over a backbone with fixed parameters."""

import dataclasses
from collections.abc import Callable
from typing import Annotated

from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.models.heads import CLASS_SCALE
from purenoise_jax.runtime.constraints import OneOf

FROZEN, SHIFTED = "frozen", "shifted"
BatchNorm = Annotated[
    str,
    OneOf((FROZEN, SHIFTED)),
    "batch norm uses its running statistics, or those of each batch, which shift the running ones",
]


def in_head(path: tuple[str, ...]) -> bool:
    """Returns True for the parameters of the head, except the scales of a scaled head."""
    return path[0] == "head" and path[-1] != CLASS_SCALE


def over_fixed_backbone(
    recipe: Recipe, bn: str = FROZEN, trainable: Callable[[tuple[str, ...]], bool] = in_head
) -> Recipe:
    """Returns a recipe in which only the classifier trains, without dropout.

    READING: sources with a fixed backbone do not say that dropout is off; their networks have none.

    Args:
        recipe: changed in `trainable`, `train_mode` and `dropout`.
        bn: `FROZEN` or `SHIFTED`.
        trainable: (path of a parameter) -> True if it trains.
    """
    return dataclasses.replace(recipe, trainable=trainable, train_mode=bn == SHIFTED, dropout=False)
