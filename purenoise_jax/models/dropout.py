"""Dropout with a mask that depends only on its key."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from purenoise_jax.runtime import rng


def without_dropout(model: Any) -> Any:
    """Returns a model that drops no activations in training mode either."""
    return model.clone(dropout_rate=0.0) if getattr(model, "dropout_rate", 0) else model


class Dropout(nn.Module):
    """Drops activations in training, and scales the others up to keep the mean.

    The masks are those of `flax.linen.Dropout`, except that Flax's change with `JAX_ENABLE_X64`.

    Attributes:
        rate: probability that an activation becomes zero, in [0, 1).
        deterministic: True drops none.
    """

    rate: float
    deterministic: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Drops activations of any shape; needs a key named "dropout" unless none are dropped."""
        if self.deterministic or self.rate == 0:
            return x
        kept = 1 - self.rate
        mask = rng.bernoulli(self.make_rng("dropout"), kept, x.shape)
        return jnp.where(mask, x / kept, 0)
