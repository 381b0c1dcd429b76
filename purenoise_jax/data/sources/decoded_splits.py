"""The splits of a data set whose images stay encoded where they are."""

import numpy as np

from purenoise_jax.data.decoded_images import DecodedImages
from purenoise_jax.data.manifest import Manifest


def decoded_splits(
    manifest: Manifest, train: str, image_size: int, skips_bad: bool = False, crops: bool = False
) -> dict[str, tuple[DecodedImages, np.ndarray]]:
    """Returns images and labels of every split, and measures the statistics of their channels.

    Args:
        manifest: of the data set.
        train: name of the training split.
        image_size: see `DecodedImages`.
        skips_bad: see `DecodedImages`.
        crops: see `DecodedImages`; only of the training images.

    Raises:
        DataError: images cannot be read; one message lists all.
        StorageError: the cache cannot be written.
    """
    splits = {
        split: (
            DecodedImages(manifest, entries, image_size, skips_bad, crops and split == train),
            entries.labels,
        )
        for split, entries in manifest.splits.items()
    }
    for images, _ in splits.values():
        # Whether the samples of 16 bits fill them is seen in a whole split only.
        images.histograms()
    return splits
