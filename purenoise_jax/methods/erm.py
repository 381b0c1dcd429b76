"""Empirical risk minimisation: every image once an epoch, cross-entropy."""

from purenoise_jax.recipe import DataStats, Recipe


def erm(recipe: Recipe, stats: DataStats) -> Recipe:
    """Leaves the recipe as it is."""
    del stats
    return recipe
