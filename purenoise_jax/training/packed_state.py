"""Joins the small arrays of a state to a few long vectors while steps are looped on a device.

A network has hundreds of small arrays, and on a GPU each would be updated, checked and copied by
kernels of its own, whose launches take longer than their work. The values do not change.
"""

import dataclasses
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

# Larger arrays stay as they are: their work outweighs a launch, and joining them would cost copies.
MAX_SIZE = 2**16


@dataclasses.dataclass(frozen=True)
class Leaf:
    """An array of a tree.

    Attributes:
        group: of the vector that it is joined to; None = it stays as it is.
        shape: of the array.
    """

    group: Hashable
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Packing:
    """A way to hold the arrays of a tree, from `packing_of`.

    Attributes:
        structure: of the tree.
        leaves: its arrays in order.
    """

    structure: Any
    leaves: Sequence[Leaf]

    def pack(self, tree: Any) -> list[jax.Array]:
        """Returns the long vectors, and after them the arrays that stay as they are."""
        groups: dict[Hashable, list[jax.Array]] = {leaf.group: [] for leaf in self.leaves}
        for leaf, array in zip(self.leaves, jax.tree.leaves(tree), strict=True):
            groups[leaf.group].append(array if leaf.group is None else to_vector(array))
        alone = groups.pop(None, [])
        return [jnp.concatenate(parts) for parts in groups.values()] + alone

    def unpack(self, packed: Sequence[jax.Array]) -> Any:
        """Returns the tree."""
        names = dict.fromkeys(leaf.group for leaf in self.leaves if leaf.group is not None)
        vectors = dict(zip(names, packed, strict=False))
        alone = iter(packed[len(names) :])
        ends = dict.fromkeys(names, 0)
        arrays = []
        for leaf in self.leaves:
            if leaf.group is None:
                arrays.append(next(alone))
                continue
            start = ends[leaf.group]
            ends[leaf.group] = end = start + math.prod(leaf.shape)
            arrays.append(_from_vector(vectors[leaf.group][start:end], leaf.shape))
        return jax.tree.unflatten(self.structure, arrays)


def packing_of(tree: Any, *, scalars: bool = False) -> Packing:
    """Chooses how to hold the arrays of a tree: small ones of one kind in one vector.

    Args:
        tree: arrays, or their shapes.
        scalars: True joins scalars, too.
    """
    leaves, structure = jax.tree.flatten(tree)
    return Packing(structure, [Leaf(_group(leaf, scalars), leaf.shape) for leaf in leaves])


@dataclasses.dataclass(frozen=True)
class StatePacking:
    """A way to hold the arrays of a `train_step.TrainState`, by its fields.

    Arrays are grouped by dtype and rank, not by name, so it fits the state of every optimiser.
    """

    params: Packing
    batch_stats: Packing
    opt_state: Packing
    extra: Packing

    @classmethod
    def of(cls, state: Any) -> "StatePacking":
        """Chooses a way for a state, which may consist of shapes."""
        fields = (state.params, state.batch_stats, state.opt_state, state.extra)
        return cls(*map(packing_of, fields))

    def pack(self, state: Any) -> Any:
        """Returns the state with a list of arrays in each field."""
        return self._each(state, Packing.pack)

    def unpack(self, packed: Any) -> Any:
        """Returns the state that was packed."""
        return self._each(packed, Packing.unpack)

    def _each(self, state: Any, way: Callable[[Packing, Any], Any]) -> Any:
        return state.replace(
            params=way(self.params, state.params),
            batch_stats=way(self.batch_stats, state.batch_stats),
            opt_state=way(self.opt_state, state.opt_state),
            extra=way(self.extra, state.extra),
        )


def _group(leaf: Any, scalars: bool) -> Hashable:
    if leaf.size > MAX_SIZE or (leaf.ndim == 0 and not scalars):
        return None
    # Kernels and vectors in two groups, because XLA does not join more than about ninety arrays.
    return str(leaf.dtype), leaf.ndim > 1


def to_vector(array: jax.Array) -> jax.Array:
    """Flattens an array: a convolution's with the output channels first, as cuDNN has them."""
    return jnp.moveaxis(array, -1, 0).ravel() if array.ndim == 4 else array.ravel()


def _from_vector(vector: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    if len(shape) != 4:
        return vector.reshape(shape)
    return jnp.moveaxis(vector.reshape(shape[-1], *shape[:-1]), 0, -1)
