"""Names, shapes and dtypes of the arrays of a train state, as listed in checkpoint records."""

import dataclasses
import re
from typing import Any

import jax
import numpy as np


def collections(state: Any) -> dict[str, Any]:
    """Returns the fields of a dataclass that hold arrays, each a pytree, by name."""
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {name: tree for name, tree in fields.items() if jax.tree.leaves(tree)}


def by_name(tree: Any) -> dict[str, Any]:
    """Maps names such as "params/head/fc/kernel" to arrays.

    Names of fields, keys and indices are joined alike.

    Args:
        tree: any pytree.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(map(_name, path)): leaf for path, leaf in leaves}


def describe(tree: Any) -> dict[str, str]:
    """Maps the name of every array to its dtype and shape, such as "float32[3, 3, 3, 16]"."""
    return {name: f"{np.dtype(x.dtype)}{list(x.shape)}" for name, x in by_name(tree).items()}


def name_of_format_1(path: str) -> str:
    """Converts a name of format 1, such as ".opt_state[0].trace['head']['kernel']"."""
    parts = re.findall(r"\.(\w+)|\['([^']*)'\]|\[(\d+)\]", path)
    return "/".join("".join(part) for part in parts)


def _name(key: Any) -> str:
    return str(next(getattr(key, a) for a in ("key", "idx", "name") if hasattr(key, a)))
