"""The arrays of a linear head, by the last part of their names."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from purenoise_jax.methods.recipe import Params


def change_head(params: Params, change: Callable[[str, jax.Array], jax.Array]) -> Params:
    """Returns parameters with other arrays in the head.

    Args:
        params: of the network.
        change: ("kernel", f32[F, K]) or ("bias", f32[K]) -> an array of the same shape.
    """

    def changed(path: Any, array: jax.Array) -> jax.Array:
        return change(str(path[-1].key), array).astype(array.dtype)

    return {**params, "head": jax.tree_util.tree_map_with_path(changed, params["head"])}


def kernel_of(params: Params) -> jax.Array:
    """Returns the weight vectors of the classes, the columns of an array f32[F, K]."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params["head"])
    return next(array for path, array in leaves if path[-1].key == "kernel")


def norms(kernel: jax.Array) -> jax.Array:
    """Returns the length of every weight vector, f32[1, K].

    Args:
        kernel: f32[F, K].
    """
    return jnp.linalg.norm(kernel, axis=0, keepdims=True)
