"""Label-distribution-aware margin loss (LDAM): rarer classes have larger margins.

Source: Cao et al. 2019, equations 11 to 13, and their code (losses.py) for scale and order.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.recipe import Recipe, cross_entropy
from purenoise_jax.runtime.constraints import Real


def margins(class_counts: np.ndarray, max_margin: float) -> np.ndarray:
    """Returns the margin of every class, proportional to n ** (-1/4); f32[K], at most `max_margin`.

    Args:
        class_counts: int[K], training images per class, each at least 1.
        max_margin: margin of the rarest class.
    """
    margin = np.asarray(class_counts, np.float64) ** -0.25
    return (margin * (max_margin / margin.max())).astype(np.float32)


def ldam(
    recipe: Recipe,
    stats: DataStats,
    *,
    max_margin: Annotated[float, Real(0, 2), "margin of the rarest class, in cosines"] = 0.5,
    scale: Annotated[float, Real(0, above=True), "factor of cosines in the softmax"] = 30.0,
) -> Recipe:
    """Uses the cross-entropy of scale * (cosine - margin of the label); the head must be cosine.

    The margins are subtracted before scaling. Evaluation scales the cosines too, so that likelihood
    and calibration are those of the trained softmax.

    READING: for a soft target y, which the authors do not use, y times the margins is subtracted.
    """
    margin = jnp.asarray(margins(stats.class_counts, max_margin))

    def loss(logits: jax.Array, target: jax.Array) -> jax.Array:
        return cross_entropy(scale * (logits - margin[None] * target), target)

    return dataclasses.replace(
        recipe,
        loss=loss,
        postprocess=lambda logits, log_prior=None: scale * logits,
    )
