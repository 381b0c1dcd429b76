"""Logit adjustment: logits are shifted by the logarithm of the class frequencies.

Source: Menon et al. 2021; Ren et al. 2020 (balanced softmax), which is the loss with tau = 1; Wang
et al. 2023 and their code (TLA), which is the loss in the last fifth of the epochs, after vector
scaling. The adjustment after training is an argument of `erm`.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.recipe import Recipe, cross_entropy
from purenoise_jax.runtime.constraints import Real

Tau = Annotated[float, Real(0), "factor of the logarithm of the class frequencies"]


def log_frequencies(class_counts: np.ndarray) -> np.ndarray:
    """Returns the logarithm of every class's share of the training images, f32[K].

    Args:
        class_counts: int[K], training images per class, each at least 1.
    """
    counts = np.asarray(class_counts, np.float64)
    return np.log(counts / counts.sum()).astype(np.float32)


def for_known_shares(logits: jax.Array, log_prior: jax.Array | None = None) -> jax.Array:
    """Logits of a network that fits classes of equal frequency, for the shares of a test set.

    Args:
        logits: [B, K].
        log_prior: f32[K], see `recipe.Postprocess`; None = the classes are equally frequent.
    """
    return logits if log_prior is None else logits + log_prior[None]


def logit_adjusted_loss(recipe: Recipe, stats: DataStats, *, tau: Tau = 1.0) -> Recipe:
    """Adds tau times the log frequencies to the logits of the cross-entropy.

    The network's own logits, which are those of evaluation, then fit classes of equal frequency.
    Where other frequencies are known, their logarithm is added.
    """
    shift = jnp.asarray(tau * log_frequencies(stats.class_counts))

    def loss(logits: jax.Array, target: jax.Array) -> jax.Array:
        return cross_entropy(logits + shift[None], target)

    return dataclasses.replace(recipe, loss=loss, postprocess=for_known_shares)
