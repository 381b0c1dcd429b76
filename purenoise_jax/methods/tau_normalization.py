"""The tau-normalised classifier: weight vectors are divided by a power of their lengths.

Source: Kang et al. 2020, section 4 (tau-normalized), and their code; Zhang et al. 2021 ("Bag of
Tricks") for CIFAR.
"""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.linear_head import change_head, norms
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.runtime.constraints import Real, Switch


def tau_normalized(kernel: jax.Array, tau: float) -> jax.Array:
    """Returns weight vectors w / |w| ** tau; a zero vector stays zero.

    Args:
        kernel: f32[F, K], the weight vectors in columns.
        tau: 0 changes nothing, 1 gives all vectors length 1.
    """
    length = norms(kernel)
    return jnp.where(length > 0, kernel / jnp.where(length > 0, length, 1) ** tau, 0)


def tau_normalization(
    recipe: Recipe,
    stats: DataStats,
    *,
    tau: Annotated[float, Real(0), "exponent of the lengths of the weight vectors"] = 1.0,
    bias: Annotated[bool, Switch(), "the bias is kept; otherwise it is 0"] = False,
) -> Recipe:
    """Divides every class's weight vector by its length to the power tau; trains as before.

    Only the variables of evaluation change, those of a moving average if there is one.

    READING: tau = 1, and the bias is left out, as Kang et al. do, who try values of tau between 0
    and 2. The CIFAR code of Zhang et al. keeps the bias (`bias=True`). Where the vectors are longer
    than 1, their division makes a bias that is kept count for more than before, and a bias favours
    frequent classes.
    """
    del stats

    def change(name: str, array: jax.Array) -> jax.Array:
        if name == "kernel":
            return tau_normalized(array, tau)
        return array if bias else jnp.zeros_like(array)

    def normalize(variables: dict[str, Any]) -> dict[str, Any]:
        return {**variables, "params": change_head(variables["params"], change)}

    return dataclasses.replace(recipe, eval_transforms=(*recipe.eval_transforms, normalize))
