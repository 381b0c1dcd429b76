"""Readers of the official CIFAR-10 and CIFAR-100 files, in their binary and their python form.

A binary record is the label byte (CIFAR-100: the coarse, then the fine label) followed by
3 x 32 x 32 pixel bytes, channel first. The python form is one pickled dictionary per file.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping

import numpy as np

from purenoise_jax.data.dataset import Dataset, check_dataset
from purenoise_jax.data.sources.cifar_archive import (
    archive_folder,
    read_members,
    size_range,
)
from purenoise_jax.data.sources.cifar_checksums import CHECKSUMS
from purenoise_jax.data.sources.cifar_names import CIFAR10_CLASSES, CIFAR100_CLASSES
from purenoise_jax.data.sources.safe_unpickle import unpickle_arrays
from purenoise_jax.runtime.errors import ConfigError, DataError, unknown
from purenoise_jax.runtime.files import read_bytes
from purenoise_jax.runtime.paths import expand

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE


@dataclasses.dataclass(frozen=True)
class Form:
    """One of the two official forms of a CIFAR data set.

    Attributes:
        folder: name of the official folder.
        archive: name of the official archive that holds this folder.
        train_files: names of the training files in order.
        test_file: name of the test file.
        is_binary: True if the files hold binary records, False if pickles.
        checksum: the algorithm of `checksums`, a name of `hashlib`.
        checksums: of the official files in hex, by file name; a file without one is not compared.
    """

    folder: str
    archive: str
    train_files: tuple[str, ...]
    test_file: str
    is_binary: bool
    checksum: str
    checksums: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Layout of the official files of one CIFAR data set.

    Attributes:
        name: `"cifar10"` or `"cifar100"`.
        class_names: the class names in label order.
        forms: the official forms; the first one found is read.
        labels_per_record: number of label bytes of a binary record; the last one is used.
        label_key: key of the labels in the python form.
        train_records: number of images in each training file.
        test_records: number of images in the test file.
    """

    name: str
    class_names: tuple[str, ...]
    forms: tuple[Form, ...]
    labels_per_record: int
    label_key: bytes
    train_records: int
    test_records: int


_CIFAR10_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))

LAYOUTS: dict[str, Layout] = {
    "cifar10": Layout(
        name="cifar10",
        class_names=CIFAR10_CLASSES,
        forms=(
            Form(
                folder="cifar-10-batches-bin",
                archive="cifar-10-binary.tar.gz",
                train_files=tuple(f"{batch}.bin" for batch in _CIFAR10_BATCHES),
                test_file="test_batch.bin",
                is_binary=True,
                checksum="sha256",
                checksums=CHECKSUMS["cifar-10-batches-bin"],
            ),
            Form(
                folder="cifar-10-batches-py",
                archive="cifar-10-python.tar.gz",
                train_files=_CIFAR10_BATCHES,
                test_file="test_batch",
                is_binary=False,
                checksum="md5",
                checksums=CHECKSUMS["cifar-10-batches-py"],
            ),
        ),
        labels_per_record=1,
        label_key=b"labels",
        train_records=10_000,
        test_records=10_000,
    ),
    "cifar100": Layout(
        name="cifar100",
        class_names=CIFAR100_CLASSES,
        forms=(
            Form(
                folder="cifar-100-binary",
                archive="cifar-100-binary.tar.gz",
                train_files=("train.bin",),
                test_file="test.bin",
                is_binary=True,
                checksum="sha256",
                checksums=CHECKSUMS["cifar-100-binary"],
            ),
            Form(
                folder="cifar-100-python",
                archive="cifar-100-python.tar.gz",
                train_files=("train",),
                test_file="test",
                is_binary=False,
                checksum="md5",
                checksums=CHECKSUMS["cifar-100-python"],
            ),
        ),
        labels_per_record=2,
        label_key=b"fine_labels",
        train_records=50_000,
        test_records=10_000,
    ),
}


def load_cifar(*, name: str, path: str, image_size: int = 0) -> Dataset:
    """Loads CIFAR-10 or CIFAR-100 (fine labels) from the official files.

    Args:
        name: `"cifar10"` or `"cifar100"`.
        path: the official folder, the official archive, or a folder that holds one of them.
        image_size: unused; the images are 32 x 32 as stored.

    Returns:
        50,000 training and 10,000 test images `uint8[N, 32, 32, 3]` in their official order.

    Raises:
        ConfigError: `name` is not a CIFAR data set, or `path` is empty.
        DataError: the files are missing, damaged or of the wrong size.
    """
    del image_size
    layout = find_layout(name)
    if not path:
        raise ConfigError(
            f"data.path is empty: give the folder or archive with the official files of {name}"
        )
    return read_cifar(expand(path, "data.path"), layout)


def find_layout(name: str) -> Layout:
    """Returns the layout of a CIFAR data set.

    Args:
        name: `"cifar10"` or `"cifar100"`.

    Raises:
        ConfigError: there is no such CIFAR data set.
    """
    if name in LAYOUTS:
        return LAYOUTS[name]
    raise unknown("data.name", name, LAYOUTS)


