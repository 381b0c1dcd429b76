"""Reads two classes of a table of comma-separated values: numbers, and categories as one-hot."""

import csv
import hashlib
import math
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from purenoise_jax.runtime.errors import ConfigError, DataError, harmless, unknown

MISSING = ("", "?", "na", "nan", "null")
# A column of more different texts is a name or a note, and no category.
CATEGORIES = 1000


class TwoClasses(NamedTuple):
    """The rows of two classes.

    Attributes:
        features: f64[N, F]; a number that is missing is NaN.
        numeric: bool[F], True for numbers, False for the 0 and 1 of a category.
        labels: i64[N], 0 = the class with more rows, 1 = the other.
        names: of both classes.
        left_out: rows of other classes, and rows without a label.
        sha256: of the file, in hex.
    """

    features: np.ndarray
    numeric: np.ndarray
    labels: np.ndarray
    names: tuple[str, str]
    left_out: int
    sha256: str


def read_two_classes(
    path: Path,
    label: str,
    *,
    header: bool = True,
    classes: Sequence[str] = (),
    drop: Collection[str] = (),
) -> TwoClasses:
    """Reads a file.

    A column whose entries are all numbers, apart from those that are missing, is one feature. Any
    other column has a feature for each of its texts, in alphabetical order.

    Args:
        path: of the file, in UTF-8. Spaces around entries do not count.
        label: name of the column with the class.
        header: True if the first line has the names of the columns. Otherwise their names are
            their numbers, counted from 1.
        classes: the labels of two classes; () = the two with most rows.
        drop: names of columns that are left out.

    Raises:
        ConfigError: a column or class is unknown.
        DataError: the file is damaged, a column has too many texts, or there are no two classes.
        OSError: the file cannot be read.
    """
    names, rows = _read(path, header)
    for field, given in [("--label", label), *(("--drop", name) for name in drop)]:
        if given not in names:
            raise unknown(field, given, names)
    if label in drop:
        raise ConfigError(f"--drop {label}: this column has the labels")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    truth = columns.pop(label)
    pair = _two(path, truth, classes)
    kept = [row for row, name in enumerate(truth) if name in pair]
    blocks, numeric = [], []
    for name, column in columns.items():
        if name not in drop:
            block, is_numeric = _encode(path, name, [column[row] for row in kept])
            blocks.append(block)
            numeric += [is_numeric] * block.shape[1]
    if not blocks:
        raise DataError(f"{path}: there is no column beside the label")
    return TwoClasses(
        np.concatenate(blocks, axis=1),
        np.array(numeric, bool),
        np.array([pair.index(truth[row]) for row in kept], np.int64),
        pair,
        len(truth) - len(kept),
        hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def _read(path: Path, header: bool) -> tuple[list[str], list[list[str]]]:
    """The names of the columns, and the entries of every row that is not blank."""
    rows, names = [], None
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            for entries in reader:
                # The same few texts come in most rows of a large file.
                row = [sys.intern(entry.strip()) for entry in entries]
                if not any(row):
                    continue
                if names is None:
                    names = row if header else [str(c + 1) for c in range(len(row))]
                    if len(set(names)) < len(names):
                        raise DataError(f"{path}: two columns have one name; is there a header?")
                    if header:
                        continue
                if len(row) != len(names):
                    raise DataError(
                        f"{path}, line {reader.line_num}: {len(row)} entries, not {len(names)}"
                    )
                rows.append(row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no table of comma-separated values ({error})") from None
    if names is None or not rows:
        raise DataError(f"{path} has no rows")
    return names, rows


def _two(path: Path, truth: Sequence[str], classes: Sequence[str]) -> tuple[str, str]:
    """The two classes, that with more rows first."""
    found = Counter(name for name in truth if name.lower() not in MISSING)
    for name in classes:
        if name not in found:
            raise unknown("--classes", name, sorted(found)[:20])
    chosen = sorted(classes or found, key=lambda name: (-found[name], name))[:2]
    if len(set(chosen)) < 2:
        raise DataError(f"{path}: the column of labels has fewer than two classes")
    return chosen[0], chosen[1]


def _encode(path: Path, name: str, column: Sequence[str]) -> tuple[np.ndarray, bool]:
    """The features f64[N, F] of a column, and True if they are numbers."""
    texts = sorted(set(column))
    values = {text: _number(text) for text in texts}
    if None not in values.values():
        return np.array([values[text] for text in column], np.float64)[:, None], True
    if len(texts) > CATEGORIES:
        raise DataError(
            f"{path}: column {harmless(name)} has {len(texts):,} different texts, more than the "
            f"{CATEGORIES:,} of a category; leave it out with --drop"
        )
    places = {text: place for place, text in enumerate(texts)}
    block = np.zeros((len(column), len(texts)))
    block[np.arange(len(column)), [places[text] for text in column]] = 1
    return block, False


def _number(text: str) -> float | None:
    """The number that a text is, NaN for one that is missing, None for other texts."""
    if text.lower() in MISSING:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else math.nan
