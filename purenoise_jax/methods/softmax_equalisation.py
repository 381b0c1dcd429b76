"""Softmax equalisation loss (SEQL): rare classes are left out of the softmax of other rows.

Source: Tan et al. 2020; Zhang et al. 2021 ("Bag of Tricks") and their code for the defaults.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.data.batch import Batch
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.networks import Networks
from purenoise_jax.methods.recipe import Outcome, Recipe, supervised
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.constraints import Real
from purenoise_jax.runtime.errors import ConfigError


def equalised_loss(logits: jax.Array, target: jax.Array, left_out: jax.Array) -> jax.Array:
    """Cross-entropy with p_j = exp(z_j) / sum_k w_k exp(z_k) and w = 1 - left_out * (1 - target).

    Args:
        logits: z, [B, K].
        target: [B, K], rows that sum to 1.
        left_out: [B, K] in [0, 1], the part of a class that is left out of a row's denominator.

    Returns:
        [B], in nats.
    """
    weights = 1 - left_out * (1 - target)
    # Relative to the label's logit, which a class that is left out may exceed by any amount.
    return jax.nn.logsumexp(logits - (target * logits).sum(1, keepdims=True), axis=1, b=weights)


def softmax_equalisation(
    recipe: Recipe,
    stats: DataStats,
    *,
    gamma: Annotated[
        float, Real(0, 1), "probability to leave a rare class out; 0 is cross-entropy"
    ] = 0.9,
    threshold: Annotated[
        float,
        Real(0, 1),
        "lambda of the paper: classes with a smaller share of images are rare; 0 = half of an even "
        "share, 1 / (2 K)",
    ] = 0.0,
) -> Recipe:
    """Leaves rare classes that are not the label out of the softmax's denominator, at random.

    The rows of other classes then do not lower the logits of rare classes. The beta of each row and
    class is 1 with probability gamma, and drawn anew in every step.

    READING: the frequency of a class is its share of the training images, as in the code of Zhang
    et al.
    READING: rare are, by default, classes with less than half of an even share: below 0.05 of 10
    classes and below 0.005 of 100, as in the configs of Zhang et al. for CIFAR at a ratio of 100.
    READING: `loss` of the recipe, for callers without a key, has the mean of beta instead.

    Raises:
        ConfigError: no class is rare, so the method would have no effect.
    """
    counts = np.asarray(stats.class_counts, np.float64)
    shares = counts / counts.sum()
    threshold = threshold or 0.5 / len(counts)
    if not (shares < threshold).any():
        raise ConfigError(
            f"method.seql.threshold={threshold:.4g}: no class has a smaller share of the training "
            f"images, so nothing would be different; legal: above {shares.min():.4g}, the share of "
            "the rarest"
        )
    rare = jnp.asarray(shares < threshold)

    def loss(logits: jax.Array, target: jax.Array) -> jax.Array:
        return equalised_loss(logits, target, jnp.where(rare, gamma, 0.0)[None])

    def objective(recipe: Recipe, networks: Networks, batch: Batch, key: jax.Array) -> Outcome:
        beta = rng.bernoulli(key, gamma, batch["target"].shape)

        def drawn(logits: jax.Array, target: jax.Array) -> jax.Array:
            return equalised_loss(logits, target, (beta & rare[None]).astype(target.dtype))

        return supervised(dataclasses.replace(recipe, loss=drawn), networks, batch, key)

    return dataclasses.replace(recipe, loss=loss, objective=objective)