def read_cifar(path: pathlib.Path, layout: Layout) -> Dataset:
    """Reads one CIFAR data set from a folder or an archive.

    Args:
        path: the official folder, the official archive, or a folder that holds one of them.
        layout: of the official files.

    Returns:
        The checked data set, images `uint8[N, 32, 32, 3]`.

    Raises:
        DataError: the files are missing, damaged or of the wrong size.
    """
    form, contents = _read_files(path, layout)
    parts = {}
    for file in (*form.train_files, form.test_file):
        records = layout.test_records if file == form.test_file else layout.train_records
        where = f"{path}: {form.folder}/{file}"
        decode = _decode_binary if form.is_binary else _decode_python
        _check_official(contents[file], form, file, where)
        # Each file is freed once it is decoded, so peak memory stays near the size of the images.
        parts[file] = decode(contents.pop(file), layout, records, where)
    test_images, test_labels = parts.pop(form.test_file)
    return check_dataset(
        Dataset(
            name=layout.name,
            train_images=np.concatenate([parts[file][0] for file in form.train_files]),
            train_labels=np.concatenate([parts[file][1] for file in form.train_files]),
            test_images=test_images,
            test_labels=test_labels,
            class_names=layout.class_names,
        )
    )


def _read_files(path: pathlib.Path, layout: Layout) -> tuple[Form, dict[str, bytes]]:
    if path.is_file():
        folder = archive_folder(path)
        for form in layout.forms:
            if form.folder == folder:
                return form, read_members(path, folder, _file_sizes(layout, form))
        raise DataError(
            f"{path}: the archive starts with {folder!r}, expected "
            f"{' or '.join(form.folder for form in layout.forms)}"
        )
    for form in layout.forms:
        for folder_path in (path, path / form.folder):
            if all((folder_path / file).is_file() for file in (*form.train_files, form.test_file)):
                return form, _read_folder(folder_path, _file_sizes(layout, form))
    for form in layout.forms:
        archive = path / form.archive
        if archive.is_file():
            return form, read_members(archive, form.folder, _file_sizes(layout, form))
    raise DataError(f"{path}: {_nothing_found(path, layout)}")


def _nothing_found(path: pathlib.Path, layout: Layout) -> str:
    if not path.exists():
        return (
            "does not exist (data.path); it should be the official folder or archive of "
            f"{layout.name}, or hold one of them"
        )
    for form in layout.forms:
        files = (*form.train_files, form.test_file)
        for folder in (path, path / form.folder):
            missing = [file for file in files if not (folder / file).is_file()]
            if len(missing) < len(files):
                return f"the {layout.name} files are incomplete, missing {', '.join(missing)}"
    wanted = " or ".join(f"{form.folder}/ or {form.archive}" for form in layout.forms)
    return f"found no {layout.name} files, expected {wanted}"


def _file_sizes(layout: Layout, form: Form) -> dict[str, tuple[int, int]]:
    sizes = {}
    for file in (*form.train_files, form.test_file):
        records = layout.test_records if file == form.test_file else layout.train_records
        if form.is_binary:
            exact = records * (layout.labels_per_record + _PIXELS)
            sizes[file] = (exact, exact)
        else:
            # Besides the pixels, a pickle holds one file name and a few label bytes per image.
            sizes[file] = (records * _PIXELS, records * (_PIXELS + 128) + 4096)
    return sizes


def _read_folder(folder: pathlib.Path, sizes: dict[str, tuple[int, int]]) -> dict[str, bytes]:
    contents = {}
    for file, (smallest, largest) in sizes.items():
        path = folder / file
        try:
            size = path.stat().st_size
            if not smallest <= size <= largest:
                raise DataError(
                    f"{path}: has {size} bytes, expected {size_range(smallest, largest)}"
                )
            contents[file] = read_bytes(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    return contents


def _check_official(data: bytes, form: Form, file: str, where: str) -> None:
    """Refuses a file that is not the official one; the files themselves contain no checksum."""
    expected = form.checksums.get(file)
    if expected is None:
        return
    actual = hashlib.new(form.checksum, data, usedforsecurity=False).hexdigest()
    if actual != expected:
        raise DataError(
            f"{where}: is damaged or not the official file: its {form.checksum} is {actual}, "
            f"expected {expected}; for your own images use data.source=npz"
        )


def _decode_binary(
    data: bytes, layout: Layout, records: int, where: str
) -> tuple[np.ndarray, np.ndarray]:
    width = layout.labels_per_record + _PIXELS
    if len(data) != records * width:
        raise DataError(f"{where}: has {len(data)} bytes, expected {records * width}")
    table = np.frombuffer(data, np.uint8).reshape(records, width)
    labels = table[:, layout.labels_per_record - 1].astype(np.int32)
    return _channels_last(table[:, layout.labels_per_record :]), labels


def _decode_python(
    data: bytes, layout: Layout, records: int, where: str
) -> tuple[np.ndarray, np.ndarray]:
    content = unpickle_arrays(data, where)
    pixels = content.get(b"data")
    labels = content.get(layout.label_key)
    if not isinstance(pixels, np.ndarray) or pixels.shape != (records, _PIXELS):
        raise DataError(f"{where}: 'data' must be a uint8 array of shape ({records}, {_PIXELS})")
    if not isinstance(labels, list) or len(labels) != records:
        raise DataError(f"{where}: {layout.label_key.decode()!r} must list {records} labels")
    largest = len(layout.class_names) - 1
    for index, label in enumerate(labels):
        if type(label) is not int or not 0 <= label <= largest:
            seen = label if type(label) is int else type(label).__name__
            raise DataError(f"{where}: label {index} is {seen}, expected 0..{largest}")
    return _channels_last(pixels), np.array(labels, np.int32)


def _channels_last(planes: np.ndarray) -> np.ndarray:
    images = planes.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images)
