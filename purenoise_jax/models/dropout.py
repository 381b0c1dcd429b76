"""Dropout whose mask depends on its key alone."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from purenoise_jax.runtime import rng


class Dropout(nn.Module):
    """Drops activations in training, and scales the others up to keep the mean.

    As `flax.linen.Dropout`, with the same masks; but those of Flax change with `JAX_ENABLE_X64`.

    Attributes:
        rate: share of activations that become zero, in [0, 1).
        deterministic: True drops none.
    """

    rate: float
    deterministic: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Drops from activations of any shape; wants a key named "dropout" unless none are."""
        if self.deterministic or self.rate == 0:
            return x
        kept = 1 - self.rate
        mask = rng.bernoulli(self.make_rng("dropout"), kept, x.shape)
        return jnp.where(mask, x / kept, 0)
