"""Reads image data sets that TensorFlow Datasets has prepared, without TensorFlow.

Only the formats with random access (array_record, parquet) can be read this way. Nothing is
downloaded or prepared here.
"""

import json
import os
import pathlib
import re
from typing import Any

import numpy as np

from purenoise_jax.data.dataset import Dataset, check_dataset
from purenoise_jax.data.resize import resize_square
from purenoise_jax.errors import ConfigError, DataError
from purenoise_jax.files import read_bytes
from purenoise_jax.paths import expand

_FORMATS = ("array_record", "parquet")
_INFO_FILE = "dataset_info.json"
_FEATURES_FILE = "features.json"
_FEATURE_MODULES = "tensorflow_datasets.core.features."
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_NAME = re.compile(r"\w[\w.\-]*(/\w[\w.+\-]*)?(:\d+\.\d+\.\d+)?", re.ASCII)


def load_tfds(*, name: str, path: str, image_size: int = 0) -> Dataset:
    """Loads a prepared TFDS image classification data set.

    The training set is the split `train` and the test set the split `test`, with `validation`
    beside them if there is one. Without a split `test`, the split `validation` is the test set.
    Where examples have a text feature `id`, they are returned sorted by it, which restores the
    official order of CIFAR; otherwise in the order in which they are stored.

    Args:
        name: TFDS name: `"cifar10"`, `"name/config"`, or either with a version, `"cifar10:3.0.2"`.
        path: The TFDS data directory; empty for `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
            The folder of one version, which holds `dataset_info.json`, will also do.
        image_size: Height and width to resize to; 0 keeps the stored size, which must then be the
            same for all images.

    Returns:
        The checked data set, images `uint8[N, H, W, C]`.

    Raises:
        ConfigError: `name` is not a TFDS name.
        DataError: The data set is not prepared, is in a format without random access, has no
            image or class label, lacks a split, or is damaged.
    """
    folder = find_prepared(name, path)
    if folder is None:
        raise DataError(
            f"TFDS data set {name!r} is not prepared in {_data_dir(path)}. {_how_to_prepare(name)}"
        )
    file_format = _random_access_format(folder)
    if file_format is None:
        raise DataError(
            f"{folder}: the data set is in a TFDS format without random access. "
            f"{_how_to_prepare(name)}"
        )
    _check_feature_classes(folder)

    builder = _open_builder(folder, file_format)
    image_key, label_key, class_names = _find_features(folder, builder)
    splits = {split for split in builder.info.splits if builder.info.splits[split].num_examples}
    test = "test" if "test" in splits else "validation"
    missing = {"train", test} - splits
    if missing:
        raise DataError(
            f"{folder}: lacks the split {' and '.join(sorted(missing))}, "
            f"has {', '.join(sorted(splits)) or 'none'}"
        )
    wanted = ["train", test]
    if test == "test" and "validation" in splits:
        wanted.append("validation")
    arrays = {
        split: _read_split(folder, builder, split, image_key, label_key, image_size)
        for split in wanted
    }
    val_images, val_labels = arrays.get("validation", (None, None))
    if test == "validation":
        val_images, val_labels = None, None
    dataset = Dataset(
        name=name or builder.info.name,
        train_images=arrays["train"][0],
        train_labels=arrays["train"][1],
        test_images=arrays[test][0],
        test_labels=arrays[test][1],
        class_names=class_names,
        val_images=val_images,
        val_labels=val_labels,
    )
    try:
        return check_dataset(dataset)
    except DataError as error:
        raise DataError(f"{folder}: {error}") from None


def find_prepared(name: str, path: str = "") -> pathlib.Path | None:
    """Looks for the folder of a prepared TFDS data set, without importing TFDS.

    Args:
        name: TFDS name, as for `load_tfds`.
        path: The TFDS data directory, or the folder of one version; empty for the default.

    Returns:
        The folder that holds `dataset_info.json`, of the newest version unless one is asked for
        and, among equal ones, of a version that can be read here; None if there is none.

    Raises:
        ConfigError: `name` is not a TFDS name.
        DataError: The data set has several configurations and `name` chooses none.
    """
    root = _data_dir(path)
    if (root / _INFO_FILE).is_file():
        return root
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"data.name {name!r} is not a TFDS name such as 'cifar10' or 'name/config'"
        )
    bare, _, version = name.partition(":")
    folder = root / bare
    if not folder.is_dir():
        return None
    found = _versions(folder, version)
    if not found:
        configs = [entry for entry in sorted(folder.iterdir()) if _versions(entry, version)]
        if len(configs) > 1:
            choices = ", ".join(f"{bare}/{config.name}" for config in configs)
            raise DataError(f"{folder}: holds several configurations, set data.name to {choices}")
        found = _versions(configs[0], version) if configs else []
    return found[-1] if found else None


def has_readable(name: str) -> bool:
    """Says whether the default TFDS directory holds this data set in a format read here.

    Args:
        name: TFDS name, as for `load_tfds`.
    """
    folder = find_prepared(name)
    return folder is not None and _random_access_format(folder) is not None


