"""Long-tailed subsets of balanced data sets: class counts and the choice of images.

Source: Cui et al. 2019 (exponential profile), Cao et al. 2019 (which images; step profile), Kim et
al. 2020 (the first-n rule).
"""

import hashlib
import math
from collections.abc import Sequence
from typing import IO

import numpy as np

from purenoise_jax.data.labels import as_labels
from purenoise_jax.data.npy import DAMAGE, read_array
from purenoise_jax.runtime.errors import ConfigError, DataError, unknown
from purenoise_jax.runtime.exact import as_meant
from purenoise_jax.runtime.files import open_plain

PROFILES = ("exp", "step", "natural")
RULES = ("cao", "first")
MAX_SEED = 2**32 - 1  # of numpy's legacy generator, and of JAX's keys without 64-bit integers


def count_classes(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Images per class, int64[K], from labels int[N] in [0, K)."""
    return np.bincount(labels, minlength=num_classes).astype(np.int64)


def long_tail_counts(
    largest: int, num_classes: int, *, imbalance_ratio: float, profile: str = "exp"
) -> np.ndarray:
    """The number of images of every class, largest class first.

    "exp" keeps int(largest * (1 / ratio) ** (i / (K - 1))) images of class i, rounded down in
    float64 exactly as the published subsets were (Cui et al. 2019, Cao et al. 2019). "step" keeps
    `largest` images of the first half of the classes and int(largest / ratio) of the others.

    DEVIATION: if the exact number is an integer and float64 comes out just below it, the count is
    that integer: 98 images at ratio 49 leave 2 of the smallest class, not int(1.9999999999999998).
    No published count is affected.

    Args:
        largest: images of the largest class.
        num_classes: K.
        imbalance_ratio: largest over smallest class, at least 1.
        profile: "exp" or "step".

    Returns:
        int64[K].

    Raises:
        ConfigError: an argument is out of range, or a class would have no image.
    """
    if not (np.isfinite(imbalance_ratio) and imbalance_ratio >= 1):
        raise ConfigError(
            f"data.imbalance_ratio={imbalance_ratio} must be a finite number of at least 1 "
            "(largest class over smallest)"
        )
    if profile == "exp":
        counts = [
            _exponential(largest, imbalance_ratio, i, max(num_classes - 1, 1))
            for i in range(num_classes)
        ]
    elif profile == "step":
        head = num_classes // 2
        smallest = math.floor(largest / as_meant(imbalance_ratio))
        counts = [largest] * head + [smallest] * (num_classes - head)
    else:
        raise unknown("data.profile", profile, PROFILES)
    empty = [i for i, n in enumerate(counts) if n == 0]
    if empty:
        raise ConfigError(
            f"data.imbalance_ratio={imbalance_ratio} leaves classes {empty[:10]} without an image "
            f"(the largest would keep {largest}); legal: at most {largest}, or "
            "data.profile=natural, which keeps every image"
        )
    return np.array(counts, np.int64)


def _exponential(largest: int, ratio: float, i: int, last: int) -> int:
    """Number of images of class i of the classes 0 .. last under the exponential profile."""
    rounded = largest * (1 / ratio) ** (i / last)
    count = int(rounded)
    next_one = count + 1
    # An exact comparison: with both sides raised to the power `last` it needs no roots.
    is_next_one = next_one - rounded < 1e-6 * next_one and (
        next_one**last * as_meant(ratio) ** i == largest**last
    )
    return next_one if is_next_one else count


def long_tail_indices(
    labels: np.ndarray,
    *,
    imbalance_ratio: float,
    profile: str = "exp",
    rule: str = "cao",
    seed: int = 0,
    class_counts: Sequence[int] = (),
) -> np.ndarray:
    """Chooses the training images of a long-tailed subset.

    The largest class of the subset has as many images as the smallest class of `labels`, so the
    profile is exact even if classes differ in size. Rule "cao" goes through the classes in order,
    shuffles each class's indices with one numpy `RandomState(seed)` and keeps the first n. Rule
    "first" keeps the first n in file order. Profile "natural" keeps every image. Given class counts
    replace the profile; of two subsets by the same rule and seed, the one with fewer images of a
    class has none of that class that the other lacks.

        >>> labels = np.repeat(np.arange(10), 5000)
        >>> np.bincount(labels[long_tail_indices(labels, imbalance_ratio=100)])
        array([5000, 2997, 1796, 1077,  645,  387,  232,  139,   83,   50])

    Args:
        labels: int[N] or int[N, 1] in [0, K), in the data set's original file order.
        imbalance_ratio: largest over smallest class, at least 1; unused by "natural".
        profile: "exp", "step" or "natural".
        rule: "cao" or "first".
        seed: of the shuffles of "cao"; the published subsets have 0.
        class_counts: K numbers n, instead of ratio and profile; () = by the profile.

    Returns:
        Sorted int64[M], indices into `labels`.

    Raises:
        ConfigError: an argument is out of range, or a class has fewer images than are wanted.
        DataError: there are no labels, or a class has no image.
    """
    labels = as_labels("labels", np.asarray(labels))
    if rule not in RULES:
        raise unknown("data.rule", rule, RULES)
    if not 0 <= seed <= MAX_SEED:
        raise ConfigError(f"data.seed={seed} must lie in 0 .. {MAX_SEED}")
    if labels.size == 0:
        raise DataError("labels: there are none")
    available = count_classes(labels, int(labels.max()) + 1)
    if not available.all():
        empty = np.flatnonzero(available == 0)[:10].tolist()
        raise DataError(f"classes {empty} have no training image (labels count from 0)")
    if class_counts:
        counts = _given_counts(class_counts, available)
    elif profile == "natural":
        return np.arange(len(labels), dtype=np.int64)
    else:
        counts = long_tail_counts(
            int(available.min()), len(available), imbalance_ratio=imbalance_ratio, profile=profile
        )
    # numpy's legacy generator, because no other gives the published lists.
    shuffler = np.random.RandomState(seed)
    chosen = []
    for k, n in enumerate(counts):
        class_indices = np.flatnonzero(labels == k)
        if rule == "cao":
            shuffler.shuffle(class_indices)
        chosen.append(class_indices[:n])
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def _given_counts(class_counts: Sequence[int], available: np.ndarray) -> np.ndarray:
    """Checks given class counts against the images that there are, int64[K]."""
    given = tuple(class_counts)
    if len(given) != len(available):
        raise ConfigError(
            f"data.class_counts={given} has {len(given)} numbers, but the data have "
            f"{len(available)} classes; legal: one number for each"
        )
    counts = np.array(given, np.int64)
    for k in np.flatnonzero((counts < 1) | (counts > available))[:1].tolist():
        raise ConfigError(
            f"data.class_counts={given}: class {k} cannot have {counts[k]:,} training images; "
            f"legal: 1 .. {available[k]}"
        )
    return counts


def thin(indices: np.ndarray, labels: np.ndarray, limit: int) -> np.ndarray:
    """Makes a subset smaller and keeps its profile, for quick trial runs.

    Args:
        indices: sorted int[M], into `labels`.
        labels: int[N].
        limit: most images that the largest class keeps, at least 1. The other classes keep a
            proportional number, rounded down, but at least one. Each class keeps its first images.

    Returns:
        Sorted int64[L].
    """
    chosen_labels = np.asarray(labels)[indices]
    largest = int(np.bincount(chosen_labels).max())
    if largest <= limit:
        return np.asarray(indices, np.int64)
    kept = []
    for k in np.unique(chosen_labels):
        class_indices = np.asarray(indices)[chosen_labels == k]
        kept.append(class_indices[: max(len(class_indices) * limit // largest, 1)])
    return np.sort(np.concatenate(kept)).astype(np.int64)


def read_indices(path: str, num_images: int, option: str = "data.indices=") -> np.ndarray:
    """Reads a subset from a file.

    Args:
        path: a text file with one index per line, or a `.npy` file of integers.
        num_images: N; legal indices are 0 .. N - 1, each at most once.
        option: what the user has typed before the path, for messages.

    Returns:
        Sorted int64[M].

    Raises:
        DataError: the file cannot be read, or an index is not legal.
    """
    try:
        with open_plain(path) as file:
            raw = read_array(file, "it") if path.endswith(".npy") else _read_lines(file)
    except DAMAGE as error:
        raise DataError(f"{option}{path}: cannot be read as a list of integers: {error}") from None
    if raw.ndim != 1 or raw.size == 0 or not np.issubdtype(raw.dtype, np.integer):
        mask = ", a mask: save np.flatnonzero of it" if raw.dtype == bool else ""
        raise DataError(
            f"{option}{path}: wanted integers [M], got {raw.dtype}{list(raw.shape)}{mask}"
        )
    outside = np.sort(raw[(raw < 0) | (raw >= num_images)])
    if outside.size:
        raise DataError(f"{option}{path}: index {outside[0]} is outside 0 .. {num_images - 1}")
    indices = np.sort(raw.astype(np.int64))
    twice = indices[1:][indices[1:] == indices[:-1]]
    if twice.size:
        raise DataError(f"{option}{path}: index {twice[0]} occurs twice")
    return indices


def _read_lines(file: IO[bytes]) -> np.ndarray:
    lines = file.read().decode("utf-8").splitlines()
    return np.array([int(line) for line in lines if line.strip()], np.int64)


def fingerprint(indices: np.ndarray) -> str:
    """Identifies a subset: sha256, in hex, of its sorted decimal indices, one per line.

    Args:
        indices: int[M], any order.
    """
    text = "".join(f"{i}\n" for i in np.sort(indices))
    return hashlib.sha256(text.encode()).hexdigest()
