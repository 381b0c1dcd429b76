"""Random numbers: named streams of keys, and draws that no setting of the environment changes.

Every random number of a run comes from `at(stream(seed, name), step)`. No key is carried from step
to step, stored or reused, so the batch of a step depends on nothing but the seed and the step.

JAX lets the environment choose how keys become numbers: `JAX_DEFAULT_PRNG_IMPL`,
`JAX_THREEFRY_PARTITIONABLE` and, by the default dtype, `JAX_ENABLE_X64`. Keys and draws of this
module fix all three, so that a seed means the same numbers everywhere. The package therefore draws
with these functions and not with those of `jax.random`, whose bits they return under JAX's own
defaults. Only the initialisers of Flax draw by themselves; `fixed_bits` wraps their callers.
"""

import functools
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

P = ParamSpec("P")
T = TypeVar("T")

# Part of the definition of a run, because it decides all random numbers.
KEY_IMPL = "threefry2x32"

# The numbers, not the positions, are part of the definition of a run: append, never renumber.
STREAMS = {
    "params": 0,
    "sampling": 1,
    "augment": 2,
    "transforms": 3,
    "dropout": 4,
    "objective": 5,
    "generators": 6,
    "draws": 7,
}


def root(seed: int) -> jax.Array:
    """Returns the key of a seed, a typed key []."""
    return jax.random.key(seed, impl=KEY_IMPL)


def stream(seed: int, name: str) -> jax.Array:
    """Returns the key of a named stream, a typed key [].

    Args:
        seed: the run's seed.
        name: one of `STREAMS`; anything else is a KeyError.
    """
    return jax.random.fold_in(root(seed), STREAMS[name])


def at(key: jax.Array, step: jax.Array | int) -> jax.Array:
    """Returns the key of a stream at a step (or epoch), a typed key []."""
    return jax.random.fold_in(key, step)


def all_at(keys: jax.Array, step: jax.Array | int) -> jax.Array:
    """Returns the keys of several streams at a step, typed keys [S] from such; see `at`."""
    return jax.vmap(lambda key: at(key, step))(keys)


def fixed_bits(function: Callable[P, T]) -> Callable[P, T]:
    """Wraps a function so that draws within it use partitionable threefry, JAX's default."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with jax.threefry_partitionable(True):
            return function(*args, **kwargs)

    return call


@fixed_bits
def split(key: jax.Array, num: int = 2) -> jax.Array:
    """Splits a key, which must not be used again, into typed keys [num]."""
    return jax.random.split(key, num)


@fixed_bits
def uniform(key: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Draws uniform numbers in [0, 1), f32[shape]."""
    return jax.random.uniform(key, shape, jnp.float32)


@fixed_bits
def normal(key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Draws standard normal numbers of a float dtype, [shape]."""
    return jax.random.normal(key, shape, dtype)


@fixed_bits
def randint(key: jax.Array, shape: Sequence[int], low: ArrayLike, high: ArrayLike) -> jax.Array:
    """Draws uniform integers in [low, high), i32[shape]; the bounds broadcast to `shape`."""
    return jax.random.randint(key, shape, low, high, jnp.int32)


@fixed_bits
def permutation(key: jax.Array, count: int) -> jax.Array:
    """Draws a permutation of 0 .. count - 1, i32[count]."""
    return jax.random.permutation(key, jnp.arange(count, dtype=jnp.int32))


@fixed_bits
def beta(key: jax.Array, a: float, b: float, shape: Sequence[int]) -> jax.Array:
    """Numbers of the distribution Beta(a, b), f32[shape] in [0, 1]; `a` and `b` above 0."""
    return jax.random.beta(key, jnp.float32(a), jnp.float32(b), shape, jnp.float32)


@fixed_bits
def gumbel(key: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Draws standard Gumbel numbers, f32[shape]; the argmax of these + log p has distribution p."""
    # One of two precisions near the ends, between which a setting of JAX would choose.
    return jax.random.gumbel(key, shape, jnp.float32, mode="low")


@fixed_bits
def bernoulli(key: jax.Array, probability: float, shape: Sequence[int]) -> jax.Array:
    """Draws bool[shape], each True with a probability in [0, 1]."""
    return jax.random.bernoulli(key, jnp.float32(probability), shape)
