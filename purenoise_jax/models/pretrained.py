"""Weights that were made with PyTorch, for the networks of torchvision and timm.

Both name the arrays of ResNets, ResNeXts and DenseNets alike. Nothing is guessed: every array of a
file must have its place in the network, and every array of the network its place in the file.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from purenoise_jax.models.densenet import DenseNet
from purenoise_jax.models.heads import CLASS_SCALE
from purenoise_jax.models.norm import AUX_PREFIX
from purenoise_jax.models.projectors import PROJECTOR
from purenoise_jax.models.resnet import ResNet
from purenoise_jax.models.torchvision_names import current_name, torch_name
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.errors import ConfigError

# Counters that PyTorch's norms have and do not use with a momentum.
_COUNTER = "num_batches_tracked"
_SHOWN = 3


class Fitted(NamedTuple):
    """Arrays of a file in the layout of a network.

    Attributes:
        arrays: name, such as "params/head/fc/kernel" -> f32, without those that the file lacks.
        head: the place that the values of the head come from, in words.
    """

    arrays: dict[str, np.ndarray]
    head: str


def fit(network: Any, variables: Any, state: Mapping[str, np.ndarray], where: str) -> Fitted:
    """Finds the place of every array of a state dict in a network.

    Not expected in the file are auxiliary norms, projectors and the scales of a scaled head. The
    head is taken if it is a linear layer for as many classes; only its features must fit otherwise.

    Args:
        network: from `create_model`.
        variables: its {"params", "batch_stats"}, or their shapes.
        state: name -> array, in PyTorch's names and layout.
        where: names the file in messages.

    Returns:
        The arrays by our names, float32.

    Raises:
        ConfigError: the network has other names than torchvision's, or a name or shape of the
            network or the file is not in the other.
    """
    if not isinstance(network, ResNet | DenseNet):
        raise ConfigError(
            f"{where}: only ResNets for large images, ResNeXts and DenseNets, also with the ending "
            "_cifar, have the names of such files"
        )
    given = {
        current_name(name): array for name, array in state.items() if not name.endswith(_COUNTER)
    }
    flat = {path: tuple(leaf.shape) for path, leaf in flatten_dict(variables).items()}
    head = {path[2:]: shape for path, shape in flat.items() if path[:2] == ("params", "head")}
    body = {
        path: shape
        for path, shape in flat.items()
        if path[1] not in ("head", PROJECTOR) and not path[-1].startswith(AUX_PREFIX)
    }
    names = {path: torch_name(network, path[1:]) for path in body}
    fc = torch_name(network, ("head", "fc", "kernel")).removesuffix(".weight")
    _compare_names(given, {*names.values(), f"{fc}.weight", f"{fc}.bias"}, where)
    arrays = {
        "/".join(path): _array(names[path], given[names[path]], shape, where)
        for path, shape in body.items()
    }
    features, classes = next(shape for path, shape in head.items() if path[-1] == "kernel")
    there = len(given[f"{fc}.bias"])
    kernel = _array(f"{fc}.weight", given[f"{fc}.weight"], (features, there), where)
    bias = _array(f"{fc}.bias", given[f"{fc}.bias"], (there,), where)
    if {path for path in head if path[-1] != CLASS_SCALE} != {("fc", "kernel"), ("fc", "bias")}:
        return Fitted(arrays, "the head is drawn anew, because the file has a linear one")
    if there != classes:
        return Fitted(arrays, f"the head is drawn anew: {there:,} classes there, {classes:,} here")
    arrays |= {"params/head/fc/kernel": kernel, "params/head/fc/bias": bias}
    return Fitted(arrays, f"with its head for {classes:,} classes")


def _compare_names(given: Mapping[str, Any], wanted: set[str], where: str) -> None:
    faults = [
        f"{side} {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"
        for side, names in (
            ("the file lacks", sorted(wanted - given.keys())),
            ("the network lacks", sorted(given.keys() - wanted)),
        )
        if names
    ]
    if faults:
        raise ConfigError(f"{where} does not fit the network: {'; '.join(faults)}")


def _array(name: str, array: np.ndarray, shape: tuple[int, ...], where: str) -> np.ndarray:
    """An array in our layout, f32; refused with another shape than that of the network."""
    if array.dtype.kind != "f":
        raise ConfigError(f"{where}: {name} holds {array.dtype}, not floating-point numbers")
    # A kernel has outputs and inputs first in PyTorch, and last here.
    moved = array if array.ndim < 2 else np.moveaxis(array, (0, 1), (-1, -2))
    if moved.shape != shape:
        wanted = np.moveaxis(np.empty(shape, bool), (-1, -2), (0, 1)).shape if shape[1:] else shape
        raise ConfigError(
            f"{where} does not fit the network: {name} is {list(array.shape)}, and the network has "
            f"{list(wanted)}"
        )
    return np.ascontiguousarray(moved, np.float32)


def shapes_of(network: Any, image_shape: tuple[int, int, int]) -> Any:
    """The shapes of a network's variables, {"params", "batch_stats"}; nothing is computed.

    Args:
        network: from `create_model`.
        image_shape: (H, W, C).
    """
    image = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
    return jax.eval_shape(lambda x: network.init(rng.root(0), x, train=False), image)
