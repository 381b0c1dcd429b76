"""MaxNorm: the classifier trains on with large weight decay and weight vectors of limited length.

Source: Alshammari et al. 2022 ("Long-Tailed Recognition via Weight Balancing"), and their code.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.class_balanced_weights import effective_weights
from purenoise_jax.methods.linear_head import change_head, kernel_of, norms
from purenoise_jax.methods.method import UsualPhase
from purenoise_jax.methods.recipe import Memory, Params, Recipe, cross_entropy
from purenoise_jax.methods.second_stage import FROZEN, BatchNorm, over_fixed_backbone
from purenoise_jax.runtime.constraints import OneOf, Real

NAME = "maxnorm"
# 10 epochs after 200.
PHASE = UsualPhase(
    start=1.0,
    epochs=10 / 200,
    reset=("opt_state",),
    learning_rate=0.01,
    schedule={"schedule": "cosine", "weight_decay": 0.1},
)


def radius_of(kernel: jax.Array, threshold: float) -> jax.Array:
    """Returns the largest length of a weight vector, f32[]: between the shortest and the longest.

    Args:
        kernel: f32[F, K], the weight vectors in columns.
        threshold: 0 = the length of the shortest, 1 = that of the longest.
    """
    length = norms(kernel)
    return length.min() + threshold * (length.max() - length.min())


def projected(kernel: jax.Array, radius: jax.Array) -> jax.Array:
    """Returns weight vectors of which those longer than the radius are scaled down to it.

    Args:
        kernel: f32[F, K].
        radius: f32[].
    """
    length = norms(kernel)
    return kernel * jnp.where(length > radius, radius / jnp.where(length > 0, length, 1), 1)


def softmax_binary_cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Returns the mean over the classes of the binary cross-entropies of softmax probabilities.

    As in PyTorch, no logarithm is below -100.

    Args:
        logits: f32[B, K].
        target: f32[B, K].

    Returns:
        f32[B], in nats.
    """
    top = jax.nn.one_hot(logits.argmax(axis=1), logits.shape[1], dtype=bool)
    log_p = jax.nn.log_softmax(logits)
    # The logarithm of 1 - p is exact as a sum over the other classes, which only p near 1 needs.
    others = jax.nn.logsumexp(jnp.where(top, -jnp.inf, logits), axis=1, keepdims=True)
    others -= jax.nn.logsumexp(logits, axis=1, keepdims=True)
    log_rest = jnp.where(top, others, jnp.log1p(-jnp.where(top, 0, jnp.exp(log_p))))
    terms = target * jnp.maximum(log_p, -100) + (1 - target) * jnp.maximum(log_rest, -100)
    return -terms.mean(axis=1)


LOSSES = {"cross_entropy": cross_entropy, "binary": softmax_binary_cross_entropy}


def max_norm(
    recipe: Recipe,
    stats: DataStats,
    *,
    beta: Annotated[
        float, Real(0, 1, below=True), "near 1, class weights are proportional to 1 / images"
    ] = 0.9999,
    threshold: Annotated[
        float, Real(0, 1), "largest length of a weight vector: 0 = the shortest, 1 = the longest"
    ] = 0.1,
    loss: Annotated[str, OneOf(LOSSES), "of the softmax, weighted by class"] = "cross_entropy",
    bn: BatchNorm = FROZEN,
) -> Recipe:
    """Trains the head on with class-balanced weights, over vectors of limited length.

    The limit comes from the weight vectors at the start of the phase, and holds after every step
    for those of all classes; biases have none. Every image is drawn once an epoch.

    READING: the paper names the class-balanced softmax loss, which is a weighted cross-entropy. The
    authors' code computes binary cross-entropies of the softmax probabilities and takes their mean
    over rows and classes (`loss="binary"`). Both divide by the number of rows.

    READING: the projection follows every step, as in the paper; the code has it after every epoch.

    READING: the backbone's batch norm uses its running statistics, because the paper fixes the
    backbone; in the code it stays in training mode (`bn="shifted"`).
    """

    def init(variables: Any) -> jax.Array:
        return radius_of(kernel_of(variables["params"]), threshold)

    def project(params: Params, memory: Mapping[str, Any]) -> Params:
        def change(name: str, array: jax.Array) -> jax.Array:
            return projected(array, memory[NAME]) if name == "kernel" else array

        return change_head(params, change)

    return dataclasses.replace(
        over_fixed_backbone(recipe, bn),
        loss=LOSSES[loss],
        class_weights=effective_weights(stats.class_counts, beta),
        memory={**recipe.memory, NAME: Memory(init, lambda radius, observed: radius)},
        project=project,
    )
