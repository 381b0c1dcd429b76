"""The places of a network at which a method can change the activations."""

from collections.abc import Callable

import jax

# In forward order: the normalised images [B, H, W, C], the output of each stage [B, H, W, C], the
# pooled features [B, F]. A network may have only some of them.
PLACES = ("input", "stage1", "stage2", "stage3", "stage4", "features")
# (place, activations [B, ...]) -> activations of the same shape and dtype.
Mix = Callable[[str, jax.Array], jax.Array]


def unmixed(place: str, x: jax.Array) -> jax.Array:
    """Returns the activations [B, ...] unchanged."""
    del place
    return x
