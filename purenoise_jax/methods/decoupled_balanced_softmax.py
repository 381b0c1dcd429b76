"""Decoupled balanced softmax: a new classifier trains with balanced softmax over a fixed backbone.

Source: Ren et al. 2020, section 4, and their code (decoupled training without the meta sampler).
"""

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.logit_adjustment import logit_adjusted_loss
from purenoise_jax.methods.method import UsualPhase
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.methods.second_stage import SHIFTED, BatchNorm, over_fixed_backbone

# 2,000 iterations after 13,000 of plain training.
PHASE = UsualPhase(
    start=1.0,
    epochs=2 / 13,
    reset=("head", "opt_state"),
    learning_rate=0.1,
    schedule={"schedule": "cosine", "weight_decay": 5e-4},
)


def decoupled_balanced_softmax(
    recipe: Recipe, stats: DataStats, *, bn: BatchNorm = SHIFTED
) -> Recipe:
    """Trains the head with balanced softmax; every image is drawn once an epoch.

    A phase with this method usually resets the head and the optimiser at its start.

    READING: the backbone's batch norm stays in training mode, as in the authors' code.
    """
    return over_fixed_backbone(logit_adjusted_loss(recipe, stats), bn)
