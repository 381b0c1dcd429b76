"""Lists the images to classify, and their true classes where these are known.

Images come from folders, files, .npz files, and CSV tables of paths.
"""

import csv
import io
import unicodedata
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from purenoise_jax.data.labels import as_labels
from purenoise_jax.data.npy import DAMAGE, read_array
from purenoise_jax.data.sources.image_files import images_below
from purenoise_jax.inference.image_inputs import ImageLike
from purenoise_jax.runtime.errors import DataError
from purenoise_jax.runtime.files import open_plain, read_bytes
from purenoise_jax.runtime.paths import expand

# Names of the arrays of an .npz file, the first that is there counts.
IMAGES = ("images", "test_images")
PATH, LABEL = "path", "label"


class Listed(NamedTuple):
    """An image to classify.

    Attributes:
        path: its name in results.
        label: name of its true class; "" = not known.
        image: a path, or pixels.
    """

    path: str
    label: str
    image: ImageLike


def list_images(
    given: Sequence[str | Path], class_names: Sequence[str]
) -> tuple[list[Listed], list[str]]:
    """Lists images.

    A folder stands for all images in it and in the folders below it. The true class of an image
    file is the name of the folder that it lies in, if that is the name of a class. A CSV table has
    a column `path`, relative to its own folder, and may have a column `label` with names of
    classes. An .npz file has `images`, otherwise `test_images`, and may have `labels` or
    `test_labels`, which are numbers.

    Args:
        given: paths of folders, image files, .npz files and .csv files.
        class_names: K names in label order.

    Returns:
        The images, and one line for each file that cannot be one.

    Raises:
        ConfigError: a path is not legal.
    """
    classes = {unicodedata.normalize("NFC", name): name for name in class_names}
    listed: list[Listed] = []
    faults: list[str] = []
    for entry in given:
        path = expand(entry, "IMAGES")
        try:
            if path.is_dir():
                files, more = images_below(path)
                listed += [_file(file, classes) for file in files]
                faults += more
                if not files and not more:
                    faults.append(f"{path}: holds no images")
            elif path.suffix.lower() == ".npz":
                listed += _of_npz(path, class_names)
            elif path.suffix.lower() == ".csv":
                listed += _of_table(path, classes)
            elif path.exists() or path.is_symlink():
                listed.append(_file(path, classes))
            else:
                faults.append(f"{path}: there is no such file or folder")
        except DataError as error:
            faults.append(str(error))
        except OSError as error:
            faults.append(f"{path}: cannot be read ({error.strerror or error})")
    return listed, faults


def _file(path: Path, classes: dict[str, str], label: str = "") -> Listed:
    folder = unicodedata.normalize("NFC", path.absolute().parent.name)
    return Listed(str(path), label or classes.get(folder, ""), path)


def _of_table(path: Path, classes: dict[str, str]) -> list[Listed]:
    text = read_bytes(path).decode("utf-8-sig", "surrogateescape")
    table = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    try:
        found = ", ".join(map(repr, (table.fieldnames or [])[:20])) or "none"
        if PATH not in (table.fieldnames or []):
            raise DataError(f"{path}: wanted a column {PATH!r}; its columns: {found}")
        rows = [(table.line_num, row[PATH], row.get(LABEL)) for row in table]
    except csv.Error as error:
        raise DataError(f"{path}, line {table.line_num}: no CSV table ({error})") from None
    listed = []
    for line, place, label in rows:
        if not place:
            raise DataError(f"{path}, line {line}: has no path")
        name = unicodedata.normalize("NFC", (label or "").strip())
        if name and name not in classes:
            raise DataError(f"{path}, line {line}: {name!r} is no class of the run")
        listed.append(_file(path.parent / expand(place, PATH), classes, classes.get(name, "")))
    return listed


def _of_npz(path: Path, class_names: Sequence[str]) -> list[Listed]:
    try:
        with open_plain(path) as opened, zipfile.ZipFile(opened) as bundle:
            there = set(bundle.namelist())
            name = next((each for each in IMAGES if f"{each}.npy" in there), None)
            if name is None:
                raise DataError(f"{path}: holds no array {' or '.join(IMAGES)}")
            images = _array(bundle, name)
            wanted = name.replace("images", "labels")
            labels = _array(bundle, wanted) if f"{wanted}.npy" in there else None
    except DataError:
        raise
    except (zipfile.BadZipFile, *DAMAGE) as error:
        raise DataError(f"{path}: cannot be read as .npz ({error})") from error
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise DataError(
            f"{path}: {name} is {images.dtype}{list(images.shape)}; legal: uint8[N, H, W, C]"
        )
    names = [""] * len(images)
    if labels is not None:
        known = as_labels(str(path), labels, images=len(images), num_classes=len(class_names))
        names = [class_names[label] for label in known]
    return [
        Listed(f"{path}[{row}]", label, image)
        for row, (image, label) in enumerate(zip(images, names, strict=True))
    ]


def _array(bundle: zipfile.ZipFile, name: str) -> np.ndarray:
    with bundle.open(f"{name}.npy") as member:
        return read_array(member, name)
