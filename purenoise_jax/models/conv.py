"""The convolution of all networks here."""

import jax
from flax import linen as nn

from purenoise_jax.xla import materialize


class Conv(nn.Conv):
    """`flax.linen.Conv`, whose input and output are arrays in memory, see `xla.materialize`."""

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Convolves [B, H, W, C] to [B, H', W', features]."""
        return materialize(super().__call__(materialize(inputs)))
