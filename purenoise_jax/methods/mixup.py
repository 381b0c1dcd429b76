"""Mixup: mixes pairs of images and their losses.

Source: Zhang et al. 2018, equations 1 and 2, and their code for one ratio and one permutation per
batch. The authors use alpha = 1 on CIFAR, as do collections of methods for long-tailed data.
"""

from typing import Annotated

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.manifold_mixup import manifold_mixup
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.runtime.constraints import Real


def mixup(
    recipe: Recipe,
    stats: DataStats,
    *,
    alpha: Annotated[
        float,
        Real(0.001, or_zero=True),
        "the ratio is drawn from Beta(alpha, alpha); 0 = no mixing",
    ] = 1.0,
) -> Recipe:
    """Manifold mixup whose only place is the input; see `manifold_mixup`."""
    return manifold_mixup(recipe, stats, alpha=alpha, places=("input",))
