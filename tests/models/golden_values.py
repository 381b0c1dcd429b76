"""Values that both the tests and the golden scripts make from names, and PyTorch's layout."""

import math
import zlib

import numpy as np

# These programs run once or twice on tiny inputs, so nearly all of their time is compilation.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def to_torch(array: np.ndarray) -> np.ndarray:
    """Reorders a kernel into PyTorch's layout: outputs first, spatial axes last."""
    return array if array.ndim < 2 else np.moveaxis(array, (-1, -2), (0, 1))


def from_torch(array: np.ndarray) -> np.ndarray:
    """Reorders a kernel of PyTorch's layout into ours."""
    return array if array.ndim < 2 else np.moveaxis(array, (0, 1), (-1, -2))


def recipe(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The same values, for a torch shape, as the function of this name in the golden script."""
    normal = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("running_var"):
        value = 0.5 + np.abs(normal)
    elif name.endswith(("running_mean", "bias")):
        value = 0.2 * normal
    elif name.endswith("weight") and len(shape) == 1:
        value = 1.0 + 0.2 * normal
    else:
        value = normal * math.sqrt(2.0 / math.prod(shape[1:]))
    return value.astype(np.float32)


def probe(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The direction on which the gradient of a parameter is projected."""
    seed = zlib.crc32(f"probe:{name}".encode())
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
