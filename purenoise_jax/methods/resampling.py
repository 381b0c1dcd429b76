"""Class-balanced resampling (RS), which is deferred (DRS) if its phase starts later.

Source: Cao et al. 2019; Lee and Lee 2023, section 5.2 (inverse-frequency draws with replacement).
"""

import dataclasses

import numpy as np

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.recipe import Recipe


def class_balanced_sampling(recipe: Recipe, stats: DataStats) -> Recipe:
    """Draws every class with equal probability, then one of its images uniformly."""
    uniform = np.full(stats.num_classes, 1 / stats.num_classes, np.float32)
    return dataclasses.replace(recipe, class_probs=uniform)
