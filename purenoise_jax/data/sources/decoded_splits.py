"""The splits of a data set whose images stay encoded where they are."""

import dataclasses

import numpy as np

from purenoise_jax.data.decoded_images import DecodedImages
from purenoise_jax.data.manifest import Manifest
from purenoise_jax.data.view import View


def decoded_splits(
    manifest: Manifest, train: str, view: View, skips_bad: bool = False
) -> dict[str, tuple[DecodedImages, np.ndarray]]:
    """Returns images and labels of every split, and measures the statistics of their channels.

    Args:
        manifest: of the data set.
        train: name of the training split.
        view: see `DecodedImages`; random crops are only those of the training images.
        skips_bad: see `DecodedImages`.

    Raises:
        DataError: images cannot be read; one message lists all.
        StorageError: the cache cannot be written.
    """
    plain = dataclasses.replace(view, crop="")
    splits = {
        split: (
            DecodedImages(manifest, entries, view if split == train else plain, skips_bad),
            entries.labels,
        )
        for split, entries in manifest.splits.items()
    }
    for images, _ in splits.values():
        # Whether the samples of 16 bits fill them is seen in a whole split only.
        images.histograms()
    return splits
