"""Joint self-supervised learning (Joint-SSL): the supervised loss plus VICReg of two views.

Source: Shwartz-Ziv et al. 2023 ("Simplifying Neural Network Training Under Class Imbalance"),
appendix A.5; Bardes et al. 2022 (VICReg), equations 1 to 6, and their code.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.methods.two_views import with_view_loss
from purenoise_jax.runtime.constraints import OneOf, Real

BRANCHES = ("per_branch", "concat")
EPSILON = 1e-4  # added to variances, as in the code of VICReg


def vicreg(
    first: jax.Array,
    second: jax.Array,
    natural: jax.Array,
    *,
    inv_weight: float,
    var_weight: float,
    cov_weight: float,
    var_target: float,
    branch_cov: str,
) -> jax.Array:
    """Returns the VICReg loss [] of the projections of two views; see `joint_ssl`.

    Args:
        first: [B, D], projections of the first views.
        second: [B, D], of the second views.
        natural: bool[B], the rows that count. Fewer than two have no moments, and only the term of
            invariance.
        inv_weight: weight of the invariance term.
        var_weight: weight of the variance term.
        cov_weight: weight of the covariance term.
        var_target: least standard deviation that is wanted.
        branch_cov: one of `BRANCHES`.
    """
    counted = natural[:, None]
    first, second = jnp.where(counted, first, 0), jnp.where(counted, second, 0)
    count = natural.sum().astype(first.dtype)
    size = first.shape[1]
    invariance = jnp.square(first - second).sum() / (jnp.maximum(count, 1) * size)
    both = branch_cov == "concat"
    branches = [jnp.concatenate([first, second])] if both else [first, second]
    members = jnp.concatenate([counted, counted]) if both else counted
    rows = count * 2 if both else count
    variance = covariance = jnp.zeros((), first.dtype)
    for branch in branches:
        mean = branch.sum(axis=0) / jnp.maximum(rows, 1)
        centred = jnp.where(members, branch - mean[None], 0)
        degrees = jnp.maximum(rows - 1, 1)
        moments = jnp.matmul(centred.T, centred, precision=jax.lax.Precision.HIGHEST) / degrees
        spread = jnp.sqrt(jnp.square(centred).sum(axis=0) / degrees + EPSILON)
        variance += jnp.maximum(var_target - spread, 0).mean() / len(branches)
        off_diagonal = jnp.where(jnp.eye(size, dtype=bool), 0, moments)
        covariance += jnp.square(off_diagonal).sum() / size
    of_moments = var_weight * variance + cov_weight * covariance
    return inv_weight * invariance + jnp.where(count > 1, of_moments, 0)


def joint_ssl(
    recipe: Recipe,
    stats: DataStats,
    *,
    inv_weight: Annotated[float, Real(0), "weight of the invariance term"] = 1.0,
    var_weight: Annotated[float, Real(0), "weight of the variance term"] = 1.0,
    cov_weight: Annotated[float, Real(0), "weight of the covariance term"] = 0.04,
    var_target: Annotated[
        float, Real(0), "standard deviation below which a component is penalised"
    ] = 1.0,
    branch_cov: Annotated[
        str, OneOf(BRANCHES), "covariance of each view, or of the views of both together"
    ] = "per_branch",
    supervised_weight: Annotated[
        float, Real(0), "lambda of the paper: weight of the supervised loss; 0 = without labels"
    ] = 1.0,
) -> Recipe:
    """Adds VICReg of the projections of two views to the loss of the first views.

    VICReg has three terms. Invariance: the mean squared difference between the two projections of
    an image. Variance: by how much the standard deviation of a component over the batch is below
    `var_target`, in the mean over components. Covariance: the squared covariances of different
    components, summed and divided by the number of components. Labels have no effect on them. The
    network needs `model.projector=vicreg`.

    READING: the paper gives no weights, and one symbol is both the variance target and the weight
    of the invariance term. Here each has a name. The weights are those of VICReg, 25, 25 and 1,
    divided by 25, so that a step is about as long as one of plain training.
    READING: in the paper the covariance is that of both views together ("concat") and the squared
    difference is divided by an undefined N. The default ("per_branch") and the mean over all
    elements are those of VICReg's code: the covariance terms of both views are added, and their
    variance terms averaged.
    READING: the supervised loss is that of the first view alone. Noise rows have no part in VICReg.
    READING: the source trains with CutMix, too, and does not say whether VICReg sees boxes. Here
    only the supervised loss does; see `two_views.with_view_loss`.
    """
    del stats

    def loss(first: jax.Array, second: jax.Array, natural: jax.Array) -> jax.Array:
        return vicreg(
            first,
            second,
            natural,
            inv_weight=inv_weight,
            var_weight=var_weight,
            cov_weight=cov_weight,
            var_target=var_target,
            branch_cov=branch_cov,
        )

    return with_view_loss(recipe, loss, supervised_weight)
