"""SimCLR: contrastive learning of two views, beside supervised training or before it.

Source: Chen et al. 2020, equation 1 and algorithm 1; Shwartz-Ziv et al. 2023 and their code
(self_supervised/SimCLR) for the projector and the temperature.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.methods.two_views import with_view_loss
from purenoise_jax.models.heads import unit_length
from purenoise_jax.runtime.constraints import Real


def nt_xent(
    first: jax.Array, second: jax.Array, natural: jax.Array, temperature: float
) -> jax.Array:
    """Returns the normalised temperature-scaled cross-entropy [] of two views, in nats.

    Of all other projections of the batch, each must find the other view of its own image: the loss
    is the cross-entropy of softmax(cosine / temperature), in the mean over all projections.

    Args:
        first: [B, D], projections of the first views.
        second: [B, D], of the second views.
        natural: bool[B], the rows that count; without one the loss is 0.
        temperature: above 0.
    """
    rows = len(natural)
    both, real = jnp.concatenate([first, second]), jnp.concatenate([natural, natural])
    both = unit_length(jnp.where(real[:, None], both, 0), axis=1)
    cosine = jnp.matmul(both, both.T, precision=jax.lax.Precision.HIGHEST)
    others = real[None] & ~jnp.eye(2 * rows, dtype=bool)
    # Finite, and so is the loss of a row without others.
    logits = jnp.where(others, cosine / temperature, jnp.finfo(cosine.dtype).min)
    own = (both[:rows] * both[rows:]).sum(axis=1) / temperature
    losses = jax.nn.logsumexp(logits, axis=1) - jnp.concatenate([own, own])
    return jnp.where(real, losses, 0).sum() / jnp.maximum(real.sum(), 1)


def simclr(
    recipe: Recipe,
    stats: DataStats,
    *,
    temperature: Annotated[
        float, Real(0.001), "divisor of the cosines; lower = closer images count more"
    ] = 0.5,
    supervised_weight: Annotated[
        float, Real(0), "weight of the supervised loss; 0 = pre-training without labels"
    ] = 1.0,
) -> Recipe:
    """Adds the contrastive loss of two views to the loss of the first views.

    The network needs `model.projector=simclr`. With `supervised_weight=0` labels have no effect and
    the head does not train: this is SimCLR, and a later phase trains the classifier.

    READING: the source pre-trains with SimCLR in a run of its own. By default the supervised loss
    is added, as its Joint-SSL adds it to VICReg, so that a run with this method alone classifies.
    READING: noise rows are no views of an image and have no part in the contrastive loss.
    DEVIATION: the code of Shwartz-Ziv et al. sets negative cosines to almost zero; here, as in Chen
    et al., all cosines count.
    """
    del stats

    def loss(first: jax.Array, second: jax.Array, natural: jax.Array) -> jax.Array:
        return nt_xent(first, second, natural, temperature)

    return with_view_loss(recipe, loss, supervised_weight)
