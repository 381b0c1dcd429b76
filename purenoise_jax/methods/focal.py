"""Focal loss: rows that the network already classifies well count less.

Source: Lin et al. 2017, equation 4; the code of Cao et al. 2019 (losses.py) and of Cui et al. 2019
(cifar_main.py) for the forms with class weights.
"""

import dataclasses
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp

from purenoise_jax.data.batch import Batch
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.networks import Networks
from purenoise_jax.methods.recipe import Outcome, Recipe, cross_entropy, supervised
from purenoise_jax.runtime.constraints import OneOf, Real

FORMS = ("softmax", "weighted", "sigmoid")


def modulated(nll: jax.Array, gamma: float) -> jax.Array:
    """Returns (1 - p) ** gamma * nll with p = exp(-nll), in the shape of `nll`.

    Args:
        nll: negative log-likelihoods in nats, each at least 0.
        gamma: at least 0; 0 returns `nll` itself.
    """
    if not gamma:
        return nll
    wrong = -jnp.expm1(-nll)
    # At 0 the slope of a power below 1 is infinite, and times the zero of `nll` not a number.
    above = wrong > 0
    return jnp.where(above, jnp.where(above, wrong, 1) ** gamma * nll, 0)


def softmax_focal(logits: jax.Array, target: jax.Array, *, gamma: float) -> jax.Array:
    """Focal loss of softmax probabilities: [B] of logits [B, K] and target [B, K]."""
    return (target * modulated(-jax.nn.log_softmax(logits), gamma)).sum(axis=1)


def sigmoid_focal(logits: jax.Array, target: jax.Array, *, gamma: float) -> jax.Array:
    """Focal loss of one binary classifier per class, summed over classes: [B], as above."""
    log_yes, log_no = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    yes, no = -jnp.exp(gamma * log_no) * log_yes, -jnp.exp(gamma * log_yes) * log_no
    return (target * yes + (1 - target) * no).sum(axis=1)


def focal(
    recipe: Recipe,
    stats: DataStats,
    *,
    gamma: Annotated[float, Real(0), "exponent of 1 - p; 0 = all rows count alike"] = 1.0,
    form: Annotated[str, OneOf(FORMS), "probability p that reduces the loss of a row"] = "softmax",
) -> Recipe:
    """Multiplies the loss of a row by (1 - p) ** gamma, where p is the probability of its label.

    With "softmax" p is that of the softmax. "weighted" is the code of Cao et al.: class weights of
    another method enter p = exp(-weight * cross-entropy) too, and the mean is over rows. "sigmoid"
    is the code of Cui et al.: one binary loss per class, each with its own p, summed over classes
    and divided by the number of positives, of which every row has one; their class weights belong
    to a mean over rows (`divide_by`).

    READING: in a soft target each class has its own p, so that the loss of a mixture of targets is
    the mixture of their losses. "weighted" has one p per row.
    READING: gamma is 1 as in the code of Cao et al.; Lin et al. and Cui et al. tune it, up to 5.
    DEVIATION: Cui et al. start the bias of the head at -log(K - 1) and do not decay it.
    """
    del stats
    loss = partial(sigmoid_focal if form == "sigmoid" else softmax_focal, gamma=gamma)
    if form != "weighted":
        return dataclasses.replace(recipe, loss=loss)

    def objective(recipe: Recipe, networks: Networks, batch: Batch, key: jax.Array) -> Outcome:
        plain = dataclasses.replace(recipe, loss=cross_entropy)
        outcome = supervised(plain, networks, batch, key)
        nll = outcome.losses if outcome.weights is None else outcome.losses * outcome.weights
        return outcome._replace(losses=modulated(nll, gamma), weights=None)

    return dataclasses.replace(recipe, loss=loss, objective=objective)
