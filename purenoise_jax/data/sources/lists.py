"""Reads image files that one list per split names, with their labels, below one folder."""

import dataclasses
import hashlib
import pathlib
import re
from collections.abc import Mapping

import numpy as np

from purenoise_jax.data.dataset import Dataset
from purenoise_jax.data.sources.file_splits import FileSplits, read_all
from purenoise_jax.data.sources.list_file import Row, read_rows
from purenoise_jax.data.sources.published_lists import check_published
from purenoise_jax.data.sources.resize import SQUASH
from purenoise_jax.data.sources.where import where
from purenoise_jax.data.view import View
from purenoise_jax.runtime.errors import ConfigError, DataError, all_faults, shown
from purenoise_jax.runtime.files import read_bytes
from purenoise_jax.runtime.paths import expand

_INTEGER = re.compile(r"[0-9]{1,9}")


@dataclasses.dataclass(frozen=True)
class Lists:
    """The lists of a data set, named as the fields of `data`.

    Attributes:
        train_list: file with lines `path label`, or a table whose name ends with `.csv`.
        val_list: as `train_list`; "" = there are no validation images.
        test_list: as `val_list`.
        path_column: column of a table with the paths.
        label_column: column of a table with the labels; or several with commas between them, which
            are attributes: the class of an image is the only one that it has.
        path_suffix: is appended to every path, for tables that name images without it.
        path_parts: number of the last parts of every path that count; 0 = all. For lists with the
            folders of their authors.
        repeats: "keep" = a list may name an image twice, also one of the training list in the test
            list; "refuse" = it must not.
        group_column: column of all tables with the groups of images, such as patients, that are in
            one split only; "" = there are no groups.
    """

    train_list: str = ""
    val_list: str = ""
    test_list: str = ""
    path_column: str = "path"
    label_column: str = "label"
    path_suffix: str = ""
    path_parts: int = 0
    repeats: str = "refuse"
    group_column: str = ""


REPEATS = ("refuse", "keep")
NO_LISTS = Lists()


def load_list(
    *,
    name: str,
    path: str,
    image_size: int = 0,
    lists: Lists = NO_LISTS,
    resize: str = SQUASH,
) -> Dataset:
    """Loads the images that lists name, in the order of the lists.

    Labels are integers from 0, and every class up to the largest has a training image. If a label
    of a training table is no integer, labels are names: the classes are the sorted names of the
    training table. Images are converted to RGB, by the rules of `decode_image`; one message lists
    all faults.

    Args:
        name: a key of `PUBLISHED`, with which the training list is compared; others are unused.
        path: the folder below which the images lie.
        image_size: height and width to resize to; 0 keeps the stored size, which must then be the
            same for all images.
        lists: one for each split.
        resize: see `resize_square`.

    Returns:
        The checked data set, images `uint8[N, H, W, 3]`.

    Raises:
        ConfigError: `path` or the training list is not given.
        DataError: a list cannot be read, is empty, or names an image twice or a training image to
            test with (unless repeats are kept), a group that is in another list, a path that leaves
            the folder or a label that is not legal; an image is missing or damaged; the sizes
            differ while `image_size` is 0; or the training list differs from the published one.
    """
    return read_all(list_files(name, path, lists), View(image_size, how=resize))


