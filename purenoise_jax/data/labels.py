"""The check of class labels that every source and every function with labels shares."""

from typing import Any

import numpy as np

from purenoise_jax.runtime.errors import DataError

_OFFENDERS_SHOWN = 5
_LEGAL = "legal: integers from 0, [N] or [N, 1]"
_KINDS = {
    "b": "no class numbers; convert them with .astype(np.int64)",
    "f": "no class numbers, even if all are integers; convert them with .astype(np.int64)",
    "U": "text; number the classes from 0",
    "S": "text; number the classes from 0",
    "O": "Python objects; number the classes from 0",
}


def as_labels(
    where: str, labels: Any, *, images: int | None = None, num_classes: int | None = None
) -> np.ndarray:
    """Checks labels.

    Args:
        where: name of the array, with which messages begin.
        labels: integers `[N]` or `[N, 1]` of any integer dtype, in 0..K-1.
        images: N; None if it is not known.
        num_classes: K; None if it is not known.

    Returns:
        The same values as `[N]`, in the same dtype.

    Raises:
        DataError: the labels have another dtype (such as bool, float or text), another shape (such
            as one-hot), another number, or values outside 0..K-1.
    """
    if not isinstance(labels, np.ndarray):
        raise DataError(f"{where}: labels must be an integer array, got {type(labels).__name__}")
    shape = list(labels.shape)
    if _is_one_hot(labels):
        raise DataError(
            f"{where}: labels of dtype {labels.dtype} and shape {shape} look one-hot; use "
            f"labels.argmax(axis=1); {_LEGAL}"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        kind = _KINDS.get(labels.dtype.kind, "no class numbers")
        raise DataError(
            f"{where}: labels must be an integer array, got {labels.dtype}: {kind}; {_LEGAL}"
        )
    if labels.ndim != 1 and (labels.ndim != 2 or labels.shape[1] != 1):
        raise DataError(f"{where}: labels have shape {shape}, but an image has one label; {_LEGAL}")
    flat = labels.reshape(-1)
    if images is not None and len(flat) != images:
        raise DataError(f"{where}: {images} images, but {len(flat)} labels, of shape {shape}")
    outside = flat < 0
    if num_classes is not None:
        outside |= flat >= num_classes
    bad = np.flatnonzero(outside)
    if bad.size:
        first = ", ".join(f"[{i}] = {flat[i]}" for i in bad[:_OFFENDERS_SHOWN])
        legal = "below 0" if num_classes is None else f"outside 0..{num_classes - 1}"
        raise DataError(f"{where}: {bad.size} labels are {legal}, the first are {first}")
    return flat


def _is_one_hot(labels: np.ndarray) -> bool:
    """Returns whether each row has a single 1 among zeros, in two columns or more."""
    if (
        labels.ndim != 2
        or labels.shape[1] < 2
        or not labels.size
        or labels.dtype.kind not in "biuf"
    ):
        return False
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all())
