"""De-confounded training, and evaluation by the total direct effect (TDE).

Source: Tang et al. 2020, and their code (CausalNormClassifier.py, run_networks.py).
"""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.data.batch import natural_rows
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.recipe import Memory, Observed, Recipe, current_variables
from purenoise_jax.models.heads import EFFECT
from purenoise_jax.runtime.constraints import Real

NAME = "tde"


def total_direct_effect(
    recipe: Recipe,
    stats: DataStats,
    *,
    alpha: Annotated[
        float, Real(0), "part of the mean feature's direction that is taken out in evaluation"
    ] = 1.0,
    mu: Annotated[
        float, Real(0, 1, below=True), "share of the mean feature that each step keeps"
    ] = 0.9,
) -> Recipe:
    """Evaluates a causal head without the part of a feature that points along the mean feature.

    Training is that of the multi-head normalised classifier, the head "causal", with the loss of
    the recipe; a memory keeps the moving average of the features. Evaluation subtracts alpha times
    the projection on this average from every normalised feature. Only evaluation uses alpha. The
    authors' is 1 for CIFAR-10-LT, 1.5 for CIFAR-100-LT and 3 for ImageNet-LT.

    READING: noise rows do not enter the mean feature.
    DEVIATION: the authors do not scale the new feature by 1 - mu, which changes the length of the
    average but not its direction, the only use of it. On other data than CIFAR they move mu
    towards 1 as the learning rate decreases; here it is constant.
    """
    del stats

    def init(variables: Any) -> jax.Array:
        return jnp.zeros(len(variables["params"]["head"]["kernel"]), jnp.float32)

    def update(average: jax.Array, observed: Observed) -> jax.Array:
        batch, features = observed.batch, observed.outputs["features"]
        natural = natural_rows(batch)
        total = jnp.where(natural[:, None], features, 0).sum(axis=0)
        moved = mu * average + (1 - mu) * total / jnp.maximum(natural.sum(), 1)
        return jnp.where(natural.any(), moved, average).astype(average.dtype)

    def eval_variables(state: Any) -> dict[str, Any]:
        effect = {"mean_feature": state.extra[NAME], "alpha": np.float32(alpha)}
        return {**current_variables(state), EFFECT: {"head": effect}}

    return dataclasses.replace(
        recipe,
        memory={**recipe.memory, NAME: Memory(init, update)},
        eval_variables=eval_variables,
    )
