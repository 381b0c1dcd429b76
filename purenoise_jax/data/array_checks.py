"""Checks of the array arguments of public functions: dtype and shape always, values if known.

Under `jit` an array has a shape and a dtype but no values yet, so its values are not checked. The
docstring of each function then says what a wrong value leads to.
"""

from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from purenoise_jax.runtime.errors import DataError, shown

_OFFENDERS_SHOWN = 5


def is_known(array: Any) -> bool:
    """Returns whether this process can read the values of an array now."""
    return not isinstance(array, jax.core.Tracer) and getattr(array, "is_fully_addressable", True)


def as_array(name: str, values: Any) -> jax.Array | np.ndarray:
    """Returns an array unchanged, and converts anything else with numpy.

    Raises:
        DataError: numpy cannot convert it.
    """
    if isinstance(values, jax.Array | np.ndarray):
        return values
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise DataError(f"{name} must be an array, got {shown(values)}: {error}") from None


def check_labels(
    labels: ArrayLike, *, rows: int | None = None, num_classes: int | None = None
) -> jax.Array | np.ndarray:
    """Checks class labels, int[N] in [0, K), and returns them as an array.

    Args:
        labels: of any integer dtype.
        rows: N; None allows any.
        num_classes: K; None allows any.

    Raises:
        DataError: `labels` have another dtype or shape or, if they are known, lie outside the
            range.
    """
    array = as_array("labels", labels)
    wanted = "N" if rows is None else str(rows)
    if array.ndim != 1 or rows not in (None, array.shape[0]) or not _is_integer(array):
        hint = ""
        if array.ndim == 2:
            hint = "; pass labels" + (
                "[:, 0]" if array.shape[1] == 1 else ".argmax(-1), not one-hot"
            )
        raise DataError(f"labels must be int[{wanted}], got {_kind(array)}{hint}")
    if is_known(array):
        known = np.asarray(array)
        top = np.iinfo(np.int32).max if num_classes is None else num_classes - 1
        bad = np.flatnonzero((known < 0) | (known > top))
        if bad.size:
            first = ", ".join(f"[{i}] = {known[i]}" for i in bad[:_OFFENDERS_SHOWN])
            raise DataError(
                f"labels must lie in 0..{top}, but {bad.size} do not; the first are {first}"
            )
    return array


def check_numbers(
    name: str,
    values: ArrayLike,
    *,
    shape: tuple[int | None, ...],
    wanted: str,
    low: float = -np.inf,
    high: float = np.inf,
) -> jax.Array | np.ndarray:
    """Checks that all values are finite and in a range, and returns them as an array.

    Args:
        name: of the argument.
        values: of any integer or float dtype.
        shape: None stands for any length but 0.
        wanted: the rest of the sentence "NAME must be", for messages.
        low: the smallest legal value.
        high: the largest legal value.

    Raises:
        DataError: `values` have another dtype or shape or, if they are known, one is not finite or
            lies outside the range.
    """
    array = as_array(name, values)
    fits = array.ndim == len(shape) and all(
        n == m if m is not None else n > 0 for n, m in zip(array.shape, shape, strict=True)
    )
    if not fits or not (_is_integer(array) or _is_float(array)):
        raise DataError(f"{name} must be {wanted}, got {_kind(array)}")
    if is_known(array):
        known = np.asarray(array, np.float64).reshape(-1)
        bad = known[~(np.isfinite(known) & (known >= low) & (known <= high))]
        if bad.size:
            raise DataError(f"{name} must be {wanted}, got {_first_few(bad)}")
    return array


def check_unit_interval(name: str, images: jax.Array | np.ndarray, hint: str) -> None:
    """Checks that pixels lie in [0, 1] up to rounding; checks nothing under `jit`.

    Args:
        name: of the argument.
        images: float[B, H, W, C].
        hint: the end of the message: advice for images in another range.

    Raises:
        DataError: a pixel lies outside, or is NaN.
    """
    if not is_known(images) or images.size == 0:
        return
    # So that known values are also checked inside a function that is being traced.
    with jax.ensure_compile_time_eval():
        low, high = float(images.min()), float(images.max())
    rounding = 1e-3
    if not (low >= -rounding and high <= 1 + rounding):
        raise DataError(f"{name} must lie in [0, 1], got {low:.4g} to {high:.4g}; {hint}")


def _is_integer(array: jax.Array | np.ndarray) -> bool:
    return jax.numpy.issubdtype(array.dtype, np.integer)


def _is_float(array: jax.Array | np.ndarray) -> bool:
    return jax.numpy.issubdtype(array.dtype, np.floating)


def _kind(array: jax.Array | np.ndarray) -> str:
    return f"{array.dtype}{list(array.shape)}"


def _first_few(values: np.ndarray) -> str:
    """Lists the first few numbers, and counts the others."""
    first = ", ".join(f"{value:g}" for value in values[:_OFFENDERS_SHOWN])
    more = values.size - _OFFENDERS_SHOWN
    return first + (f" and {more} more" if more > 0 else "")
