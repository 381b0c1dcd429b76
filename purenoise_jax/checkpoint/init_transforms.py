"""Transforms of the train state at a start: adds auxiliary norm layers and resets parts.

A phase without noise never touches the auxiliary layers, so a checkpoint of plain training is the
same for all norms; only the parameters and statistics of the noise rows are missing from it.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import jax

from purenoise_jax.checkpoint.tree_names import by_name
from purenoise_jax.models.norm import AUX_PREFIX

# Parts of the state that a phase may reset at its start.
RESETS = ("head", "opt_state")


def reset(state: Any, initial: Any, names: Collection[str]) -> Any:
    """Resets parts of a state to their values before the first step.

    Args:
        state: a dataclass of collections, such as `TrainState`.
        initial: a state of the same structure, before its first step.
        names: of `RESETS`. "head" is the classifier with everything that belongs to it, such as its
            momentum; "opt_state" is the entire state of the optimiser.
    """

    def is_reset(name: str) -> bool:
        parts = name.split("/")
        return any(part in parts if part == "head" else part == parts[0] for part in names)

    first = by_name(initial)
    leaves = [first[name] if is_reset(name) else leaf for name, leaf in by_name(state).items()]
    return jax.tree.unflatten(jax.tree.structure(state), leaves)


def lacks_aux_norm(leaves: Mapping[str, Any], target: Any) -> bool:
    """True if a checkpoint (name -> anything) lacks the auxiliary layers that a target has."""
    return any(map(_is_aux, by_name(target))) and not any(map(_is_aux, leaves))


def without_aux_norm(tree: Any) -> Any:
    """Returns a tree of dicts, tuples and dataclasses without the entries of auxiliary layers."""
    if isinstance(tree, Mapping):
        kept = {name: child for name, child in tree.items() if not name.startswith(AUX_PREFIX)}
        return {name: without_aux_norm(child) for name, child in kept.items()}
    if isinstance(tree, tuple):
        children = map(without_aux_norm, tree)
        return type(tree)(*children) if hasattr(tree, "_fields") else tuple(children)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, jax.ShapeDtypeStruct | type):
        fields = {f.name: without_aux_norm(getattr(tree, f.name)) for f in dataclasses.fields(tree)}
        return dataclasses.replace(tree, **fields)
    return tree


def add_aux_norm(state: Any, initial: Any, how: str) -> Any:
    """Adds auxiliary layers to a state.

    Args:
        state: `TrainState` of the network without them.
        initial: `TrainState` of the network with them, before its first step.
        how: "fresh" = as in `initial`; "copy" = the parameters and statistics of the natural rows'
            layer, with the optimiser's state as in `initial`.

    Returns:
        A state with the structure of `initial`.
    """
    present = by_name(state)

    def leaf(name: str, first: Any) -> Any:
        if not _is_aux(name):
            return present[name]
        natural = name.replace(f"/{AUX_PREFIX}", "/")
        return first if how == "fresh" or name.startswith("opt_state/") else present[natural] + 0

    wanted = by_name(initial)
    leaves = [leaf(name, first) for name, first in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(initial), leaves)


def _is_aux(name: str) -> bool:
    return f"/{AUX_PREFIX}" in name
