"""Vector scaling (VS): logits are divided by a temperature and shifted, both by class frequency.

Source: Kini et al. 2021; without the shift, class-dependent temperatures (CDT), Ye et al. 2020. The
default gamma of VS is that of Wang et al. 2023 for CIFAR-10-LT; that of CDT is from the comparison
of Zhang et al. 2021.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.logit_adjustment import Tau, for_known_shares, log_frequencies
from purenoise_jax.methods.recipe import Recipe, cross_entropy
from purenoise_jax.runtime.constraints import Real

Gamma = Annotated[float, Real(0), "exponent of the temperatures; 0 = all are 1"]


def temperatures(class_counts: np.ndarray, gamma: float) -> np.ndarray:
    """Returns (n_max / n) ** gamma of every class, f32[K], each at least 1.

    Args:
        class_counts: int[K], training images per class, each at least 1.
        gamma: at least 0.
    """
    counts = np.asarray(class_counts, np.float64)
    return ((counts.max() / counts) ** gamma).astype(np.float32)


def vector_scaling(
    recipe: Recipe, stats: DataStats, *, gamma: Gamma = 0.05, tau: Tau = 1.0
) -> Recipe:
    """Uses the cross-entropy of logits / temperature + tau * log frequency.

    The network's own logits are those of evaluation; where the shares of the classes are known,
    their logarithm is added. gamma = 0 is logit adjustment, tau = 0 is CDT.
    """
    divisor = jnp.asarray(temperatures(stats.class_counts, gamma))
    shift = jnp.asarray(tau * log_frequencies(stats.class_counts))

    def loss(logits: jax.Array, target: jax.Array) -> jax.Array:
        return cross_entropy(logits / divisor[None] + shift[None], target)

    return dataclasses.replace(recipe, loss=loss, postprocess=for_known_shares)


def class_dependent_temperatures(recipe: Recipe, stats: DataStats, *, gamma: Gamma = 0.2) -> Recipe:
    """Uses the cross-entropy of logits / temperature (CDT)."""
    return vector_scaling(recipe, stats, gamma=gamma, tau=0.0)
