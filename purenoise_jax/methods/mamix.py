"""Margin-aware mixup (MAMix): mixes images as mixup does, and shifts the label to the rarer class.

Source: Cheng et al. 2023 ("From SMOTE to mixup for deep imbalanced classification"), and their code
(imbalanced-DL) for the share of the label, the exponent 1/4 and alpha = 1.
"""

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.mixing import Alpha, with_mixtures
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.runtime.constraints import Real


def label_share(share: jax.Array, margin: jax.Array, margin_of_other: jax.Array) -> jax.Array:
    """Returns the share of the label of each row in its mixture, f32[B].

    It is linear in the share of the image from 0 to k' / (k + k'), where it is 1/2, and from there
    to 1.

    Args:
        share: f32[] or f32[B], share of the row's image.
        margin: f32[B], k of the row's class, above 0.
        margin_of_other: f32[B], k' of the partner's class.
    """
    total = margin + margin_of_other
    half_at, rest = margin_of_other / total, margin / total
    return jnp.where(share < half_at, share / (2 * half_at), 1 - (1 - share) / (2 * rest))


def mamix(
    recipe: Recipe,
    stats: DataStats,
    *,
    alpha: Alpha = 1.0,
    exponent: Annotated[
        float, Real(0, 4), "margins are proportional to n ** -exponent; 0 = mixup"
    ] = 0.25,
) -> Recipe:
    """Mixes images linearly; labels are equal at the point that the margins of two classes give.

    The margin of a class with n images is n ** -exponent. The shares of two images at which their
    labels have equal shares are in the inverse ratio of the margins, so that a rarer class keeps
    its label over a longer distance.

    READING: natural rows are mixed with natural rows, and pure noise with pure noise.
    READING: the image itself has the larger share, see `draw_share`, because the rule treats both
    rows of a pair alike. The training accuracy counts the row's own label, which may have the
    smaller share; the authors count unmixed images, with a second forward pass.
    """
    counts = np.asarray(stats.class_counts, np.float64)
    margins = jnp.asarray((counts**-exponent).astype(np.float32))

    def of_label(share: jax.Array, label: jax.Array, other: jax.Array) -> jax.Array:
        return label_share(share, margins[label], margins[other])

    return with_mixtures(recipe, alpha=alpha, places=("input",), label_share=of_label)
