"""LADE: logits that do not depend on the label distribution of the training set.

Source: Hong et al. 2021, and their code (PriorCELoss.py, LADELoss.py).
"""

import dataclasses
import math
from typing import Annotated

import jax
import jax.numpy as jnp

from purenoise_jax.data.batch import Batch
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.logit_adjustment import log_frequencies, logit_adjusted_loss
from purenoise_jax.methods.networks import Networks
from purenoise_jax.methods.recipe import Outcome, Recipe, add_batch_loss, supervised
from purenoise_jax.runtime.constraints import OneOf, Real

WEIGHTS = ("code", "paper")


def regulariser(
    logits: jax.Array,
    batch: Batch,
    log_prior: jax.Array,
    *,
    penalty: float,
    weights: str,
) -> jax.Array:
    """Returns the regulariser of a batch, [], a Donsker-Varadhan bound for every class.

    Args:
        logits: [B, K], without the log frequencies.
        batch: "target" f32[B, K], "label" i32[B] and "valid" bool[B]; other rows are left out.
        log_prior: f32[K], logarithm of the class frequencies.
        penalty: weight of the squared logarithm of the partition function.
        weights: one of `WEIGHTS`.
    """
    # A batch of only padding has no loss, and here counts as a batch of rows, so as to be finite.
    counted = (batch["valid"] | ~batch["valid"].any())[:, None]
    logits, target = (jnp.where(counted, x, 0) for x in (logits, batch["target"]))
    own = (target * logits).sum(axis=0) / (target.sum(axis=0) + 1e-8)
    to_uniform = -log_prior - math.log(len(log_prior))
    shift = to_uniform[None] if weights == "code" else to_uniform[batch["label"]][:, None]
    partition = jax.nn.logsumexp(jnp.where(counted, logits + shift, -jnp.inf), axis=0)
    partition -= jnp.log(counted.sum().astype(logits.dtype))
    return -(jnp.exp(log_prior) * (own - partition - penalty * jnp.square(partition))).sum()


def lade(
    recipe: Recipe,
    stats: DataStats,
    *,
    alpha: Annotated[float, Real(0), "weight of the regulariser; 0 is logit adjustment"] = 0.1,
    penalty: Annotated[
        float, Real(0), "lambda of the paper: weight of the squared log-partition"
    ] = 0.01,
    weights: Annotated[str, OneOf(WEIGHTS), "importance weights in the partition"] = "code",
) -> Recipe:
    """Adds the LADE regulariser to the cross-entropy of logits + log frequency of the class.

    For every class it raises the mean logit of the class's own rows and lowers the logarithm of the
    mean, over all rows of the batch, of the exponential of its logit, weighted as if all classes
    had the same frequency. The network's own logits fit such classes, and are those of evaluation;
    where the class frequencies of the images to classify are known, their logarithms are added. The
    defaults are those of the authors for CIFAR-100-LT.

    READING: in the paper the importance weight of a row is 1 / (K * frequency of its label)
    ("paper"). The authors' code gives all rows of a column that of the column's class ("code").
    READING: a class without a row in the batch has a mean logit of 0, and its partition still
    counts, as in the code. Noise rows count as rows of their label.
    READING: class weights of other methods weight the cross-entropy alone.
    """
    log_prior = jnp.asarray(log_frequencies(stats.class_counts))

    def objective(recipe: Recipe, networks: Networks, batch: Batch, key: jax.Array) -> Outcome:
        outcome = supervised(recipe, networks, batch, key)
        extra = regulariser(outcome.logits, batch, log_prior, penalty=penalty, weights=weights)
        return add_batch_loss(outcome, alpha * extra)

    return dataclasses.replace(logit_adjusted_loss(recipe, stats), objective=objective)
