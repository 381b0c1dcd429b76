"""The names of torchvision and timm, or of the authors' code, for the variables of a network."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from purenoise_jax.models.densenet import DenseNet

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_LEAVES |= {"mean": "running_mean", "var": "running_var"}
_Rules = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]
_RESNET: _Rules = (
    (r"^head\.fc$", "fc"),
    (r"^conv0$", "conv1"),
    (r"^bn0$", "bn1"),
    (r"^stage3_(cb|rb)_block", r"\1_block"),
    (r"^stage(\d)_block(\d+)", r"layer\1.\2"),
    (r"shortcut_conv$", "downsample.0"),
    (r"shortcut_bn$", "downsample.1"),
)
_DENSENET: _Rules = (
    (r"^head\.fc$", "classifier"),
    (r"^(?=conv0|bn0|transition|bn_final)", "features."),
    (r"^stage(\d)_block(\d+)", lambda m: f"features.denseblock{m[1]}.denselayer{int(m[2]) + 1}"),
    (r"\bbn_final$", "norm5"),
    (r"\bbn(\d?)$", r"norm\1"),
)


def torch_name(network: Any, path: Sequence[str]) -> str:
    """Translates the path of a variable, such as conv0/kernel, into a name, such as conv1.weight.

    Args:
        network: from `create_model`.
        path: in its parameters or running statistics. Those of an auxiliary norm, which torchvision
            does not have, keep their prefix.
    """
    *modules, leaf = path
    name = ".".join(modules)
    for pattern, replacement in _DENSENET if isinstance(network, DenseNet) else _RESNET:
        name = re.sub(pattern, replacement, name)
    prefix = "aux_" if leaf.startswith("aux_") else ""
    return f"{name}.{prefix}{_LEAVES[leaf.removeprefix('aux_')]}"


def current_name(name: str) -> str:
    """Translates a name of old files of DenseNets, with `norm.1`, into that of today, `norm1`."""
    return re.sub(r"(?<=\.)(norm|conv)\.(?=[12]\.)", r"\1", name)
