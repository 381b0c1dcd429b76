"""Finds and describes data sets that TensorFlow Datasets has prepared, without TensorFlow.

Only the formats with random access (array_record, parquet) can be read this way. Data sets are
neither downloaded nor prepared here.
"""

import dataclasses
import json
import os
import pathlib
import re
from typing import Any

import numpy as np

from purenoise_jax.data.sources.splits import refuse_odd_splits
from purenoise_jax.runtime.errors import ConfigError, DataError, shown
from purenoise_jax.runtime.files import read_bytes
from purenoise_jax.runtime.paths import expand

_FORMATS = ("array_record", "parquet")
INFO_FILE = "dataset_info.json"
_FEATURES_FILE = "features.json"
_FEATURE_MODULES = "tensorflow_datasets.core.features."
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_NAME = re.compile(r"\w[\w.\-]*(/\w[\w.+\-]*)?(:\d+\.\d+\.\d+)?", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A prepared data set whose description has been read, but no example.

    Attributes:
        name: of the data set.
        folder: that holds `dataset_info.json`.
        builder: of TFDS.
        image_key: feature of the images.
        label_key: feature of the labels.
        classes: the class names in label order.
        train: name of the training split.
        test: name of the test split.
        splits: these two, and the validation split if there is one.
    """

    name: str
    folder: pathlib.Path
    builder: Any
    image_key: str
    label_key: str
    classes: tuple[str, ...]
    train: str
    test: str
    splits: tuple[str, ...]

    @property
    def is_encoded(self) -> bool:
        """True if images are stored in an image format, False if as arrays of pixels."""
        import tensorflow_datasets as tfds

        return isinstance(self.builder.info.features[self.image_key], tfds.features.Image)

    @property
    def channels(self) -> int | None:
        """Channels of the images; None = not known."""
        found: int | None = self.builder.info.features[self.image_key].shape[-1]
        return found

    def examples(self, split: str, **more: Any) -> Any:
        """The examples of a split by number, with encoded images as bytes.

        Args:
            split: one of `splits`.
            **more: of TFDS's `as_data_source`.

        Raises:
            DataError: there are not as many as the description says.
        """
        source = self.builder.as_data_source(split, decoders=self.decoders(), **more)
        declared = self.builder.info.splits[split].num_examples
        if (stored := _count_stored(source, self.builder)) != declared:
            raise DataError(
                f"{self.folder}: {INFO_FILE} declares {declared} examples in split {split}, but "
                f"{stored} are stored"
            )
        return source

    def decoders(self) -> Any:
        """Keeps TFDS from decoding images, because its decoders depend on installed libraries."""
        import tensorflow_datasets as tfds

        return {self.image_key: tfds.decode.SkipDecoding()} if self.is_encoded else None


def open_prepared(name: str, path: str, train_split: str = "", test_split: str = "") -> Prepared:
    """Reads the description of a prepared data set, by the rules of `tfds.load_tfds`.

    Args:
        name: see `load_tfds`.
        path: see `load_tfds`.
        train_split: see `load_tfds`.
        test_split: see `load_tfds`.

    Raises:
        ConfigError: see `load_tfds`.
        DataError: see `load_tfds`; no example is looked at.
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
    return Prepared(
        name or builder.info.name,
        folder,
        builder,
        image_key,
        label_key,
        class_names,
        train,
        test,
        tuple(wanted),
    )


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
    if (root / INFO_FILE).is_file():
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
        info = json.loads((pathlib.Path(path).expanduser() / INFO_FILE).read_bytes())
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
        and (entry / INFO_FILE).is_file()
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
    info = _read_json(folder / INFO_FILE)
    if not isinstance(info, dict):
        raise DataError(f"{folder / INFO_FILE}: is not a description of a data set")
    others = info.get("alternativeFileFormats") or []
    if not isinstance(others, list):
        raise DataError(
            f"{folder / INFO_FILE}: alternativeFileFormats is {shown(others)}, must be a list of "
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
        raise DataError(f"{folder}: TFDS cannot open it ({first_line(error)})") from error


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


def first_line(error: Exception) -> str:
    """Returns the kind and the first line of an error of a library."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
