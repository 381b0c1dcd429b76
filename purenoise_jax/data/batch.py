"""A training batch: its entries, and how rows of a data set become one."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from purenoise_jax.data.pixels import normalize, to_float

# A training batch:
#   image       f32[B, H, W, C]  augmented, pixel space [0, 1]
#   label       i32[B]
#   target      f32[B, K]        one-hot unless a transform softens it
#   valid       bool[B]          False = padding
#   noise_mask  bool[B]          True = pure noise; the entry is absent while no row can be
Batch = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class BatchBuilder:
    """How rows of the data set become a batch.

    Attributes:
        augment: (key, images f32[B, H, W, C] in [0, 1]) -> the same, or None.
        mean, std: f32[C], with which images enter the network.
        num_classes: K.
        dtype: of images and targets.
    """

    augment: Callable[[jax.Array, jax.Array], jax.Array] | None
    mean: np.ndarray
    std: np.ndarray
    num_classes: int
    dtype: DTypeLike = jnp.float32

    def normalize(self, images: jax.Array) -> jax.Array:
        """Pixels in [0, 1] as the network wants them, [B, H, W, C]."""
        return normalize(images, self.mean, self.std)

    def make_batch(
        self,
        key: jax.Array,
        images: jax.Array,
        labels: jax.Array,
        index: jax.Array,
        valid: jax.Array,
    ) -> Batch:
        """Reads and augments the rows of a step; see `recipe.Batch`."""
        image, label = to_float(images[index], self.dtype), labels[index]
        if self.augment is not None:
            image = self.augment(key, image)
        return {
            "image": image,
            "label": label,
            "target": jax.nn.one_hot(label, self.num_classes, dtype=self.dtype),
            "valid": valid,
        }
