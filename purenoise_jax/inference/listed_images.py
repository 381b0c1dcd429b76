"""Lists the images to classify, and their true classes where these are known.

Images come from folders, files, .npz files, and CSV tables of paths.
"""

import unicodedata
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from purenoise_jax.data.labels import as_labels
from purenoise_jax.data.npy import DAMAGE, read_array
from purenoise_jax.data.sources.image_files import images_below
from purenoise_jax.data.sources.list_file import Row, read_rows
from purenoise_jax.data.sources.lists import NO_LISTS, Lists
from purenoise_jax.inference.image_inputs import ImageLike, is_batch
from purenoise_jax.runtime.errors import DataError, PureNoiseError, nearest, shown
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
    given: Sequence[str | Path],
    class_names: Sequence[str],
    lists: Lists = NO_LISTS,
    root: Path | None = None,
) -> tuple[list[Listed], list[str]]:
    """Lists images.

    A folder stands for all images in it and in the folders below it. The true class of an image
    file is the name of the folder that it lies in, if that is the name of a class. A CSV table has
    a column of paths and may have one with names of classes. They are called as in the lists that
    the run was trained with, otherwise `path` and `label`. A path is relative to the folder of the
    table; if there is no such file, to the working folder, and then to `root`.

    An .npz file has `images`, otherwise `test_images`, and may have `labels` or `test_labels`,
    which are numbers.

    Args:
        given: paths of folders, image files, .npz files and .csv files.
        class_names: K names in label order.
        lists: of the run, see `Trained.lists`.
        root: the folder of the images of these lists; None = there is none.

    Returns:
        The images, and one line for each file and each row of a table that cannot be one.

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
                more_listed, more = _of_table(path, classes, lists, root)
                listed += more_listed
                faults += more
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


def _of_table(
    path: Path, classes: dict[str, str], lists: Lists, root: Path | None
) -> tuple[list[Listed], list[str]]:
    """The images of a table, and one line for each row that names none."""
    content = read_bytes(path)
    columns = tuple(name.strip() for name in lists.label_column.split(","))
    rows, faults = read_rows(content, True, lists.path_column, columns, needs_labels=False)
    if not any(row.label for row in rows):
        # Tables of predictions, and others, that are not made as those of the run.
        plain, more = read_rows(content, True, PATH, (LABEL,), needs_labels=False)
        if any(row.label for row in plain) or (plain and not rows):
            rows, faults = plain, more
    if not rows and not faults:
        faults.append("lists no image")
    faults = [f"{path}{',' if fault.startswith('line ') else ':'} {fault}" for fault in faults]
    listed = []
    for row in rows:
        try:
            label = _label(row, classes)
            listed.append(_file(_place(row, path, lists, root), classes, label))
        except PureNoiseError as error:
            faults.append(f"{path}, line {row.line}: {error}")
    return listed, faults


def _label(row: Row, classes: dict[str, str]) -> str:
    name = unicodedata.normalize("NFC", row.label)
    # Leading zeros, of integers only.
    for known in (name, name.lstrip("0") or "0") if name.isdecimal() else (name,):
        if known in classes:
            return classes[known]
    if name:
        raise DataError(f"{shown(name)} is no class of the run{nearest(name, classes)}")
    return ""


def _place(row: Row, table: Path, lists: Lists, root: Path | None) -> Path:
    """The first place of an image of a table where there is a file, otherwise the first of all."""
    if not row.path or "\0" in row.path:
        raise DataError(f"{shown(row.path)} is no path")
    names = dict.fromkeys((row.path + lists.path_suffix, row.path))
    places = [folder / expand(name, PATH) for name in names for folder in (table.parent, Path())]
    if root is not None:
        places += [root.joinpath(*Path(name).parts[-lists.path_parts :]) for name in names]
    return next((place for place in places if place.is_file()), places[0])


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
    if images.dtype != np.uint8 or not is_batch(images):
        raise DataError(
            f"{path}: {name} is {images.dtype}{list(images.shape)}; legal: uint8[N, H, W, C], or "
            "uint8[N, H, W] of grey images"
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
