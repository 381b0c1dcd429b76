"""Keeps the result of a training step only if it is finite."""

import collections
import dataclasses
import functools
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.runtime.compiler import (
    optimization_barrier_on_accelerators,
    optimization_barrier_on_cpu,
)
from purenoise_jax.training.accumulators import StepMetrics
from purenoise_jax.training.packed_state import MAX_SIZE, to_vector

State = TypeVar("State", bound=Any)

# An update is at most about this large: Adam squares it, and a float32 ends at 3e38.
LARGEST_UPDATE = 1e18
# Parameters beyond this size have diverged, and are about to overflow.
LARGEST_PARAMETER = 1e30
# Flags of arrays of at most this size are joined as they are.
LARGEST_JOINED = 2**19


def all_within(*limited: tuple[Any, jax.Array | float]) -> jax.Array:
    """True if no element of any array is NaN or beyond its limit in size: bool[].

    Args:
        *limited: trees of arrays, each with its limit.
    """
    by_shape = collections.defaultdict(list)
    for tree, limit in limited:
        for leaf in jax.tree.leaves(tree):
            if jnp.issubdtype(leaf.dtype, jnp.inexact):
                by_shape[leaf.shape].append(jnp.abs(leaf) <= jnp.asarray(limit, leaf.dtype))
    # Arrays of one shape are combined, large ones reduced to a vector, and all joined. A deep
    # network then takes a few reductions instead of one for each of its hundreds of arrays.
    parts = [jnp.ones(1, bool)]
    for leaves in by_shape.values():
        fits = functools.reduce(jnp.logical_and, leaves)
        large = fits.ndim > 1 and fits.size > LARGEST_JOINED
        parts.append(fits.all(tuple(range(fits.ndim - 1))) if large else to_vector(fits))
    # The barrier keeps the compiler from reducing each part to a number by a kernel of its own.
    return optimization_barrier_on_accelerators(jnp.concatenate(parts)).all()


def small_arrays(tree: Any) -> list[jax.Array]:
    """The arrays of a tree that take no time to read."""
    return [leaf for leaf in jax.tree.leaves(tree) if leaf.size <= MAX_SIZE]


@jax.named_scope("guard")
def keep_finite(
    old: State, new: State, sums: StepMetrics, grads: Any, limit: jax.Array | float
) -> tuple[State, jax.Array]:
    """Keeps the result of a step only if it is finite.

    A finite loss is not enough: a compiled ReLU may turn a NaN pixel into 0 on the way forward. A
    finite gradient is not enough: the statistics have none, and finite gradients can overflow in
    the optimiser. So the loss, all statistics and memories, all gradients and all small arrays of
    the result are checked. Of an array of more than `MAX_SIZE` elements, reading the result again
    would cost several per cent of a step on a GPU. There the limit of the gradient takes its place:
    a step with a larger one is not kept, also where clipping would make it a small one. This misses
    parameters that diverge without a large gradient, as with a large weight decay, coupled or not;
    after they have overflowed, no step is finite.

    Args:
        old: `train_step.TrainState` before the step.
        new: after it.
        sums: of the step.
        grads: of the step.
        limit: largest size of a gradient's element, such that one update cannot overflow.

    Returns:
        The new state, or the old one with step + 1 if it was not finite; and finite, bool[].
    """
    # On a CPU the compiler would fuse the choice below into the update, and round differently.
    kept = optimization_barrier_on_cpu((new.params, new.batch_stats, new.opt_state, new.extra))
    params, batch_stats, opt_state, extra = kept
    finite = all_within(
        (grads, limit),
        (small_arrays((params, opt_state)), LARGEST_PARAMETER),
        ((sums.row_loss, batch_stats, extra), float(np.finfo(np.float32).max)),
    )
    params, batch_stats, opt_state, extra = jax.tree.map(
        lambda after, before: jnp.where(finite, after, before),
        kept,
        (old.params, old.batch_stats, old.opt_state, old.extra),
    )
    state = dataclasses.replace(
        new, params=params, batch_stats=batch_stats, opt_state=opt_state, extra=extra
    )
    return state, finite