def _data_dir(path: str) -> pathlib.Path:
    chosen = path or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return expand(chosen, "data.path" if path else "TFDS_DATA_DIR")


def _versions(folder: pathlib.Path, version: str) -> list[pathlib.Path]:
    if not folder.is_dir():
        return []
    found = [
        entry
        for entry in folder.iterdir()
        if _VERSION.fullmatch(entry.name)
        and version in ("", entry.name)
        and (entry / _INFO_FILE).is_file()
    ]
    return sorted(found, key=lambda entry: tuple(int(part) for part in entry.name.split(".")))


def _how_to_prepare(name: str) -> str:
    return (
        "Prepare it once on a machine with TensorFlow: "
        f"tfds build {name or 'NAME'} --file_format=array_record"
    )


def _read_json(file: pathlib.Path) -> Any:
    try:
        return json.loads(read_bytes(file))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read ({error})") from error


def _random_access_format(folder: pathlib.Path) -> str | None:
    info = _read_json(folder / _INFO_FILE)
    if not isinstance(info, dict):
        raise DataError(f"{folder / _INFO_FILE}: is not a description of a data set")
    offered = [info.get("fileFormat"), *(info.get("alternativeFileFormats") or [])]
    return next((file_format for file_format in _FORMATS if file_format in offered), None)


def _check_feature_classes(folder: pathlib.Path) -> None:
    """Refuses features that are not TFDS's own: TFDS imports whatever module the file names."""
    pending = [_read_json(folder / _FEATURES_FILE)]
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending += node
        elif isinstance(node, dict):
            pending += node.values()
            for key in ("pythonClassName", "python_class_name", "type"):
                named = node.get(key)
                if isinstance(named, str) and not named.startswith(_FEATURE_MODULES):
                    raise DataError(f"{folder / _FEATURES_FILE}: refused the class {named!r}")


def _open_builder(folder: pathlib.Path, file_format: str) -> Any:
    # TFDS takes about half a second to import, which other sources need not pay.
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DataError(f"cannot import tensorflow_datasets: {error}") from error
    try:
        return tfds.builder_from_directory(str(folder), file_format=file_format)
    # TFDS and protobuf document no common error for a damaged description.
    except Exception as error:
        raise DataError(f"{folder}: TFDS cannot open it ({_one_line(error)})") from error


def _find_features(folder: pathlib.Path, builder: Any) -> tuple[str, str, tuple[str, ...]]:
    import tensorflow_datasets as tfds

    features = builder.info.features
    images = []
    labels = []
    for key, feature in features.items():
        if isinstance(feature, tfds.features.ClassLabel):
            labels.append(key)
        elif isinstance(feature, tfds.features.Image) or (
            type(feature) is tfds.features.Tensor
            and len(feature.shape) == 3
            and np.dtype(feature.np_dtype) == np.uint8
        ):
            images.append(key)
    supervised = builder.info.supervised_keys or ()
    image_key = _pick(folder, "image", images, supervised)
    label_key = _pick(folder, "label", labels, supervised)
    return image_key, label_key, tuple(features[label_key].names)


def _pick(folder: pathlib.Path, kind: str, found: list[str], supervised: Any) -> str:
    for key in (*(key for key in found if key in supervised), kind):
        if key in found:
            return key
    if len(found) == 1:
        return found[0]
    raise DataError(
        f"{folder}: needs one {kind} feature, has {', '.join(found) if found else 'none'}"
    )


def _read_split(
    folder: pathlib.Path,
    builder: Any,
    split: str,
    image_key: str,
    label_key: str,
    image_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    images: np.ndarray | None = None
    labels: list[int] = []
    ids: list[bytes] = []
    index = -1
    try:
        source = builder.as_data_source(split)
        count = len(source)
        for index in range(count):
            example = source[index]
            image = np.asarray(example[image_key])
            if image_size:
                image = resize_square(image, image_size)
            if images is None:
                images = np.empty((count, *image.shape), np.uint8)
            if image.shape != images.shape[1:] or image.dtype != np.uint8:
                raise DataError(
                    f"{folder}: image {index} of split {split} is {image.dtype}{image.shape} but "
                    f"the first is uint8{images.shape[1:]}; set data.image_size to resize all"
                )
            images[index] = image
            labels.append(int(example[label_key]))
            if isinstance(example.get("id"), bytes | str):
                ids.append(_as_bytes(example["id"]))
    except DataError:
        raise
    # The readers of the two formats raise errors of their own making for damaged records.
    except Exception as error:
        raise DataError(
            f"{folder}: cannot read example {index} of split {split} ({_one_line(error)})"
        ) from error
    if images is None:
        raise DataError(f"{folder}: split {split} is empty")
    label_array = np.array(labels, np.int64)
    if len(ids) == count:
        order = np.array(sorted(range(count), key=ids.__getitem__))
        images, label_array = images[order], label_array[order]
    return images, label_array


def _as_bytes(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
