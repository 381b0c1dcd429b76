"""Reads single arrays in NumPy's .npy format, and refuses damaged or malicious ones."""

import struct
import tokenize
import zlib
from typing import IO

import numpy as np

try:
    from lzma import LZMAError
except ImportError:  # Python was built without lzma, so nothing can raise its error.
    LZMAError = zlib.error  # type: ignore[misc, assignment]

# All errors that NumPy and zipfile have been seen to raise for damaged bytes.
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
    """Reads the only array of a stream; refuses object arrays unread, because they could run code.

    Args:
        stream: at the first byte of the array, behind which there must be no more data.
        name: of the array, for the message.

    Returns:
        The array.

    Raises:
        ValueError: the stream holds objects, or more data than its header says.
        Exception: one of `DAMAGE`.
    """
    array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
    # zipfile compares the checksum of a member of an .npz only when its end is read.
    if stream.read(1):
        raise ValueError(f"{name} holds more data than its header says")
    return array
