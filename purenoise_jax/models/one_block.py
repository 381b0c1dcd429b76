"""A minimal network for tests of everything but the network."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype


class TinyNet(nn.Module):
    """One convolution with its norm and one hidden layer, for fast steps.

    The hidden layer is wide, so that checkpoints have files of a realistic size.

    Attributes:
        num_classes: K.
        norm: makes a normalisation layer; called with `use_running_average` and `name`.
        dtype: of activations.
    """

    num_classes: int
    norm: Callable[..., nn.Module]
    dtype: Dtype | None = None

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        noise_mask: jax.Array | None = None,
        valid: jax.Array | None = None,
        *,
        train: bool,
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Classifies images [B, H, W, C] as logits [B, K]; see `ResNetCifar`."""
        x = nn.Conv(16, (3, 3), strides=2, use_bias=False, dtype=self.dtype, name="conv")(images)
        norm = self.norm(use_running_average=not train, name="norm")
        x = nn.relu(norm(x, noise_mask, valid)).reshape(x.shape[0], -1)
        features = nn.relu(nn.Dense(256, dtype=self.dtype, name="hidden")(x))
        # In float32 for activations of every dtype, as in `Linear`.
        features = features.astype(jnp.promote_types(features.dtype, jnp.float32))
        return nn.Dense(self.num_classes, name="head")(features), {"features": features}
