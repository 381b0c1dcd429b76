"""Reads the network of another run as the weights that a run starts with.

Classes, data, methods, optimiser and schedule of the other run may differ. Its network must be the
same but for the head, projectors and auxiliary layers.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from purenoise_jax.checkpoint.init_transforms import ImportedWeights
from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.checkpoint.tree_names import by_name
from purenoise_jax.models.heads import CLASS_SCALE
from purenoise_jax.models.norm import AUX_PREFIX
from purenoise_jax.models.projectors import PROJECTOR
from purenoise_jax.runtime.errors import CheckpointError

COLLECTIONS = ("params", "batch_stats")
_SHOWN = 3


def read_run_weights(
    checkpoints: Checkpoints,
    step: int,
    target: Any,
    *,
    class_names: Sequence[str],
    aux: str,
    sharding: jax.sharding.Sharding,
    where: str,
) -> ImportedWeights:
    """Reads the parameters and running statistics of a checkpoint.

    The head is taken over if it has the same arrays, and the record does not name other classes.
    Auxiliary layers and projectors that the checkpoint lacks keep their values before the first
    step; those that only the checkpoint has are left out.

    Args:
        checkpoints: of the other run.
        step: one of its steps.
        target: shapes and dtypes of this run's state, a `TrainState`.
        class_names: K names of this run's classes.
        aux: start of auxiliary layers, see `ImportedWeights`.
        sharding: of the arrays that are read.
        where: names the checkpoint in messages.

    Returns:
        The weights, with the start of the head, in words, as their note.

    Raises:
        CheckpointError: the checkpoint is damaged, or its network is another one.
    """
    record = checkpoints.record(step)
    leaves = {
        name: leaf
        for name, leaf in record["leaves"].items()
        if name.partition("/")[0] in COLLECTIONS
    }
    shapes = {name: _shape_of(leaf, sharding, where) for name, leaf in leaves.items()}
    wanted = by_name({name: getattr(target, name) for name in COLLECTIONS})
    _refuse_another_network(shapes, wanted, where)
    head = {name for name in wanted if _is_head(name)}
    differs = _head_differs(record, shapes, wanted, class_names)
    taken = wanted.keys() & shapes.keys() - (head if differs else set())
    found = by_name(checkpoints.restore_collections(step, _nested(shapes)))
    arrays = {name: np.asarray(jax.device_get(found[name])) for name in sorted(taken)}
    note = f"head re-initialised: {differs}" if differs else "with its head"
    # Auxiliary layers that were trained are not to be replaced by copies of others.
    has_aux = any(f"/{AUX_PREFIX}" in name for name in arrays)
    return ImportedWeights(arrays, "fresh" if has_aux else aux, note)


def _head_differs(
    record: Mapping[str, Any],
    there: Mapping[str, Any],
    here: Mapping[str, Any],
    class_names: Sequence[str],
) -> str:
    """The difference between the heads or their classes, in words; "" if there is none."""
    classes = int(record["num_classes"])
    if classes != len(class_names):
        return f"{classes:,} classes there, {len(class_names):,} here"
    # Checkpoints of early versions do not have the names.
    names = record.get("class_names") or class_names
    other = [pair for pair in zip(names, class_names, strict=True) if pair[0] != pair[1]]
    if other:
        before, now = other[0]
        return f"other classes, such as {before} there, {now} here"
    left, right = (
        {name: leaf.shape for name, leaf in side.items() if _is_head(name)}
        for side in (there, here)
    )
    # Scales that only this head has begin with 1, with which it is the other.
    added = {name for name in right.keys() - left.keys() if name.endswith(f"/{CLASS_SCALE}")}
    same = left == {name: shape for name, shape in right.items() if name not in added}
    return "" if same else "another classifier there"


def _refuse_another_network(there: Mapping[str, Any], here: Mapping[str, Any], where: str) -> None:
    """Refuses arrays of the body that only one side has, or that have other shapes or dtypes."""

    def body(side: Mapping[str, Any]) -> dict[str, str]:
        return {
            name: f"{np.dtype(leaf.dtype)}{list(leaf.shape)}"
            for name, leaf in side.items()
            if not (_is_head(name) or f"/{AUX_PREFIX}" in name or PROJECTOR in name.split("/"))
        }

    left, right = body(there), body(here)
    differing = [name for name in {**right, **left} if left.get(name) != right.get(name)]
    if differing:
        first = "; ".join(
            f"{name}: {left.get(name, 'absent')} there, {right.get(name, 'absent')} here"
            for name in differing[:_SHOWN]
        )
        raise CheckpointError(
            f"{where} has another network, {len(differing)} arrays differ: {first}"
        )


def _is_head(name: str) -> bool:
    return name.split("/")[1] == "head"


def _shape_of(leaf: str, sharding: jax.sharding.Sharding, where: str) -> jax.ShapeDtypeStruct:
    """The shape and dtype that `tree_names.describe` wrote."""
    parts = re.fullmatch(r"(\w+)\[([\d, ]*)\]", leaf)
    if parts is None:
        raise CheckpointError(f"{where}: its record describes an array as {leaf!r}")
    shape = tuple(int(n) for n in parts[2].split(",") if n.strip())
    return jax.ShapeDtypeStruct(shape, np.dtype(parts[1]), sharding=sharding)


def _nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Turns {"params/head/kernel": leaf} into {"params": {"head": {"kernel": leaf}}}."""
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree
