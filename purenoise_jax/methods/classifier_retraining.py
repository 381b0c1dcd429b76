"""Classifier re-training (cRT): trains only the head, on balanced draws, over a fixed backbone.

Source: Kang et al. 2020, section 4; Zhang et al. 2021 ("Bag of Tricks") for CIFAR.
"""

from typing import Annotated

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.method import UsualPhase
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.methods.resampling import class_balanced_sampling
from purenoise_jax.methods.second_stage import FROZEN, BatchNorm, over_fixed_backbone

# 30 epochs after 200, as Zhang et al. have it on CIFAR.
SECOND_STAGE = UsualPhase(
    start=1.0,
    epochs=30 / 200,
    reset=("head", "opt_state"),
    learning_rate=0.1,
    schedule={
        "warmup_epochs": 5 / 30,
        "milestones": (10 / 30, 20 / 30),
        "gamma": 0.1,
        "weight_decay": 5e-4,
    },
)


def classifier_retraining(
    recipe: Recipe, stats: DataStats, *, bn: Annotated[BatchNorm, FROZEN] = FROZEN
) -> Recipe:
    """Trains the head with class-balanced draws; the backbone is constant.

    A phase with this method usually resets the head and the optimiser at its start.

    READING: the backbone's batch norm uses its running statistics, because the paper fixes the
    representation. In the code of both sources it stays in training mode (`bn="shifted"`).

    DEVIATION: every row's class is drawn by itself. The sampler of Kang et al. takes four images of
    each class in turn, which gives every class the same number of rows.
    """
    return over_fixed_backbone(class_balanced_sampling(recipe, stats), bn)
