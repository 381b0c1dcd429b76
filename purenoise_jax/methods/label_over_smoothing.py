"""Label over-smoothing (LOS): the classifier trains on with labels that are almost uniform.

Source: Sun et al. 2025 ("Rethinking Classifier Re-Training in Long-Tailed Recognition: Label
Over-Smooth Can Balance"), and their code.
"""

from typing import Annotated

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.label_smoothing import label_smoothing
from purenoise_jax.methods.method import UsualPhase
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.methods.second_stage import FROZEN, BatchNorm, over_fixed_backbone
from purenoise_jax.runtime.constraints import Real

# 20 epochs after 200.
PHASE = UsualPhase(
    start=1.0,
    epochs=20 / 200,
    reset=("opt_state",),
    learning_rate=5e-4,
    schedule={"schedule": "cosine", "weight_decay": 0.0},
)


def label_over_smoothing(
    recipe: Recipe,
    stats: DataStats,
    *,
    epsilon: Annotated[float, Real(0, 1), "smoothing of every label"] = 0.98,
    bn: BatchNorm = FROZEN,
) -> Recipe:
    """Trains the head on from its weights; every image is drawn once an epoch.

    READING: the backbone's batch norm uses its running statistics, because the source compares
    classifiers over the same features.
    """
    recipe = label_smoothing(recipe, stats, rule="uniform", epsilon=epsilon)
    return over_fixed_backbone(recipe, bn)
