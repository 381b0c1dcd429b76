"""GLMC: consistency of globally and locally mixed views, and a classifier of weighted classes.

Source: Du et al. 2023, section 3 and algorithm 1, and their code (Trainer.py, util.py).
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp

from purenoise_jax.data.batch import Batch, natural_rows
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.cutmix import box
from purenoise_jax.methods.mixing import Alpha, draw_partners, mean_of_pairs, of_partners
from purenoise_jax.methods.networks import Networks
from purenoise_jax.methods.recipe import Outcome, Recipe, add_batch_loss
from purenoise_jax.methods.reweighting import inverse_weights
from purenoise_jax.methods.two_views import second_view
from purenoise_jax.models.heads import unit_length
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.constraints import Real


def distance(prediction: jax.Array, projection: jax.Array, natural: jax.Array) -> jax.Array:
    """Negative mean cosine [] of predictions and constant projections [B, D] of natural rows."""
    target = jax.lax.stop_gradient(projection)
    cosine = (unit_length(prediction, axis=1) * unit_length(target, axis=1)).sum(axis=1)
    return -jnp.where(natural, cosine, 0).sum() / jnp.maximum(natural.sum(), 1)


def two_heads(
    recipe: Recipe,
    networks: Networks,
    batch: Batch,
    *,
    share: jax.Array,
    partner: jax.Array,
    pasted: jax.Array,
    class_weights: jax.Array,
    contrast_weight: float,
) -> Outcome:
    """Runs the passes of both mixed views, and combines their losses; see `glmc`.

    Args:
        recipe: source of the loss, and of class weights of other methods.
        networks: networks of the step.
        batch: batch of the step, with second views.
        share: f32[], share of the row itself in its mixtures.
        partner: i32[B], a permutation.
        pasted: bool[H, W], pixels of the box.
        class_weights: f32[K], of the head's losses.
        contrast_weight: weight of the consistency.
    """
    first, second, noise_mask = batch["image"], second_view(batch), batch.get("noise_mask")
    mixed = share * first + (1 - share) * of_partners(first, partner)
    cut = jnp.where(pasted[None, :, :, None], of_partners(second, partner), second)
    (logits, one), (cut_logits, two) = (networks.forward(x, noise_mask) for x in (mixed, cut))
    plain_share = 1 - jnp.square(networks.progress)

    def losses(target: jax.Array, weight: jax.Array) -> jax.Array:
        """The losses [B] of both views and heads for targets [B, K] with weights [B]."""
        plain = recipe.loss(one["plain_logits"], target) + recipe.loss(two["plain_logits"], target)
        weighted = weight * (recipe.loss(logits, target) + recipe.loss(cut_logits, target))
        return plain_share * plain + (1 - plain_share) * weighted

    target, weight = batch["target"], class_weights[batch["label"]]
    own = losses(target, weight)
    other = losses(of_partners(target, partner), of_partners(weight, partner))
    mean, weights = mean_of_pairs(recipe, batch, own, other, share=share, partner=partner)
    natural = natural_rows(batch)
    consistency = distance(one["prediction"], two["projection"], natural)
    consistency += distance(two["prediction"], one["projection"], natural)
    return add_batch_loss(Outcome(mean, logits, weights, one), contrast_weight * consistency)


def glmc(
    recipe: Recipe,
    stats: DataStats,
    *,
    alpha: Alpha = 1.0,
    power: Annotated[float, Real(0), "of the inverse frequency, which weights classes"] = 1.2,
    contrast_weight: Annotated[float, Real(0), "weight of the consistency of the views"] = 1.0,
) -> Recipe:
    """Trains on two mixed views, with a plain classifier and the head, whose classes are weighted.

    A step draws one share for all rows, and a partner for each. The first view is the mixture
    share * x + (1 - share) * x' of first views (global); the second is a second view in which a box
    is replaced by that of the partner (local). The losses of both labels have the weights share
    and 1 - share in both views. The loss is

        a * plain + (1 - a) * weighted + contrast_weight * consistency,    a = 1 - t ** 2,

    where t is the share of the training that is completed, all its phases together. "plain" is the
    loss of a classifier that only trains, "weighted" that of the head with the weight of each
    label's class, both summed over the views, and "consistency" the negative cosine of each view's
    prediction and the other's projection, which is a constant (SimSiam). The network needs
    `model.projector=glmc`.

    READING: the partners are a permutation of the batch, in place of a second batch. The authors
    draw that with replacement, with the same probability for every image for a ratio of 100; for a
    ratio of 10, and for CIFAR-100 at 50, in proportion to n ** -0.2 of its class.
    READING: natural rows are mixed with natural rows, and pure noise with pure noise; noise has no
    part in the consistency, and the same image in both views.
    READING: the default of `contrast_weight` is that for CIFAR-10 at a ratio of 100; for CIFAR-100
    the authors have 4.
    DEVIATION: t grows by step; the authors' by epoch.
    """
    class_weights = jnp.asarray(inverse_weights(stats.class_counts, power))
    shape = stats.image_shape[:2]

    def objective(recipe: Recipe, networks: Networks, batch: Batch, key: jax.Array) -> Outcome:
        share_key, centre_key, partner_key = rng.split(key, 3)
        share = rng.beta(share_key, alpha, alpha, ()) if alpha else jnp.ones(())
        centre = rng.randint(centre_key, (2,), 0, jnp.array(shape, jnp.int32))
        return two_heads(
            recipe,
            networks,
            batch,
            share=share,
            partner=draw_partners(partner_key, batch),
            pasted=box(share, centre, shape, round_up=True),
            class_weights=class_weights,
            contrast_weight=contrast_weight,
        )

    return dataclasses.replace(recipe, objective=objective, views=2)
