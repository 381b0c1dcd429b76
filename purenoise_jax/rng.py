"""Named streams of random keys.

Every random number of a run comes from `at(stream(seed, name), step)`. No key is carried from step
to step, stored or reused, so the batch of a step depends on nothing but the seed and the step.
"""

import jax

# The number, not the position, is part of the definition of a run: append, never renumber.
STREAMS = {"params": 0, "sampling": 1, "augment": 2, "transforms": 3, "dropout": 4, "objective": 5}


def stream(seed: int, name: str) -> jax.Array:
    """The key of a named stream, a typed key [].

    Args:
      seed: the run's seed.
      name: one of `STREAMS`; anything else is a KeyError.
    """
    return jax.random.fold_in(jax.random.key(seed), STREAMS[name])


def at(key: jax.Array, step: jax.Array | int) -> jax.Array:
    """The key of a stream at a step (or epoch), a typed key []."""
    return jax.random.fold_in(key, step)
