"""Reads image data sets that TensorFlow Datasets has prepared, without TensorFlow.

Only the formats with random access (array_record, parquet) can be read this way. Data sets are
neither downloaded nor prepared here.
"""

import json
import os
import pathlib
import re
from typing import Any

import numpy as np

from purenoise_jax.data.dataset import Dataset, check_dataset
from purenoise_jax.data.sources.decode import decode_image
from purenoise_jax.data.sources.image_stack import ImageStack
from purenoise_jax.data.sources.resize import SQUASH
from purenoise_jax.data.sources.splits import refuse_odd_splits
from purenoise_jax.runtime.errors import ConfigError, DataError, all_faults, shown
from purenoise_jax.runtime.files import read_bytes
from purenoise_jax.runtime.paths import expand

_FORMATS = ("array_record", "parquet")
_INFO_FILE = "dataset_info.json"
_FEATURES_FILE = "features.json"
_FEATURE_MODULES = "tensorflow_datasets.core.features."
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_NAME = re.compile(r"\w[\w.\-]*(/\w[\w.+\-]*)?(:\d+\.\d+\.\d+)?", re.ASCII)


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
    train = train_split or "train"
    test = test_split or ("test" if "test" in splits else "validation")
    refuse_odd_splits(train, test)
    missing = {train, test} - splits
    if missing:
        raise DataError(
            f"{folder}: lacks the split {' and '.join(sorted(missing))}, "
            f"has {', '.join(sorted(splits)) or 'none'}; choose others with data.train_split and "
            "data.test_split"
        )
    wanted = [train, test]
    if "validation" in splits and "validation" not in wanted:
        wanted.append("validation")
    arrays, faults = {}, []
    for split in wanted:
        arrays[split], more = _read_split(
            folder, builder, split, image_key, label_key, (image_size, resize)
        )
        faults += more
    if faults:
        raise all_faults(folder, faults)
    unlabelled = {split for split in wanted if (arrays[split][1] == -1).all()}
    for field, split in (("data.train_split", train), ("data.test_split", test)):
        if split in unlabelled:
            others = ", ".join(sorted(splits - {train, test})) or "none"
            raise DataError(
                f"{folder}: all labels of the split {split} are -1, which means unlabelled; set "
                f"{field} to another split, there is {others}"
            )
    has_val = len(wanted) > 2 and wanted[2] not in unlabelled
    val_images, val_labels = arrays[wanted[2]] if has_val else (None, None)
    dataset = Dataset(
        name=name or builder.info.name,
        train_images=arrays[train][0],
        train_labels=arrays[train][1],
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
    """Finds the folder of a prepared TFDS data set, without importing TFDS.

    Args:
        name: TFDS name, as for `load_tfds`.
        path: the TFDS data directory, or the folder of one version; empty for the default.

    Returns:
        The folder that holds `dataset_info.json`, of the newest version unless `name` chooses one;
        None if there is none.

    Raises:
        ConfigError: `name` is not a TFDS name.
        DataError: the data set has several configurations and `name` chooses none.
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


def name_in_folder(path: str) -> str:
    """Returns the name of the data set if the folder is one version of it; otherwise ""."""
    try:
        info = json.loads((pathlib.Path(path).expanduser() / _INFO_FILE).read_bytes())
    except (OSError, ValueError, RecursionError, RuntimeError):
        return ""
    name = info.get("name") if isinstance(info, dict) else None
    return name if isinstance(name, str) else ""


def has_readable(name: str) -> bool:
    """Returns whether the default TFDS directory holds this data set in a format read here.

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
    others = info.get("alternativeFileFormats") or []
    if not isinstance(others, list):
        raise DataError(
            f"{folder / _INFO_FILE}: alternativeFileFormats is {shown(others)}, must be a list of "
            "names"
        )
    offered = [info.get("fileFormat"), *others]
    return next((file_format for file_format in _FORMATS if file_format in offered), None)


def _check_feature_classes(folder: pathlib.Path) -> None:
    """Refuses features that are not TFDS's own, because TFDS imports any module the file names."""
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
    # Imported here, because it takes about half a second and other sources do not need it.
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DataError(f"cannot import tensorflow_datasets: {error}") from error
    try:
        return tfds.builder_from_directory(str(folder), file_format=file_format)
    # All errors, because TFDS and protobuf document none for a damaged description.
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
        elif isinstance(feature, tfds.features.Image):
            # Floats are not read: TFDS stores their bytes as a PNG.
            if np.dtype(feature.np_dtype) in (np.uint8, np.uint16):
                images.append(key)
        elif (
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
    sizes: tuple[int, str],
) -> tuple[tuple[np.ndarray, np.ndarray], list[str]]:
    """Reads images and labels of a split, and its faults; with faults, images are missing."""
    import tensorflow_datasets as tfds

    feature = builder.info.features[image_key]
    encoded = isinstance(feature, tfds.features.Image)
    labels: list[int] = []
    ids: list[bytes] = []
    faults: list[str] = []
    index = -1
    try:
        # TFDS's own decoders are skipped, because they depend on the installed libraries.
        decoders = {image_key: tfds.decode.SkipDecoding()} if encoded else None
        source = builder.as_data_source(split, decoders=decoders)
        count = len(source)
        declared, stored = builder.info.splits[split].num_examples, _count_stored(source, builder)
        if stored != declared:
            raise DataError(
                f"{folder}: {_INFO_FILE} declares {declared} examples in split {split}, but "
                f"{stored} are stored"
            )
        stack = ImageStack(count, *sizes)
        for index in range(count):
            example = source[index]
            labels.append(int(example[label_key]))
            if isinstance(example.get("id"), bytes | str):
                ids.append(_as_bytes(example["id"]))
            place = f"example {index} of split {split}"
            if encoded:
                try:
                    stack.add(index, place, *_decode(example[image_key], feature.shape[-1]))
                except DataError as error:
                    faults.append(f"{place}: {error}")
            else:
                stack.add(index, place, np.asarray(example[image_key]))
    except DataError:
        raise
    # All errors, because the readers of the two formats have their own for damaged records.
    except Exception as error:
        raise DataError(
            f"{folder}: cannot read example {index} of split {split} ({_one_line(error)})"
        ) from error
    if not count:
        raise DataError(f"{folder}: split {split} is empty")
    images, more = stack.finish()
    faults += more
    label_array = np.array(labels, np.int64)
    if len(ids) == count and not faults:
        order = np.array(sorted(range(count), key=ids.__getitem__))
        images, label_array = images[order], label_array[order]
    return (images, label_array), faults


def _count_stored(source: Any, builder: Any) -> int:
    """Counts the examples in the files of a split.

    For array_record, TFDS itself only reads the declared number of examples.
    """
    if builder.info.file_format.value != "array_record":
        return len(source)
    from array_record.python.array_record_module import ArrayRecordReader

    stored = 0
    for file in builder.info.splits[source.split].filepaths:
        reader = ArrayRecordReader(str(file))
        stored += reader.num_records()
        reader.close()
    return stored


def _decode(data: Any, channels: int | None) -> tuple[np.ndarray, int | None]:
    """Decodes an image to `uint8[H, W, C]`, with its largest sample if it has 16 bits.

    C is 1 if the feature has one channel, otherwise 3.
    """
    if not isinstance(data, bytes):
        raise DataError(f"cannot be read as an image (it is stored as {type(data).__name__})")
    decoded = decode_image(data)
    pixels = decoded.pixels
    if channels == 1:
        if (pixels != pixels[..., :1]).any():
            raise DataError("is coloured, but its feature has one channel")
        pixels = pixels[..., :1]
    return pixels, decoded.largest


def _as_bytes(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
