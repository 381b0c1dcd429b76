"""Reads the python form of CIFAR without running code that a pickle names.

A pickle names functions to call. The official files need three, all of which rebuild a NumPy array,
and here even those are replaced by stand-ins that only record their arguments, so a file controls
neither an import nor a call into NumPy. Every other name is refused.
"""

import io
import math
import pickle
import struct
from typing import Any, ClassVar

import numpy as np

from purenoise_jax.runtime.errors import DataError

# Errors that the unpickler and the stand-ins raise for a damaged stream.
_DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    MemoryError,
    RecursionError,
    ImportError,
    struct.error,
)


class _Array:
    """Stands for a NumPy array under construction; accepts plain uint8 only."""

    value: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        if type(dtype) is not _Dtype or fortran or type(raw) is not bytes:
            raise DataError("only C-ordered arrays of unsigned bytes are accepted")
        if type(shape) is not tuple or not all(type(n) is int and n >= 0 for n in shape):
            raise DataError("an array without a proper shape")
        if len(raw) != math.prod(shape):
            raise DataError(f"an array of shape {shape} does not fit its {len(raw)} bytes")
        self.value = np.frombuffer(raw, np.uint8).reshape(shape)


class _Dtype:
    """Stands for the dtype `uint8`; its byte order and alignment are irrelevant to single bytes."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        del state


class _NdarrayClass:
    """Stands for the class `numpy.ndarray`, which the files only use as an argument."""


def _reconstruct(*args: Any) -> _Array:
    if not args or args[0] is not _NdarrayClass:
        raise DataError("only plain arrays are accepted")
    return _Array()


def _dtype(name: Any, *flags: Any) -> _Dtype:
    del flags
    if name not in ("u1", b"u1"):
        raise DataError("only arrays of unsigned bytes are accepted")
    return _Dtype()


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _NdarrayClass,
    ("numpy", "dtype"): _dtype,
}


# The unpickler written in Python, because the one in C allocates any amount of memory that the file
# requests: one flipped bit in a memo index makes it allocate and write tens of gigabytes.
class _Unpickler(pickle._Unpickler):
    # Without the only operation that could do so here; the official files predate it.
    dispatch: ClassVar[dict[int, Any]] = {
        code: action
        for code, action in pickle._Unpickler.dispatch.items()
        if code != pickle.BYTEARRAY8[0]
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise DataError(f"the pickle asks for {module}.{name}, which is refused") from None

    def persistent_load(self, pid: Any) -> Any:
        raise DataError("the pickle asks for a persistent object, which is refused")


def unpickle_arrays(data: bytes, where: str) -> dict[bytes, Any]:
    """Reads a pickled dictionary of plain values and uint8 arrays without running anything.

    Args:
        data: the complete pickle, of Python 2 or 3.
        where: file name for error messages.

    Returns:
        The dictionary. Text keys become bytes; arrays are read-only `uint8`.

    Raises:
        DataError: the pickle names anything but NumPy's array constructors (the message names it),
            is damaged, or is not a dictionary.
    """
    try:
        content = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    except _DAMAGE as error:
        raise DataError(f"{where}: damaged pickle ({type(error).__name__}: {error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{where}: expected a pickled dictionary, got {type(content).__name__}")
    return {
        key.encode() if isinstance(key, str) else key: _finished(value, where)
        for key, value in content.items()
    }


def _finished(value: Any, where: str) -> Any:
    if not isinstance(value, _Array):
        return value
    if not hasattr(value, "value"):
        raise DataError(f"{where}: damaged pickle (an array without content)")
    return value.value
