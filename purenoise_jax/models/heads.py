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

    The product is computed in float32, or wider if the features are, whatever the dtype of the
    network before it. In bfloat16 logits have 8 bits: with many classes two of them are often
    equal, and `argmax` gives every tie to the smaller index, in a long tail the larger class.

    Attributes:
      num_classes: K.
      kernel_init: initialiser of the kernel.
    """

    num_classes: int
    kernel_init: Initializer = TORCH_UNIFORM

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps features [B, F] to logits [B, K], float32 or wider."""
        bound = 1 / math.sqrt(features.shape[-1])

        def bias_init(key: jax.Array, shape: tuple[int, ...], dtype: Dtype) -> jax.Array:
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        dense = nn.Dense(
            self.num_classes,
            # Accelerators multiply float32 in fewer bits otherwise.
            precision=jax.lax.Precision.HIGHEST,
            kernel_init=self.kernel_init,
            bias_init=bias_init,
            name="fc",
        )
        return dense(features.astype(jnp.promote_types(features.dtype, jnp.float32)))
