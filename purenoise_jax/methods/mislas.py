"""The second stage of MiSLAS: a scaled classifier with label-aware smoothing, on balanced draws.

Source: Zhong et al. 2021 (mixup shifted label-aware smoothing), and their code.
"""

import dataclasses
from typing import Annotated

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.label_smoothing import label_aware_smoothing
from purenoise_jax.methods.method import UsualPhase
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.methods.resampling import class_balanced_sampling
from purenoise_jax.methods.second_stage import FROZEN, BatchNorm, over_fixed_backbone
from purenoise_jax.methods.weight_scaling import is_scale
from purenoise_jax.runtime.constraints import Real

# 10 epochs after 200.
PHASE = UsualPhase(
    start=1.0,
    epochs=10 / 200,
    reset=("opt_state",),
    learning_rate=0.1,
    schedule={"schedule": "cosine", "weight_decay": 2e-4},
)


def mislas(
    recipe: Recipe,
    stats: DataStats,
    *,
    head_smoothing: Annotated[float, Real(0, 1), "of the label of the most frequent class"] = 0.3,
    tail_smoothing: Annotated[float, Real(0, 1), "of the label of the rarest class"] = 0.0,
    lr_factor: Annotated[
        float, Real(0), "learning rate of weights and biases over that of the scales"
    ] = 0.5,
    bn: BatchNorm = FROZEN,
) -> Recipe:
    """Trains the whole scaled head, with a smaller rate for weights and biases than for the scales.

    The first stage of MiSLAS is mixup with alpha = 1, so a config names mixup+mislas. The defaults
    are those for CIFAR-10-LT with a ratio of 100. For CIFAR-100-LT with that ratio the authors have
    a smoothing of 0.4 and 0.1, a factor of 0.2 and `bn="shifted"`.

    READING: classes are drawn independently with equal probability; the authors' sampler goes
    through all classes in a random order and draws 4 images of each.
    """
    recipe = class_balanced_sampling(recipe, stats)
    recipe = label_aware_smoothing(recipe, stats, head=head_smoothing, tail=tail_smoothing)
    return dataclasses.replace(
        over_fixed_backbone(recipe, bn, trainable=lambda path: path[0] == "head"),
        lr_factor=lambda path: 1.0 if is_scale(path) else lr_factor,
    )
