"""De-confounded training, and evaluation by the total direct effect (TDE).

Source: Tang et al. 2020, and their code (CausalNormClassifier.py, run_networks.py).
"""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.data.batch import Batch
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.networks import Networks
from purenoise_jax.methods.recipe import Outcome, Recipe, current_variables, supervised
from purenoise_jax.runtime.constraints import Real


def _with_head(batch_stats: Any, **statistics: Any) -> Any:
    """Returns running statistics with some of those of the head replaced."""
    return {**batch_stats, "head": {**batch_stats["head"], **statistics}}


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
    """Trains a causal head, and subtracts in evaluation what the mean feature explains.

    Training is that of the multi-head normalised classifier with the loss of the recipe; the
    objective also keeps the moving average of the features of natural rows. Evaluation takes
    alpha times the projection on the direction of this average out of every normalised feature.
    Only evaluation uses alpha: the authors' is 1 for CIFAR-10-LT, 1.5 for CIFAR-100-LT and 3 for
    ImageNet-LT.

    READING: noise rows and padding do not enter the mean feature.
    DEVIATION: the authors do not scale the new feature by 1 - mu, which changes the length of the
    average but not its direction, the only use of it. On other data than CIFAR they move mu
    towards 1 as the learning rate decreases; here it is constant.
    """
    del stats

    def objective(recipe: Recipe, networks: Networks, batch: Batch, key: jax.Array) -> Outcome:
        outcome = supervised(recipe, networks, batch, key)
        old = networks.batch_stats["head"]["mean_feature"]
        natural = batch["valid"] & ~batch.get("noise_mask", jnp.zeros_like(batch["valid"]))
        features = jax.lax.stop_gradient(outcome.outputs["features"])
        features = jnp.where(natural[:, None], features, 0)
        mean = features.sum(axis=0) / jnp.maximum(natural.sum(), 1)
        new = jnp.where(natural.any(), mu * old + (1 - mu) * mean, old).astype(old.dtype)
        networks.batch_stats = _with_head(networks.batch_stats, mean_feature=new)
        return outcome

    def eval_variables(state: Any) -> dict[str, Any]:
        variables = current_variables(state)
        batch_stats = _with_head(variables["batch_stats"], alpha=np.float32(alpha))
        return {**variables, "batch_stats": batch_stats}

    return dataclasses.replace(recipe, objective=objective, eval_variables=eval_variables)
