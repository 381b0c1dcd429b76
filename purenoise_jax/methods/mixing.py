"""Mixing of pairs of rows: shares, partners, forward passes, and losses for the labels of both."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.data.batch import Batch
from purenoise_jax.methods.networks import Networks
from purenoise_jax.methods.recipe import Outcome, Recipe
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.constraints import Real

Alpha = Annotated[
    float, Real(0.001, or_zero=True), "the ratio is drawn from Beta(alpha, alpha); 0 = no mixing"
]
# (activations [B, ...], those of the partners) -> mixtures of the same shape.
Blend = Callable[[jax.Array, jax.Array], jax.Array]
# (share f32[] or f32[B] of a row in its mixture, its label i32[B], its partner's label i32[B]) ->
# share of its label, f32[B].
LabelShare = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


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


def draw_row_shares(
    key: jax.Array, label: jax.Array, alpha: float, limits: np.ndarray
) -> jax.Array:
    """Draws the share of every row in its mixture, f32[B].

    The partner has the rest: a number from Beta(alpha, alpha), drawn for each row, times the limit
    of the row's class.

    Args:
        key: typed key [].
        label: i32[B].
        alpha: both parameters of the distribution; 0 = nothing is mixed.
        limits: f32[K] in [0, 1], see `mixing_weights`.
    """
    if not alpha:
        return jnp.ones(label.shape)
    return 1 - jnp.asarray(limits)[label] * rng.beta(key, alpha, alpha, label.shape)


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


def of_partners(x: jax.Array, partner: jax.Array) -> jax.Array:
    """Returns the entries [B, ...] of the partners i32[B], a permutation, of each row."""
    # Declares that no index repeats; otherwise the gradient would sum in no fixed order.
    return x.at[partner].get(unique_indices=True, mode="promise_in_bounds")


def linear(share: jax.Array) -> Blend:
    """Returns the blend share * x + (1 - share) * x', with shares f32[] or f32[B]."""

    def blend(x: jax.Array, other: jax.Array) -> jax.Array:
        own = jnp.expand_dims(share, tuple(range(share.ndim, x.ndim)))
        return own * x + (1 - own) * other

    return blend


def mixed_forward(
    networks: Networks,
    batch: Batch,
    *,
    blend: Blend,
    partner: jax.Array,
    places: Sequence[str],
    drawn: jax.Array | int = 0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Runs a forward pass with mixed activations: logits [B, K], and the network's other outputs.

    Args:
        networks: networks of the step.
        batch: batch of the step.
        blend: mixes the activations of two rows.
        partner: i32[B], a permutation.
        places: places of the network.
        drawn: i32[], index in `places` of the place at which rows are mixed.
    """

    def mix(place: str, x: jax.Array) -> jax.Array:
        if place not in places:
            return x
        mixed = blend(x, of_partners(x, partner)).astype(x.dtype)
        # A select in each place moves fewer bytes than a conditional in each, and a switch between
        # complete networks would compile one network per place.
        return jnp.where(drawn == places.index(place), mixed, x)

    return networks.forward(batch["image"], batch.get("noise_mask"), mix=mix)


def mixed_loss(
    recipe: Recipe,
    networks: Networks,
    batch: Batch,
    *,
    share: jax.Array,
    partner: jax.Array,
    places: Sequence[str],
    drawn: jax.Array | int = 0,
    blend: Blend | None = None,
) -> Outcome:
    """Runs a forward pass with mixed activations and averages the losses for both labels.

    Args:
        recipe: source of the loss and the class weights; each label has the weight of its class.
        networks: networks of the step.
        batch: batch of the step.
        share: f32[] or f32[B], share of the row's own label in the loss of its mixture.
        partner: i32[B], a permutation.
        places: places of the network.
        drawn: i32[], index in `places` of the place at which rows are mixed.
        blend: mixes the activations of two rows; None = linearly, with the share of the label.
    """
    logits, outputs = mixed_forward(
        networks,
        batch,
        blend=linear(share) if blend is None else blend,
        partner=partner,
        places=places,
        drawn=drawn,
    )
    own = recipe.loss(logits, batch["target"])
    other = recipe.loss(logits, of_partners(batch["target"], partner))
    losses, weights = mean_of_pairs(recipe, batch, own, other, share=share, partner=partner)
    return Outcome(losses, logits, weights, outputs)


def mean_of_pairs(
    recipe: Recipe,
    batch: Batch,
    own: jax.Array,
    other: jax.Array,
    *,
    share: jax.Array,
    partner: jax.Array,
) -> tuple[jax.Array, jax.Array | None]:
    """Returns the mean of both losses of each row, f32[B], and its weight; None = all are 1.

    Args:
        recipe: source of the class weights; each label has the weight of its class.
        batch: batch of the step.
        own: f32[B], losses for the label of the row.
        other: f32[B], losses for that of its partner.
        share: f32[] or f32[B], share of the row's own label.
        partner: i32[B], a permutation.
    """
    weights = recipe.row_weights(batch["label"], own.dtype)
    if weights is None:
        return share * own + (1 - share) * other, None
    of_own, of_other = share * weights, (1 - share) * of_partners(weights, partner)
    total = of_own + of_other
    return (of_own * own + of_other * other) / jnp.where(total > 0, total, 1), total


def with_mixtures(
    recipe: Recipe,
    *,
    alpha: float,
    places: tuple[str, ...],
    limits: np.ndarray | None = None,
    label_share: LabelShare | None = None,
) -> Recipe:
    """Returns the recipe with linear mixtures of pairs; each step draws one place and permutation.

    Args:
        recipe: to be changed.
        alpha: both parameters of the distribution of shares; 0 = nothing is mixed.
        places: places of the network.
        limits: f32[K], see `draw_row_shares`; None = all rows of a step have the share of
            `draw_share`.
        label_share: share of a row's label; None = that of the row.
    """

    def objective(recipe: Recipe, networks: Networks, batch: Batch, key: jax.Array) -> Outcome:
        share_key, partner_key, place_key = rng.split(key, 3)
        label = batch["label"]
        if limits is None:
            share = draw_share(share_key, alpha)
        else:
            share = draw_row_shares(share_key, label, alpha, limits)
        partner = draw_partners(partner_key, batch)
        of_label = share
        if label_share is not None:
            of_label = label_share(share, label, of_partners(label, partner))
        return mixed_loss(
            recipe,
            networks,
            batch,
            share=of_label,
            partner=partner,
            places=places,
            drawn=rng.randint(place_key, (), 0, len(places)),
            blend=linear(share),
        )

    return dataclasses.replace(recipe, objective=objective, places=places)
