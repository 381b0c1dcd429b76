"""Reads files of weights in the format safetensors, which holds arrays and no code."""

import hashlib
from typing import NamedTuple

import numpy as np

from purenoise_jax.runtime.errors import ConfigError, DataError
from purenoise_jax.runtime.files import read_bytes
from purenoise_jax.runtime.paths import expand

INSTALL = "pip install safetensors"


class WeightsFile(NamedTuple):
    """The content of a file.

    Attributes:
        arrays: name -> array of floating-point or other numbers.
        sha256: of the file, in hex.
    """

    arrays: dict[str, np.ndarray]
    sha256: str


def read_weights(path: str, field: str) -> WeightsFile:
    """Reads a file of weights.

    Args:
        path: a .safetensors file.
        field: config field of the path, in messages.

    Raises:
        ConfigError: the package safetensors is not installed, or the path is not legal.
        DataError: the file is missing, damaged or in another format, or an array of floating-point
            numbers holds NaN or infinite values.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load
    except ImportError:
        raise ConfigError(f"{field}={path} needs the package safetensors: {INSTALL}") from None
    file = expand(path, field)
    try:
        # Once, so that the hash is that of the bytes that are used.
        content = read_bytes(file)
    except OSError as error:
        raise DataError(f"{field}={path}: cannot be read: {error.strerror or error}") from None
    try:
        arrays = load(content)
    except KeyError as error:
        raise DataError(
            f"{field}={path}: numbers of the type {error.args[0]} are not read; legal: float16, "
            "float32 and float64"
        ) from None
    except (SafetensorError, ValueError) as error:
        raise DataError(
            f"{field}={path}: not a complete safetensors file ({error}); a .pth file is converted "
            "by python -m purenoise_jax.checkpoint.convert_weights"
        ) from None
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array.astype(np.float32)).all():
            raise DataError(f"{field}={path}: {name} holds NaN or infinite numbers")
    return WeightsFile(arrays, hashlib.sha256(content).hexdigest())
