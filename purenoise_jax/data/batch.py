"""Training batches: their entries, and the builder that makes one from rows of a data set."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from purenoise_jax.data.pixels import normalize, to_float
from purenoise_jax.runtime import rng

# A training batch:
#   image       f32[B, H, W, C]  pixel space [0, 1], augmented unless the recipe takes stored images
#   label       i32[B]
#   target      f32[B, K]        one-hot unless a transform softens it
#   valid       bool[B]          False = padding
#   noise_mask  bool[B]          True = pure noise; absent if the recipe makes no noise
#   second      as image         another augmented version; absent unless the recipe has two views
#   host_image, host_label, host_valid  the rows that the host drew; absent unless the recipe draws
#                                others in their place, see `methods.recipe.Recipe.class_draw`
Batch = Mapping[str, jax.Array]


def natural_rows(batch: Batch) -> jax.Array:
    """The rows of a batch that are neither noise nor padding, bool[B]."""
    valid = batch["valid"]
    return valid & ~batch["noise_mask"] if "noise_mask" in batch else valid


@dataclasses.dataclass(frozen=True)
class BatchBuilder:
    """Builds batches from rows of the data set.

    Attributes:
        augment: function (key, images f32[B, H, W, C] in [0, 1]) -> the same; None augments
            nothing.
        mean, std: f32[C], for the normalisation of the network's input.
        num_classes: K.
        dtype: of images and targets.
    """

    augment: Callable[[jax.Array, jax.Array], jax.Array] | None
    mean: np.ndarray
    std: np.ndarray
    num_classes: int
    dtype: DTypeLike = jnp.float32

    def augmenting(self, augments: bool) -> "BatchBuilder":
        """Returns the builder as it is, or with False one that leaves images as they are stored."""
        return self if augments else dataclasses.replace(self, augment=None)

    def normalize(self, images: jax.Array) -> jax.Array:
        """Normalises pixels in [0, 1] for the network, [B, H, W, C]."""
        return normalize(images, self.mean, self.std)

    def make_batch(
        self,
        key: jax.Array,
        images: jax.Array,
        labels: jax.Array,
        index: jax.Array | None,
        valid: jax.Array,
        views: int = 1,
    ) -> Batch:
        """Reads and augments the rows of a step.

        Args:
            key: typed key for the augmentation.
            images: uint8[N, H, W, C], the data set.
            labels: int[N] in [0, K).
            index: int[B], the rows of the data set; None if `images` and `labels` are these rows.
            valid: bool[B], False = padding.
            views: 1, or 2 for two independently augmented versions of each image.
        """
        if index is not None:
            images, labels = images[index], labels[index]
        image, label = to_float(images, self.dtype), labels
        keys = [key] if views == 1 else [rng.at(key, view) for view in range(views)]
        seen = [image if self.augment is None else self.augment(each, image) for each in keys]
        return {
            "image": seen[0],
            "label": label,
            "target": jax.nn.one_hot(label, self.num_classes, dtype=self.dtype),
            "valid": valid,
            **dict(zip(("second",), seen[1:], strict=False)),
        }
