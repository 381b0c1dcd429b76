"""Starting a network with auxiliary batch norms from a checkpoint of one without them.

A phase without noise never touches the auxiliary layers, so the checkpoint of plain training is
the same for all norms; what lacks are the noise rows' parameters and statistics.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from purenoise_jax.models.norm import AUX_PREFIX


def needs_aux(leaves: Mapping[str, Any], target: Any) -> bool:
    """Whether a checkpoint (path -> anything) lacks the auxiliary layers that a target has."""
    return any(_is_aux(path) for path in _by_path(target)) and not any(map(_is_aux, leaves))


def without_aux(tree: Any) -> Any:
    """The tree, of dicts, tuples and dataclasses, without what belongs to auxiliary layers."""
    if isinstance(tree, Mapping):
        kept = {name: child for name, child in tree.items() if not name.startswith(AUX_PREFIX)}
        return {name: without_aux(child) for name, child in kept.items()}
    if isinstance(tree, tuple):
        children = map(without_aux, tree)
        return type(tree)(*children) if hasattr(tree, "_fields") else tuple(children)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, jax.ShapeDtypeStruct | type):
        fields = {f.name: without_aux(getattr(tree, f.name)) for f in dataclasses.fields(tree)}
        return dataclasses.replace(tree, **fields)
    return tree


def with_aux(state: Any, initial: Any, how: str) -> Any:
    """Adds auxiliary layers to a state.

    Args:
      state: `TrainState` of the network without them.
      initial: `TrainState` of the network with them, before its first step.
      how: "fresh" = as in `initial`; "copy" = parameters and statistics of the layer that the
        natural rows go through, with the optimiser's state as in `initial`.

    Returns:
      A state with the structure of `initial`.
    """
    there = _by_path(state)

    def leaf(path: Any, first: Any) -> Any:
        key = jax.tree_util.keystr(path)
        if not _is_aux(key):
            return there[key]
        natural = key.replace(f"'{AUX_PREFIX}", "'")
        return first if how == "fresh" or key.startswith(".opt_state") else there[natural] + 0

    return jax.tree_util.tree_map_with_path(leaf, initial)


def _by_path(tree: Any) -> dict[str, Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _is_aux(key: str) -> bool:
    return f"'{AUX_PREFIX}" in key
