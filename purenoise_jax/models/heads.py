"""Classifier heads."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype, Initializer

# PyTorch's default for a linear layer: uniform within 1 / sqrt(fan_in).
TORCH_UNIFORM: Initializer = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Linear(nn.Module):
    """Linear classifier whose bias starts uniform within 1 / sqrt(fan_in), as PyTorch's does.

    Attributes:
      num_classes: K.
      kernel_init: initialiser of the kernel.
      dtype: of the computation; the logits are float32 or wider in any case.
    """

    num_classes: int
    kernel_init: Initializer = TORCH_UNIFORM
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps features [B, F] to logits [B, K]."""
        bound = 1 / math.sqrt(features.shape[-1])

        def bias_init(key: jax.Array, shape: tuple[int, ...], dtype: Dtype) -> jax.Array:
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        dense = nn.Dense(
            self.num_classes,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            bias_init=bias_init,
            name="fc",
        )
        logits = dense(features)
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
