"""Remix: mixes pairs of images as mixup does, and favours the rarer class in the label.

Source: Chou et al. 2020 ("Remix: rebalanced mixup"), their rule for the share of the label, and
alpha, kappa and tau.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.mixing import Alpha, with_mixtures
from purenoise_jax.methods.mixing_weights import OptionalBeta, OptionalWeightFn, optional_limits_of
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.runtime.constraints import Real


def label_share(
    share: jax.Array, size: jax.Array, size_of_other: jax.Array, *, kappa: float, tau: float
) -> jax.Array:
    """Returns the share of the label of each row in its mixture, f32[B].

    Args:
        share: f32[] or f32[B], share s of the row's image.
        size: f32[B], training images n of the row's class.
        size_of_other: f32[B], n' of the partner's class.
        kappa: above 1; the share is 0 if n / n' >= kappa and s < tau, and 1 if n' / n >= kappa and
            1 - s < tau; otherwise it is s.
        tau: in [0, 1].
    """
    yields = (size >= kappa * size_of_other) & (share < tau)
    takes_all = (size_of_other >= kappa * size) & (1 - share < tau)
    return jnp.where(takes_all, 1, jnp.where(yields, 0, share))


def remix(
    recipe: Recipe,
    stats: DataStats,
    *,
    alpha: Alpha = 1.0,
    kappa: Annotated[
        float, Real(1, above=True), "least ratio of the sizes of two classes at which one is rarer"
    ] = 3.0,
    tau: Annotated[
        float, Real(0, 1), "the rarer class has the whole label if the other's share is below tau"
    ] = 0.5,
    weight_fn: OptionalWeightFn = "none",
    beta: OptionalBeta = 2.0,
) -> Recipe:
    """Mixes images linearly; the label is that of the rarer class, or mixed in the same way.

    With a `weight_fn`, each row has a share of its own; see `manifold_mixup`.

    READING: natural rows are mixed with natural rows, and pure noise with pure noise.
    READING: the image itself has the larger share, see `draw_share`, because the rule treats both
    rows of a pair alike. The training accuracy counts the row's own label.
    """
    counts = jnp.asarray(stats.class_counts, jnp.float32)

    def of_label(share: jax.Array, label: jax.Array, other: jax.Array) -> jax.Array:
        return label_share(share, counts[label], counts[other], kappa=kappa, tau=tau)

    limits = optional_limits_of(weight_fn, stats.class_counts, beta)
    return with_mixtures(
        recipe, alpha=alpha, places=("input",), limits=limits, label_share=of_label
    )
