"""Mixup: mixes pairs of images and their losses.

Source: Zhang et al. 2018, equations 1 and 2, and their code for one ratio and one permutation per
batch. The authors use alpha = 1 on CIFAR, as do collections of methods for long-tailed data.
"""

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.manifold_mixup import manifold_mixup
from purenoise_jax.methods.mixing import Alpha
from purenoise_jax.methods.mixing_weights import OptionalBeta, OptionalWeightFn
from purenoise_jax.methods.recipe import Recipe


def mixup(
    recipe: Recipe,
    stats: DataStats,
    *,
    alpha: Alpha = 1.0,
    weight_fn: OptionalWeightFn = "none",
    beta: OptionalBeta = 2.0,
) -> Recipe:
    """Manifold mixup whose only place is the input; see `manifold_mixup`."""
    return manifold_mixup(
        recipe, stats, alpha=alpha, places=("input",), weight_fn=weight_fn, beta=beta
    )
