"""Learnable weight scaling (LWS): trains one scale per class over a fixed classifier.

Source: Kang et al. 2020, section 4, and their code; Zhang et al. 2021 ("Bag of Tricks") for CIFAR.
"""

import dataclasses

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.classifier_retraining import SECOND_STAGE
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.methods.resampling import class_balanced_sampling
from purenoise_jax.methods.second_stage import FROZEN, BatchNorm, over_fixed_backbone
from purenoise_jax.models.heads import CLASS_SCALE

# As classifier re-training, except that the classifier keeps its weights.
PHASE = dataclasses.replace(SECOND_STAGE, reset=("opt_state",))


def is_scale(path: tuple[str, ...]) -> bool:
    """Returns True for the scales of a scaled head."""
    return path[-1] == CLASS_SCALE


def weight_scaling(recipe: Recipe, stats: DataStats, *, bn: BatchNorm = FROZEN) -> Recipe:
    """Trains the scales of a scaled head with class-balanced draws; all other parameters are fixed.

    READING: the paper scales the weight vectors; its code, and that of Zhang et al., scales the
    biases too, as the head here does.

    READING: the backbone's batch norm uses its running statistics, because the paper fixes the
    representation. In both codes it stays in training mode (`bn="shifted"`).
    """
    return over_fixed_backbone(class_balanced_sampling(recipe, stats), bn, is_scale)
