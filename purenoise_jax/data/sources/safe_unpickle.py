"""Reads pickles of data sets without running code that they name.

A pickle names functions to call. Those of CIFAR and tieredImageNet need three, all of which rebuild
a NumPy array, and here even those are replaced by stand-ins that only record their arguments, so a
file controls neither an import nor a call into NumPy. Every other name is refused.
"""

import dataclasses
import io
import math
import os
import pickle
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from purenoise_jax.runtime.errors import DataError
from purenoise_jax.runtime.files import open_plain

# Types of arrays, as NumPy's pickles name them; integers have to be little-endian.
BYTES, INTEGERS = "u1", ("i4", "i8")
# Bytes of a line, in which a pickle has names and, in the first protocol, numbers.
_LINE = 1 << 16
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


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """A part of a file, which is not read.

    Attributes:
        start: its first byte.
        size: number of its bytes.
    """

    start: int
    size: int

    def __len__(self) -> int:
        return self.size


class _Array:
    """Stands for a NumPy array under construction; accepts plain arrays of few types only."""

    value: np.ndarray | Span

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        if type(dtype) is not _Dtype or fortran or type(raw) not in (bytes, Span):
            raise DataError("only C-ordered arrays of plain numbers are accepted")
        if type(shape) is not tuple or not all(type(n) is int and n >= 0 for n in shape):
            raise DataError("an array without a proper shape")
        if len(raw) != math.prod(shape) * dtype.numpy.itemsize:
            raise DataError(f"an array of shape {shape} does not fit its {len(raw)} bytes")
        is_read = type(raw) is bytes
        self.value = np.frombuffer(raw, dtype.numpy).reshape(shape) if is_read else raw


class _Dtype:
    """Stands for a dtype."""

    def __init__(self, name: str) -> None:
        self.numpy = np.dtype(f"<{name}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        # The order of bytes is irrelevant to single ones.
        if self.numpy.itemsize > 1 and state[1] not in ("<", b"<"):
            raise DataError("only little-endian integers are accepted")


class _NdarrayClass:
    """Stands for the class `numpy.ndarray`, which the files only use as an argument."""


def _reconstruct(*args: Any) -> _Array:
    if not args or args[0] is not _NdarrayClass:
        raise DataError("only plain arrays are accepted")
    return _Array()


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _NdarrayClass,
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

    def __init__(self, file: Any, dtypes: Sequence[str]) -> None:
        super().__init__(file, encoding="bytes")
        self._dtypes = dtypes

    def _dtype(self, name: Any, *flags: Any) -> _Dtype:
        del flags
        text = name.decode("latin-1") if type(name) is bytes else name
        if type(text) is not str or text not in self._dtypes:
            raise DataError(f"only arrays of {' or '.join(self._dtypes)} are accepted")
        return _Dtype(text)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "dtype"):
            return self._dtype
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise DataError(f"the pickle asks for {module}.{name}, which is refused") from None

    def persistent_load(self, pid: Any) -> Any:
        raise DataError("the pickle asks for a persistent object, which is refused")


class _Bounded:
    """A file of which no more is read, or asked of memory, than it has."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file, self._size = file, os.fstat(file.fileno()).st_size
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        self._check(size)
        return self._file.read(size)

    def readline(self) -> bytes:
        line = self._file.readline(_LINE)
        if len(line) == _LINE:
            raise pickle.UnpicklingError("a line without an end")
        return line

    def skip(self, size: int) -> None:
        self._check(size)
        self._file.seek(size, os.SEEK_CUR)

    def _check(self, size: int) -> None:
        if size > self._size - self._file.tell():
            raise EOFError("the file ends within a value")


class _SpanUnpickler(_Unpickler):
    """Leaves long byte strings in the file, and has a `Span` in the place of each."""

    # Shorter ones are names of types; the shortest PNG has 67 bytes.
    LONG = 48
    # Made by `load`; the types that come with mypy lack them.
    read: Any
    append: Any
    _unframer: Any

    def __init__(self, file: _Bounded) -> None:
        super().__init__(file, (BYTES,))
        self._bounded, self._frame_start = file, 0

    def _load_frame(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        self._frame_start = self._bounded.tell()
        self._unframer.load_frame(size)

    def _load_bytes(self, form: str) -> None:
        (size,) = struct.unpack(form, self.read(struct.calcsize(form)))
        if size < 0:
            raise pickle.UnpicklingError("a byte string of negative length")
        if size < self.LONG:
            self.append(self.read(size))
            return
        frame = self._unframer.current_frame
        if frame is not None and frame.tell() < len(frame.getbuffer()):
            self.append(Span(self._frame_start + frame.tell(), size))
            # Refuses a string that is longer than the frame.
            self.read(size)
        else:
            self.append(Span(self._bounded.tell(), size))
            self._bounded.skip(size)

    dispatch: ClassVar[dict[int, Any]] = {
        **_Unpickler.dispatch,
        pickle.FRAME[0]: _load_frame,
        pickle.SHORT_BINSTRING[0]: lambda self: self._load_bytes("<B"),
        pickle.SHORT_BINBYTES[0]: lambda self: self._load_bytes("<B"),
        pickle.BINSTRING[0]: lambda self: self._load_bytes("<i"),
        pickle.BINBYTES[0]: lambda self: self._load_bytes("<I"),
        pickle.BINBYTES8[0]: lambda self: self._load_bytes("<Q"),
    }


def unpickle_arrays(data: bytes, where: str, dtypes: Sequence[str] = (BYTES,)) -> dict[bytes, Any]:
    """Reads a pickled dictionary of plain values and arrays without running anything.

    Args:
        data: the complete pickle, of Python 2 or 3.
        where: file name for error messages.
        dtypes: types of arrays that are accepted, of `BYTES` and `INTEGERS`.

    Returns:
        The dictionary. Text keys become bytes; arrays are read-only.

    Raises:
        DataError: the pickle names anything but NumPy's array constructors (the message names it),
            is damaged, or is not a dictionary.
    """
    content = _load(_Unpickler(io.BytesIO(data), dtypes), where)
    if not isinstance(content, dict):
        raise DataError(f"{where}: expected a pickled dictionary, got {type(content).__name__}")
    return {
        key.encode() if isinstance(key, str) else key: _finished(value, where)
        for key, value in content.items()
    }


def spans_of_arrays(path: Path) -> list[Span]:
    """Finds the content of each array of a pickled list of uint8 arrays, without reading it.

    Args:
        path: of the file, a pickle of Python 2 or 3.

    Raises:
        DataError: the pickle names anything but NumPy's array constructors (the message names it),
            is damaged, or is not a list of such arrays.
        OSError: the file cannot be read.
    """
    with open_plain(path) as file:
        content = _load(_SpanUnpickler(_Bounded(file)), path.name)
    if not isinstance(content, list):
        raise DataError(f"{path.name}: expected a pickled list, got {type(content).__name__}")
    spans = [_finished(value, path.name) for value in content]
    for place, span in enumerate(spans):
        if type(span) is not Span:
            raise DataError(f"{path.name}: entry {place} of the list is no array of an image")
    return spans


def _load(unpickler: _Unpickler, where: str) -> Any:
    try:
        return unpickler.load()
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    except _DAMAGE as error:
        raise DataError(f"{where}: damaged pickle ({type(error).__name__}: {error})") from error


def _finished(value: Any, where: str) -> Any:
    if not isinstance(value, _Array):
        return value
    if not hasattr(value, "value"):
        raise DataError(f"{where}: damaged pickle (an array without content)")
    return value.value
