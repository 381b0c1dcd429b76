"""Lists the files of Tiny-ImageNet as they are unpacked: 200 classes of 64 x 64 pixels."""

import pathlib
from collections.abc import Iterator

from purenoise_jax.data.dataset import Dataset
from purenoise_jax.data.sources.file_splits import FileSplits, read_all
from purenoise_jax.data.sources.image_files import images_of_class, is_class_folder
from purenoise_jax.data.view import View
from purenoise_jax.runtime.errors import ConfigError, DataError, shown
from purenoise_jax.runtime.files import read_bytes
from purenoise_jax.runtime.paths import expand

ANNOTATIONS = "val/val_annotations.txt"


def load_tiny_imagenet(*, name: str, path: str, image_size: int = 0) -> Dataset:
    """Loads Tiny-ImageNet.

    The images of `val` are tested on, because those of `test` have no labels (Ye et al. 2021,
    supplement, C.1, do so too). Classes are the sorted folder names in `train`.

    Args:
        name: unused.
        path: the folder `tiny-imagenet-200`.
        image_size: height and width to resize to; 0 keeps the stored size.

    Returns:
        The checked data set, images `uint8[N, H, W, 3]`.

    Raises:
        ConfigError: `path` is empty.
        DataError: a file is missing, damaged or not annotated; one message lists all.
    """
    return read_all(tiny_imagenet_files(path), View(image_size))


def tiny_imagenet_files(path: str) -> FileSplits:
    """Lists the files that `load_tiny_imagenet` reads, by its rules.

    Args:
        path: see `load_tiny_imagenet`.

    Raises:
        ConfigError: see `load_tiny_imagenet`.
        DataError: a folder or the annotations are missing.
    """
    if not path:
        raise ConfigError("data.path is empty: give the folder tiny-imagenet-200")
    root = expand(path, "data.path")
    train, images = root / "train", root / "val" / "images"
    for folder in (train, images):
        if not folder.is_dir():
            raise DataError(f"{folder}: there is no such folder; wanted is tiny-imagenet-200")
    classes = tuple(sorted(entry.name for entry in train.iterdir() if is_class_folder(entry)))
    files: dict[str, list[tuple[pathlib.Path, int]]] = {"train": [], "val": []}
    faults: dict[str, list[str]] = {"train": [], "val": []}
    for label, wnid in enumerate(classes):
        if not (train / wnid / "images").is_dir():
            faults["train"].append(f"train/{wnid}/images: there is no such folder")
            continue
        found, more = images_of_class(train / wnid / "images", root)
        files["train"] += [(file, label) for file in found]
        faults["train"] += more
    there, more = images_of_class(images, root)
    faults["val"] += more
    labels = {wnid: label for label, wnid in enumerate(classes)}
    seen: set[str] = set()
    for number, file, wnid in _annotated(root / ANNOTATIONS):
        where = f"{ANNOTATIONS}, line {number}"
        if wnid not in labels:
            faults["val"].append(f"{where}: train has no class {shown(wnid)}")
        elif file in seen or not _is_plain(file):
            why = "is listed before" if file in seen else "is no name of a file"
            faults["val"].append(f"{where}: {shown(file)} {why}")
        else:
            files["val"].append((images / file, labels[wnid]))
        seen.add(file)
    unknown = [file.name for file in there if file.name not in seen]
    faults["val"] += [f"val/images/{name}: is not in {ANNOTATIONS}" for name in unknown]
    return FileSplits(root, "train", "val", files, classes, faults)


def _annotated(file: pathlib.Path) -> Iterator[tuple[int, str, str]]:
    """Number, name and class of every line; the four numbers behind them, a box, are not used."""
    try:
        text = read_bytes(file).decode("utf-8", "surrogateescape")
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from error
    for number, line in enumerate(text.splitlines(), 1):
        name, _, rest = line.partition("\t")
        if line.strip():
            yield number, name, rest.partition("\t")[0].strip()


def _is_plain(name: str) -> bool:
    return bool(name) and name not in (".", "..") and "/" not in name and "\0" not in name
