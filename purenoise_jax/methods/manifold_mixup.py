"""Manifold mixup: mixes the activations of pairs of rows at a random place, and their losses.

Source: Verma et al. 2019, section 2 and algorithm; their code for one ratio, one permutation and
one place per batch, and for the defaults (alpha = 2, places 0 to 2).
"""

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import jax
import jax.numpy as jnp

from purenoise_jax.data.batch import Batch
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.networks import Networks
from purenoise_jax.methods.recipe import Outcome, Recipe
from purenoise_jax.models.places import PLACES
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.constraints import Names, Real


def draw_share(key: jax.Array, alpha: float) -> jax.Array:
    """Draws the share f32[] in [1/2, 1] of a row in its mixture.

    It is the larger of x and 1 - x, with x from Beta(alpha, alpha). This distribution is symmetric,
    and a permutation is as likely as its inverse, so the mixtures of a batch are as likely with the
    share x as with 1 - x. With the larger one, a row's own label has the larger weight.

    Args:
        key: typed key [].
        alpha: both parameters of the distribution; 0 = nothing is mixed.
    """
    if not alpha:
        return jnp.ones(())
    share = rng.beta(key, alpha, alpha, ())
    return jnp.maximum(share, 1 - share)


def draw_partners(key: jax.Array, batch: Batch) -> jax.Array:
    """Draws the partner of each row, i32[B]: a random permutation of the rows of each kind.

    The kinds are natural, noise and padding. A norm treats a row as one of them, so a mixture of
    two kinds would be neither, and padding may hold any values.
    """
    valid = batch["valid"]
    kind = jnp.where(valid, batch.get("noise_mask", jnp.zeros_like(valid)), 2)
    # Rows sorted by kind, once in their own order and once in a random order within each kind.
    ordered = jnp.argsort(kind, stable=True)
    shuffled = jnp.lexsort((rng.uniform(key, valid.shape), kind))
    return jnp.zeros_like(shuffled).at[ordered].set(shuffled, unique_indices=True)


def mixed_loss(
    recipe: Recipe,
    networks: Networks,
    batch: Batch,
    *,
    share: jax.Array,
    partner: jax.Array,
    places: Sequence[str],
    drawn: jax.Array | int,
) -> Outcome:
    """Runs a forward pass with mixed activations and averages the losses for both labels.

    Args:
        recipe: source of the loss and the class weights; each label has the weight of its class.
        networks: networks of the step.
        batch: batch of the step.
        share: f32[], share of the row itself in its mixture.
        partner: i32[B], a permutation.
        places: places of the network.
        drawn: i32[], index in `places` of the place at which rows are mixed.
    """

    def of_partners(x: jax.Array) -> jax.Array:
        # Declares that no index repeats; otherwise the gradient would sum in no fixed order.
        return x.at[partner].get(unique_indices=True, mode="promise_in_bounds")

    def mix(place: str, x: jax.Array) -> jax.Array:
        if place not in places:
            return x
        mixed = (share * x + (1 - share) * of_partners(x)).astype(x.dtype)
        # A select in each place moves fewer bytes than a conditional in each, and a switch between
        # complete networks would compile one network per place.
        return jnp.where(drawn == places.index(place), mixed, x)

    logits, outputs = networks.forward(batch["image"], batch.get("noise_mask"), mix=mix)
    own = recipe.loss(logits, batch["target"])
    other = recipe.loss(logits, of_partners(batch["target"]))
    weights = recipe.row_weights(batch["label"], own.dtype)
    if weights is None:
        return Outcome(share * own + (1 - share) * other, logits, None, outputs)
    of_own, of_other = share * weights, (1 - share) * of_partners(weights)
    total = of_own + of_other
    mean = (of_own * own + of_other * other) / jnp.where(total > 0, total, 1)
    return Outcome(mean, logits, total, outputs)


def manifold_mixup(
    recipe: Recipe,
    stats: DataStats,
    *,
    alpha: Annotated[
        float,
        Real(0.001, or_zero=True),
        "the ratio is drawn from Beta(alpha, alpha); 0 = no mixing",
    ] = 2.0,
    places: Annotated[
        tuple[str, ...], Names(PLACES, needed=True), "places of the network; each step draws one"
    ] = ("input", "stage1", "stage2"),
) -> Recipe:
    """Mixes each row with another, share * x + (1 - share) * x', and their losses in the same way.

    Every step draws one of the places, one share and one permutation. With alpha = 0, or a share of
    1, nothing is mixed. The losses are those of the recipe, so each of the two labels has the
    margin and the class weight that other methods give it.

    READING: natural rows are mixed with natural rows, and pure noise with pure noise.
    READING: the row itself has the larger share, see `draw_share`. The training accuracy counts a
    mixture as correct if the prediction is the label with the larger weight; it is therefore lower
    than that of unmixed images.
    DEVIATION: the authors' code uses the binary cross-entropy of each class's probability; this
    uses the loss of the recipe, a cross-entropy by default as in Zhang et al. 2018.
    """
    del stats

    def objective(recipe: Recipe, networks: Networks, batch: Batch, key: jax.Array) -> Outcome:
        share_key, partner_key, place_key = rng.split(key, 3)
        return mixed_loss(
            recipe,
            networks,
            batch,
            share=draw_share(share_key, alpha),
            partner=draw_partners(partner_key, batch),
            places=places,
            drawn=rng.randint(place_key, (), 0, len(places)),
        )

    return dataclasses.replace(recipe, objective=objective, places=places)
