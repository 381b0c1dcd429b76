"""Label smoothing, the same for all classes or by class frequency.

Source: Szegedy et al. 2016 (uniform); Shwartz-Ziv et al. 2023, equations 6 and 7
(class-conditional); Zhong et al. 2021 (label-aware, MiSLAS).
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.data.batch import Batch
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.runtime.constraints import OneOf, Real
from purenoise_jax.runtime.errors import unknown

CONDITIONAL = ("uniform", "literal", "inverse", "one_minus_p")
LABEL_AWARE = ("concave", "linear", "convex")
RULES = (*CONDITIONAL, *LABEL_AWARE)


def smoothing(
    class_counts: np.ndarray, rule: str, *, epsilon: float, head: float, tail: float
) -> np.ndarray:
    """Returns the smoothing of every class, f32[K] in [0, 1].

    Args:
        class_counts: int[K], training images per class, each at least 1.
        rule: one of `RULES`.
        epsilon: of the rules that are not label-aware.
        head: smoothing of the most frequent class, by a label-aware rule.
        tail: smoothing of the rarest class, by a label-aware rule.

    Raises:
        ConfigError: the rule is unknown.
    """
    counts = np.asarray(class_counts, np.float64)
    share = counts / counts.sum()
    # From 0 for the rarest class to 1 for the most frequent one.
    rank = (counts - counts.min()) / max(counts.max() - counts.min(), 1)
    if rule == "uniform":
        found = np.full_like(share, epsilon)
    elif rule == "literal":
        found = epsilon / np.maximum(1 - share, np.finfo(float).tiny)
    elif rule == "inverse":
        found = epsilon * share.min() / share
    elif rule == "one_minus_p":
        found = epsilon * (1 - share)
    elif rule == "concave":
        found = tail + (head - tail) * np.sin(np.pi / 2 * rank)
    elif rule == "linear":
        found = tail + (head - tail) * rank
    elif rule == "convex":
        found = head + (head - tail) * np.sin(np.pi * (1.5 + rank / 2))
    else:
        raise unknown("method.label_smoothing.rule", rule, RULES)
    return np.clip(found, 0, 1).astype(np.float32)


def label_smoothing(
    recipe: Recipe,
    stats: DataStats,
    *,
    rule: Annotated[str, OneOf(RULES), "which classes are smoothed more"] = "uniform",
    epsilon: Annotated[float, Real(0, 1), "smoothing; of the rules up to one_minus_p"] = 0.1,
    head: Annotated[float, Real(0, 1), "of the most frequent class; label-aware rules"] = 0.3,
    tail: Annotated[float, Real(0, 1), "of the rarest class; label-aware rules"] = 0.0,
) -> Recipe:
    """Gives a share of every target to all classes alike: (1 - e) * target + e / K.

    READING: for class-conditional smoothing the source writes e / (1 - p) for a class of frequency
    p (rule "literal"), which smooths frequent classes more, and says that rare classes are smoothed
    more. Two rules do what it says: e * p_min / p ("inverse") and e * (1 - p) ("one_minus_p"). The
    label-aware rules smooth frequent classes more, on purpose.

    READING: no source gives the amount for class-conditional smoothing; 0.1 is customary.

    READING: the share of all rules goes to all classes, the label's own included, as in equation 7.
    """
    amount = jnp.asarray(smoothing(stats.class_counts, rule, epsilon=epsilon, head=head, tail=tail))

    def smooth(key: jax.Array, batch: Batch) -> Batch:
        del key
        target = batch["target"]
        share = amount[batch["label"]][:, None].astype(target.dtype)
        return {**batch, "target": (1 - share) * target + share / target.shape[1]}

    return dataclasses.replace(recipe, transforms=(*recipe.transforms, smooth))


def label_aware_smoothing(
    recipe: Recipe,
    stats: DataStats,
    *,
    shape: Annotated[
        str, OneOf(LABEL_AWARE), "of the smoothing as a function of the number of images"
    ] = "concave",
    head: Annotated[float, Real(0, 1), "smoothing of the most frequent class"] = 0.3,
    tail: Annotated[float, Real(0, 1), "smoothing of the rarest class"] = 0.0,
) -> Recipe:
    """Label smoothing that increases with the number of images, from `tail` to `head`.

    The authors train the classifier with it in a second stage. The defaults are theirs for
    CIFAR-10-LT with a ratio of 100; for CIFAR-100-LT they use 0.4 and 0.1.
    """
    return label_smoothing(recipe, stats, rule=shape, head=head, tail=tail)
