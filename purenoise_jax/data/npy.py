"""Reads single arrays in NumPy's own format, whatever their headers say."""

import struct
import tokenize
import zlib
from typing import IO

import numpy as np

try:
    from lzma import LZMAError
except ImportError:  # Python was built without it; then nothing can raise its error either.
    LZMAError = zlib.error  # type: ignore[misc, assignment]

# All that NumPy, and what unpacks a member of an .npz, has been seen to raise for damaged bytes.
DAMAGE = (
    LZMAError,
    zlib.error,
    struct.error,
    tokenize.TokenError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
    MemoryError,
)


def read_array(stream: IO[bytes], name: str) -> np.ndarray:
    """Reads the one array of a stream; objects, which would run code, are refused without reading.

    Args:
        stream: at the first byte of the array, which holds nothing behind it.
        name: of the array, for the message.

    Returns:
        The array.

    Raises:
        ValueError: the stream holds objects, or more data than its header says.
        Exception: one of `DAMAGE`.
    """
    array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
    # In an .npz, only reading on to the end makes zipfile compare the check sum.
    if stream.read(1):
        raise ValueError(f"{name} holds more data than its header says")
    return array
