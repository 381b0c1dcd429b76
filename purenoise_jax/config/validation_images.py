"""Validation images: those that a config holds out, and those that data have of their own."""

from ml_collections import ConfigDict

from purenoise_jax.data.sources.folder import folder_files
from purenoise_jax.data.sources.npz import npz_shapes
from purenoise_jax.data.sources.tfds_prepared import open_prepared
from purenoise_jax.runtime.errors import ConfigError, DataError

# Fields of `data`, each of which holds validation images out of the training images.
VALIDATION_RULES = ("val_fraction", "val_per_class", "folds")


def holds_out(data: ConfigDict) -> bool:
    """Tells whether a config holds validation images out of the training images.

    Args:
        data: the fields of `data`.
    """
    return any(data[rule] for rule in VALIDATION_RULES)


def has_validation(data: ConfigDict) -> bool:
    """Tells whether data have validation images of their own.

    Args:
        data: the fields of `data`. Data that cannot be listed have none; a run refuses them.
    """
    try:
        if data.source == "npz":
            return "val_images" in npz_shapes(data.path)
        if data.source == "folder":
            files = folder_files(data.path, data.train_split, data.test_split)
            return bool(files.splits.keys() - {files.train, files.test})
        if data.source == "tfds":
            found = open_prepared(data.name, data.path, data.train_split, data.test_split)
            return len(found.splits) > 2
    except (ConfigError, DataError):
        return False
    if data.source == "tiered_imagenet":
        return True
    return data.source == "list" and bool(data.val_list)
