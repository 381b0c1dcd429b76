"""The handwritten digits that come with scikit-learn: real images without a download."""

import numpy as np

from purenoise_jax.data.dataset import Dataset, check_dataset
from purenoise_jax.data.sources.resize import resize_square
from purenoise_jax.runtime.errors import ConfigError

_TEST_PER_CLASS = 40
_DEFAULT_SIDE = 16


def load_digits(*, name: str = "digits", path: str = "", image_size: int = 0) -> Dataset:
    """Loads the 1,797 digits, split into a training set and a balanced test set.

    The last 40 images of every class in file order are the test set, so the split needs no seed.

    Args:
        name: unused.
        path: must be empty; the images are part of scikit-learn.
        image_size: height and width to resample the 8 x 8 images to; 0 means 16.

    Returns:
        1,397 training and 400 test images `uint8[N, S, S, 1]`, values 0..255, in file order.

    Raises:
        ConfigError: `path` is given.
    """
    if path:
        raise ConfigError(f"data.path={path} is not read: the digits come with scikit-learn")
    # Imported here, because it takes about a second and other sources do not need it.
    from sklearn import datasets

    stored = datasets.load_digits()
    grey = np.round(stored.images * (255 / 16)).astype(np.uint8)[..., None]
    side = image_size or _DEFAULT_SIDE
    images = np.stack([resize_square(image, side) for image in grey])
    labels = stored.target.astype(np.int32)

    is_test = np.zeros(len(labels), bool)
    for digit in range(10):
        is_test[np.flatnonzero(labels == digit)[-_TEST_PER_CLASS:]] = True
    return check_dataset(
        Dataset(
            name="digits",
            train_images=images[~is_test],
            train_labels=labels[~is_test],
            test_images=images[is_test],
            test_labels=labels[is_test],
            class_names=tuple(str(digit) for digit in range(10)),
        )
    )
