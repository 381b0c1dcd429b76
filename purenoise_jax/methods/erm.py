"""Empirical risk minimisation (ERM): plain training, optionally with logits adjusted afterwards.

Source: Menon et al. 2021, section 4.1 (post-hoc logit adjustment); Hong et al. 2021, section 3
(PC-softmax), which is the adjustment with tau = 1 and the class frequencies of the test set.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.logit_adjustment import for_known_shares, log_frequencies
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.runtime.constraints import Real


def erm(
    recipe: Recipe,
    stats: DataStats,
    *,
    tau: Annotated[
        float,
        Real(0),
        "in evaluation, tau times the log frequencies of the classes is subtracted from the "
        "logits; 1 = PC-softmax, 0 = they stay as they are",
        0.0,
    ] = 0.0,
) -> Recipe:
    """Trains on every image once an epoch, with the cross-entropy.

    With `tau` above 0, evaluation uses logits that fit classes of equal frequency; where the shares
    of the classes in the test set are known, their logarithm is added.
    """
    if not tau:
        return recipe
    shift = jnp.asarray(tau * log_frequencies(stats.class_counts))

    def postprocess(logits: jax.Array, log_prior: jax.Array | None = None) -> jax.Array:
        return for_known_shares(logits - shift[None], log_prior)

    return dataclasses.replace(recipe, postprocess=postprocess)
