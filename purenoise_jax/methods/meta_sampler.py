"""The meta sampler of BALMS: the rate at which each class is drawn is learnt beside the classifier.

Source: Ren et al. 2020, section 3.3 and algorithm 1, and their code for the optimisers.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax

from purenoise_jax.data.batch import Batch
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.decoupled_balanced_softmax import decoupled_balanced_softmax
from purenoise_jax.methods.networks import Networks
from purenoise_jax.methods.recipe import Loss, Memory, Observed, Outcome, Recipe, cross_entropy
from purenoise_jax.methods.resampling import class_balanced_sampling
from purenoise_jax.methods.second_stage import SHIFTED, BatchNorm
from purenoise_jax.models.heads import Linear
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.constraints import Real

NAME = "meta_sampler"


def log_rates(w: jax.Array, log_counts: jax.Array) -> jax.Array:
    """Returns log(n * sigmoid(w)) of every class, f32[K]: the logits of the draw of a class.

    Args:
        w: f32[K], the sampler's parameters.
        log_counts: f32[K], logarithm of the training images n per class.
    """
    return log_counts + jax.nn.log_sigmoid(w)


def mean_of(losses: jax.Array, counted: jax.Array) -> jax.Array:
    """Returns the mean [] of the losses f32[B] of the rows bool[B] that count; 0 without any."""
    return jnp.where(counted, losses, 0).sum() / jnp.maximum(counted.sum(), 1)


def meta_gradient(w: jax.Array, observed: Observed, loss: Loss, log_counts: jax.Array) -> jax.Array:
    """Returns the gradient f32[K] of the meta loss with respect to the sampler's parameters.

    The meta loss is the cross-entropy of the head after the step, for the balanced rows. The head
    depends on w through the weights of the drawn rows. A weight is 1, with the gradient of the
    probability of the row's class in softmax(log rates + Gumbel noise) (straight-through).

    Args:
        w: f32[K].
        observed: of the step; its batch has "gumbel" f32[B, K], and its outputs "features" and
            "host_features" [B, F].
        loss: that trains the head.
        log_counts: f32[K].
    """
    batch, outputs, classifier = observed.batch, observed.outputs, Linear(len(log_counts))
    rows = len(batch["gumbel"])
    # Rows that a method appended are behind the drawn ones, and have no part here.
    drawn, counted, label, target = (
        x[:rows] for x in (outputs["features"], batch["valid"], batch["label"], batch["target"])
    )

    def logits(head: Any, features: jax.Array, valid: jax.Array) -> Any:
        # Zeros in padding, which may hold any values, keep the gradient finite.
        return classifier.apply({"params": head}, jnp.where(valid[:, None], features, 0))

    def inner(head: Any, weights: jax.Array) -> jax.Array:
        return mean_of(weights * loss(logits(head, drawn, counted), target), counted)

    def outer(w: jax.Array) -> jax.Array:
        relaxed = jax.nn.softmax(log_rates(w, log_counts)[None] + batch["gumbel"])
        chosen = jnp.take_along_axis(relaxed, label[:, None], axis=1)[:, 0]
        weights = 1 + chosen - jax.lax.stop_gradient(chosen)
        gradient = jax.grad(inner)(observed.before["params"]["head"], weights)
        # The head after the step as a function of the gradient, which is at its value.
        head = jax.tree.map(
            lambda x, g: x - observed.learning_rate * (g - jax.lax.stop_gradient(g)),
            observed.variables["params"]["head"],
            gradient,
        )
        valid, classes = batch["host_valid"], len(log_counts)
        one_hot = jax.nn.one_hot(batch["host_label"], classes)
        found = logits(head, outputs["host_features"], valid)
        return mean_of(cross_entropy(found, one_hot), valid)

    return jax.grad(outer)(w)


def meta_sampler(
    recipe: Recipe,
    stats: DataStats,
    *,
    sampler_lr: Annotated[
        float, Real(0), "learning rate of the sampler, by Adam; 0 = images are drawn uniformly"
    ] = 0.01,
    bn: BatchNorm = SHIFTED,
) -> Recipe:
    """Trains the head with balanced softmax on rows that a learnt sampler draws.

    The sampler has one parameter w per class, 0 at first, and draws an image with a probability
    proportional to sigmoid(w) of its class. So all images are equally likely at first. After each
    step of the head, Adam moves w along the gradient of the cross-entropy of the new head, for
    class-balanced rows of the training set; see `meta_gradient`. A phase with this method usually
    resets the head and the optimiser at its start.

    READING: the step of the head that the gradient passes through is that of the run, with its
    momentum and weight decay, as the authors' copy of their optimiser has them. A gradient counts
    in it with the learning rate, as in SGD; other optimisers are treated alike. Class weights of
    other methods have no part in it.
    READING: the balanced rows are drawn as by `rs`; the authors' sampler takes one image per class
    in turn. Both kinds of rows are augmented.
    READING: the backbone's batch norm stays in training mode, as in the authors' code.
    DEVIATION: a class is drawn first, by Gumbel noise on log(n * sigmoid(w)), and then one of its
    images. The authors draw among all images at once. The law of the images is the same. That of
    the gradient is not: the relaxed probability is that of a class instead of an image.
    DEVIATION: the features of the drawn rows are computed once per step. The authors compute them
    twice, which moves the running statistics once more.
    """
    log_counts = jnp.log(jnp.asarray(stats.class_counts, jnp.float32))
    recipe = class_balanced_sampling(decoupled_balanced_softmax(recipe, stats, bn=bn), stats)
    loss, adam = recipe.loss, optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)

    def class_draw(
        key: jax.Array, memory: Mapping[str, Any], rows: int
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        noise = rng.gumbel(key, (rows, len(log_counts)))
        scores = log_rates(memory[NAME]["w"], log_counts)[None] + noise
        return jnp.argmax(scores, axis=1).astype(jnp.int32), {"gumbel": noise}

    def balanced_rows(
        recipe: Recipe, networks: Networks, batch: Batch, outcome: Outcome
    ) -> Outcome:
        del recipe
        _, others = networks.forward(batch["host_image"], valid=batch["host_valid"])
        outputs = {**outcome.outputs, "host_features": others["features"]}
        return outcome._replace(outputs=outputs)

    def init(variables: Any) -> dict[str, Any]:
        del variables
        w = jnp.zeros(len(log_counts), jnp.float32)
        return {"w": w, "adam": adam.init(w)}

    def update(tree: Any, observed: Observed) -> dict[str, Any]:
        gradient = meta_gradient(tree["w"], observed, loss, log_counts)
        moved, state = adam.update(gradient, tree["adam"])
        new = {"w": tree["w"] - sampler_lr * moved, "adam": state}
        # Momentum moves nothing in a step without rows.
        some = observed.batch["host_valid"].any()
        return jax.tree.map(lambda x, old: jnp.where(some, x, old).astype(old.dtype), new, tree)

    return dataclasses.replace(
        recipe,
        class_draw=class_draw,
        terms=(*recipe.terms, balanced_rows),
        memory={**recipe.memory, NAME: Memory(init, update)},
    )