def list_files(name: str, path: str, lists: Lists) -> FileSplits:
    """Reads the lists, by the rules of `load_list`; no image is looked for.

    Args:
        name: see `load_list`.
        path: see `load_list`.
        lists: see `load_list`.

    Raises:
        ConfigError: see `load_list`.
        DataError: a list has a fault; the message names the first few.
    """
    if not path:
        raise ConfigError("data.path is empty: give the folder below which the listed images lie")
    root = expand(path, "data.path")
    chosen = {split: getattr(lists, f"{split}_list") for split in ("train", "test", "val")}
    if not lists.train_list:
        raise ConfigError(
            "data.train_list is empty: give a file with lines 'path label', or a .csv table"
            f"{where(name)}"
        )
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder (data.path)")
    columns = tuple(name.strip() for name in lists.label_column.split(","))
    # Without the last, the groups, of which the files of the cache know nothing.
    own = dataclasses.astuple(lists)[3:-1]
    key = hashlib.sha256(repr(own).encode("utf-8", "backslashreplace"))
    rows: dict[str, list[Row]] = {}
    faults: list[str] = []
    for split, file in chosen.items():
        if not file:
            continue
        field = f"data.{split}_list"
        try:
            content = read_bytes(expand(file, field))
        except OSError as error:
            faults.append(f"{field}={file}: cannot be read ({error.strerror or error})")
            continue
        rows[split], more = read_rows(
            content, _is_table(file), lists.path_column, columns, lists.group_column
        )
        faults += [f"{field}={file}: {fault}" for fault in more]
        if not rows[split] and not more:
            faults.append(f"{field}={file}: lists no image")
        key.update(f"{split} {hashlib.sha256(content).hexdigest()}".encode())
    if faults:
        raise all_faults(root, faults)

    classes = _classes(rows["train"], columns if _is_table(chosen["train"]) else ())
    by_label = {label: place for place, label in enumerate(classes)}
    files: dict[str, list[tuple[pathlib.Path, int]]] = {}
    training: dict[str, str] = {}
    groups: dict[pathlib.Path, str] = {}
    # The split that a group was found in first.
    splits_of: dict[str, str] = {}
    for split, found in rows.items():
        seen: dict[str, str] = {}
        files[split] = []
        for row in found:
            place = pathlib.PurePosixPath(row.path + lists.path_suffix)
            if lists.path_parts:
                place = pathlib.PurePosixPath(*place.parts[-lists.path_parts :])
            label = _label(row, by_label)
            origin = f"data.{split}_list, line {row.line}"
            other = splits_of.setdefault(row.group, split) if row.group else split
            before = seen.get(str(place)) or (split == "test" and training.get(str(place)))
            if not row.path or "\0" in row.path:
                faults.append(f"{origin}: {shown(row.path)} is no path")
            elif place.is_absolute() or ".." in place.parts:
                faults.append(f"{origin}: {shown(row.path)} leads out of data.path")
            elif before and lists.repeats == "refuse":
                faults.append(f"{origin}: {place} is listed before, in {before}")
            elif label is None:
                faults.append(f"{origin}: label {shown(row.label)} is not legal; {_legal(classes)}")
            elif other != split:
                named = f"{lists.group_column} {shown(row.group)}"
                faults.append(f"{origin}: {named} is in data.{other}_list, too")
            elif row.group and groups.setdefault(root / place, row.group) != row.group:
                faults.append(f"{origin}: {place} is listed before, in another group")
            else:
                files[split].append((root / place, label))
            seen.setdefault(str(place), origin)
        training = seen if split == "train" else training
    if faults:
        raise all_faults(root, faults)
    labels = np.array([label for _, label in files["train"]], np.int32)
    check_published(name, labels, len(classes))
    return FileSplits(
        root,
        "train",
        "test",
        files,
        classes,
        key=f" {key.hexdigest()}",
        groups=_numbered(groups) if lists.group_column else None,
    )


def _numbered(groups: Mapping[pathlib.Path, str]) -> dict[pathlib.Path, int]:
    """The groups of files by number, in the order of their names."""
    numbers = {name: number for number, name in enumerate(sorted({*groups.values()}))}
    return {path: numbers[name] for path, name in groups.items()}


def _is_table(file: str) -> bool:
    return file.lower().endswith(".csv")


def _classes(rows: list[Row], columns: tuple[str, ...]) -> tuple[str, ...]:
    """The class names of a training list, which is a table if it has columns.

    Raises:
        DataError: labels are integers, and there is one below the largest that no image has.
    """
    if len(columns) > 1:
        return columns
    found = {row.label for row in rows}
    if columns and not all(_INTEGER.fullmatch(label) for label in found):
        return tuple(sorted(found - {""}))
    present = {int(label) for label in found if _INTEGER.fullmatch(label)}
    # The first number that is not there; it lies at most one beyond the number of labels.
    first = next(k for k in range(len(present) + 1) if k not in present)
    if present and first <= max(present):
        raise DataError(
            f"data.train_list has no image of class {first}, although its labels go up to "
            f"{max(present)}; every class needs one, and labels count from 0"
        )
    return tuple(map(str, range(len(present))))


def _label(row: Row, by_label: Mapping[str, int]) -> int | None:
    """The class of a row, None if there is no such class."""
    if row.label in by_label:
        return by_label[row.label]
    # Leading zeros, of integers only.
    plain = row.label.lstrip("0") or "0"
    return by_label.get(plain) if _INTEGER.fullmatch(row.label) else None


def _legal(classes: tuple[str, ...]) -> str:
    if not classes:
        return "legal: integers from 0"
    if classes == tuple(map(str, range(len(classes)))):
        return f"legal: integers in 0 .. {len(classes) - 1}"
    more = ", ..." if len(classes) > 5 else ""
    return f"legal: the classes of data.train_list, {', '.join(classes[:5])}{more}"
