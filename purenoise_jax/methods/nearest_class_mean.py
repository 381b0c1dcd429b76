"""Nearest class mean (NCM): classifies a feature by the nearest mean feature of a class.

Source: Kang et al. 2020, section 4.
"""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from purenoise_jax.data.batch import natural_rows
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.linear_head import change_head, kernel_of, norms
from purenoise_jax.methods.method import UsualPhase
from purenoise_jax.methods.recipe import Memory, Observed, Recipe
from purenoise_jax.methods.second_stage import over_fixed_backbone
from purenoise_jax.runtime.constraints import OneOf

NAME = "ncm"
COSINE, EUCLIDEAN = "cosine", "euclidean"
# One pass over the stored images, in which nothing trains.
PHASE = UsualPhase(start=1.0)


def class_sums(stats: DataStats) -> Memory:
    """A memory of the sum of features f32[F, K] and the number f32[K] of natural rows per class."""
    classes = stats.num_classes

    def init(variables: Any) -> dict[str, jax.Array]:
        size = kernel_of(variables["params"]).shape[0]
        return {"sums": jnp.zeros((size, classes)), "count": jnp.zeros(classes)}

    def update(tree: Any, observed: Observed) -> dict[str, jax.Array]:
        batch = observed.batch
        natural = natural_rows(batch)
        one_hot = jax.nn.one_hot(batch["label"], classes) * natural[:, None]
        features = jnp.where(natural[:, None], observed.outputs["features"], 0)
        sums = jnp.matmul(features.T, one_hot, precision=jax.lax.Precision.HIGHEST)
        return {"sums": tree["sums"] + sums, "count": tree["count"] + one_hot.sum(axis=0)}

    return Memory(init, update)


def nearest_mean_head(means: jax.Array, distance: str) -> dict[str, jax.Array]:
    """Returns the linear head whose largest logit is that of the nearest mean.

    Args:
        means: f32[F, K], the mean feature of every class in columns.
        distance: `COSINE`: logits are <feature, mean> / |mean|, which orders the classes as the
            cosines do. `EUCLIDEAN`: logits are <feature, mean> - |mean| ** 2 / 2, which is half the
            negative squared distance but for |feature| ** 2 / 2, the same for all classes.

    Returns:
        "kernel" f32[F, K] and "bias" f32[K].
    """
    length = norms(means)
    if distance == COSINE:
        kernel = jnp.where(length > 0, means / jnp.where(length > 0, length, 1), 0)
        return {"kernel": kernel, "bias": jnp.zeros(means.shape[1])}
    return {"kernel": means, "bias": -jnp.square(length[0]) / 2}


def nearest_class_mean(
    recipe: Recipe,
    stats: DataStats,
    *,
    distance: Annotated[str, OneOf((COSINE, EUCLIDEAN)), "by which a mean is nearest"] = COSINE,
) -> Recipe:
    """Replaces the classifier in evaluation by the mean features of the classes; nothing trains.

    READING: the source has the cosine, and the Euclidean distance to means of length 1, and does
    not say which its tables use. Both order the classes alike, as `COSINE`, the default, does.
    `EUCLIDEAN` is the distance to the means as they are, of which the authors' code is capable.
    DEVIATION: the default of that code centres every feature and scales it to length 1, before the
    means are taken and in evaluation, which no linear head does.

    The means are those of the stored images. An epoch visits each once, as the authors' code does,
    unless another method of the phase draws by class.
    """

    def eval_variables(state: Any) -> dict[str, Any]:
        tree = state.extra[NAME]
        means = tree["sums"] / jnp.maximum(tree["count"], 1)[None]
        head = nearest_mean_head(means, distance)
        params = change_head(state.params, lambda name, array: head[name])
        return {"params": params, "batch_stats": state.batch_stats}

    return dataclasses.replace(
        over_fixed_backbone(recipe, trainable=lambda path: False),
        memory={**recipe.memory, NAME: class_sums(stats)},
        eval_variables=eval_variables,
        augments=False,
    )
