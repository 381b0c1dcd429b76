"""Reads image data sets that TensorFlow Datasets has prepared, without TensorFlow."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from purenoise_jax.data.dataset import Dataset, check_dataset
from purenoise_jax.data.sources.decode import Decoded, decode_image
from purenoise_jax.data.sources.image_stack import ImageStack
from purenoise_jax.data.sources.resize import SQUASH
from purenoise_jax.data.sources.tfds_prepared import Prepared, first_line, open_prepared
from purenoise_jax.runtime.errors import DataError, all_faults


def load_tfds(
    *,
    name: str,
    path: str,
    image_size: int = 0,
    train_split: str = "",
    test_split: str = "",
    resize: str = SQUASH,
) -> Dataset:
    """Loads a prepared TFDS image classification data set.

    The training set is the split `train`, the test set the split `test`, and the validation set the
    split `validation` if there is one. Without a split `test`, `validation` is the test set.
    Encoded images are read by the rules of `decode_image`. If examples have a text feature `id`,
    they are returned sorted by it, which restores the official order of CIFAR; otherwise they are
    returned in stored order.

    Args:
        name: TFDS name: `"cifar10"`, `"name/config"`, or either with a version, `"cifar10:3.0.2"`.
        path: the TFDS data directory, or the folder of one version, which holds
            `dataset_info.json`; empty for `$TFDS_DATA_DIR`, or `~/tensorflow_datasets` if that is
            not set.
        image_size: height and width to resize to; 0 keeps the stored size, which must then be the
            same for all images.
        train_split: name of the split of training images; empty for `train`.
        test_split: name of the split of test images; empty for `test`, or `validation` if there is
            no `test`.
        resize: see `resize_square`.

    Returns:
        The checked data set, images `uint8[N, H, W, C]`.

    Raises:
        ConfigError: `name` is not a TFDS name, or a split's name is not legal.
        DataError: the data set is not prepared, is in a format without random access, has no image
            or class label, lacks a split or its labels, or is damaged.
    """
    prepared = open_prepared(name, path, train_split, test_split)
    arrays, faults = {}, []
    for split in prepared.splits:
        arrays[split], more = _read_split(prepared, split, image_size, resize)
        faults += more
    if faults:
        raise all_faults(prepared.folder, faults)
    return dataset_of(prepared, arrays)


def dataset_of(prepared: Prepared, arrays: Mapping[str, tuple[Any, np.ndarray]]) -> Dataset:
    """Returns the checked data set.

    Args:
        prepared: the data set.
        arrays: split -> images and labels.

    Raises:
        DataError: all labels of the training or the test split are missing, or some are not legal.
    """
    folder, train, test = prepared.folder, prepared.train, prepared.test
    unlabelled = {split for split in prepared.splits if (arrays[split][1] == -1).all()}
    for field, split in (("data.train_split", train), ("data.test_split", test)):
        if split in unlabelled:
            splits = prepared.builder.info.splits
            there = {name for name in splits if splits[name].num_examples}
            others = ", ".join(sorted(there - {train, test})) or "none"
            raise DataError(
                f"{folder}: all labels of the split {split} are -1, which means unlabelled; set "
                f"{field} to another split, there is {others}"
            )
    has_val = len(prepared.splits) > 2 and prepared.splits[2] not in unlabelled
    val_images, val_labels = arrays[prepared.splits[2]] if has_val else (None, None)
    dataset = Dataset(
        name=prepared.name,
        train_images=arrays[train][0],
        train_labels=arrays[train][1],
        test_images=arrays[test][0],
        test_labels=arrays[test][1],
        class_names=prepared.classes,
        val_images=val_images,
        val_labels=val_labels,
    )
    try:
        return check_dataset(dataset)
    except DataError as error:
        raise DataError(f"{folder}: {error}") from None


def _read_split(
    prepared: Prepared, split: str, image_size: int, resize: str
) -> tuple[tuple[np.ndarray, np.ndarray], list[str]]:
    """Reads images and labels of a split, and its faults; with faults, images are missing."""
    labels: list[int] = []
    ids: list[bytes] = []
    faults: list[str] = []
    index = -1
    try:
        source = prepared.examples(split)
        count = len(source)
        stack = ImageStack(count, image_size, resize)
        for index in range(count):
            example = source[index]
            labels.append(int(example[prepared.label_key]))
            if (name := id_of(example)) is not None:
                ids.append(name)
            place = f"example {index} of split {split}"
            try:
                decoded = decode_example(prepared, example)
            except DataError as error:
                faults.append(f"{place}: {error}")
            else:
                stack.add(index, place, decoded.pixels, decoded.largest)
    except DataError:
        raise
    # All errors, because the readers of the two formats have their own for damaged records.
    except Exception as error:
        raise DataError(
            f"{prepared.folder}: cannot read example {index} of split {split} ({first_line(error)})"
        ) from error
    if not count:
        raise DataError(f"{prepared.folder}: split {split} is empty")
    images, more = stack.finish()
    faults += more
    label_array = np.array(labels, np.int64)
    if len(ids) == count and not faults:
        order = np.array(sorted(range(count), key=ids.__getitem__))
        images, label_array = images[order], label_array[order]
    return (images, label_array), faults


def decode_example(prepared: Prepared, example: Mapping[str, Any]) -> Decoded:
    """Returns the image of an example; C is 1 if its feature has one channel, otherwise 3.

    Args:
        prepared: the data set.
        example: with its encoded image as bytes.

    Raises:
        DataError: it is no image, or a damaged one.
    """
    data = example[prepared.image_key]
    if not prepared.is_encoded:
        return Decoded(np.asarray(data))
    if not isinstance(data, bytes):
        raise DataError(f"cannot be read as an image (it is stored as {type(data).__name__})")
    decoded = decode_image(data)
    pixels = decoded.pixels
    if prepared.channels == 1:
        if (pixels != pixels[..., :1]).any():
            raise DataError("is coloured, but its feature has one channel")
        pixels = pixels[..., :1]
    return Decoded(pixels, decoded.largest)


def id_of(example: Mapping[str, Any]) -> bytes | None:
    """Returns the text feature `id` of an example; None if there is none."""
    found = example.get("id")
    if isinstance(found, str):
        return found.encode()
    return found if isinstance(found, bytes) else None
