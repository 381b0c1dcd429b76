"""The names that torchvision, or the authors' code, has for the variables of a network."""

import re

LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
LEAVES |= {"mean": "running_mean", "var": "running_var"}
RESNET = (
    (r"^head\.fc$", "fc"),
    (r"^conv0$", "conv1"),
    (r"^bn0$", "bn1"),
    (r"^stage3_(cb|rb)_block", r"\1_block"),
    (r"^stage(\d)_block(\d+)", r"layer\1.\2"),
    (r"shortcut_conv$", "downsample.0"),
    (r"shortcut_bn$", "downsample.1"),
)
DENSENET = (
    (r"^head\.fc$", "classifier"),
    (r"^(?=conv0|bn0|transition|bn_final)", "features."),
    (r"^stage(\d)_block(\d+)", lambda m: f"features.denseblock{m[1]}.denselayer{int(m[2]) + 1}"),
    (r"\bbn_final$", "norm5"),
    (r"\bbn(\d?)$", r"norm\1"),
)


def torch_name(path: tuple[str, ...]) -> str:
    """Translates the path of a parameter or statistic of a network other than a DenseNet.

    The variables of an auxiliary norm, which torchvision does not have, keep their prefix.
    """
    return _translate(path, RESNET)


def densenet_name(path: tuple[str, ...]) -> str:
    """Translates the path of a parameter or statistic of a DenseNet."""
    return _translate(path, DENSENET)


def _translate(path: tuple[str, ...], rules) -> str:
    *modules, leaf = path
    name = ".".join(modules)
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    prefix = "aux_" if leaf.startswith("aux_") else ""
    return f"{name}.{prefix}{LEAVES[leaf.removeprefix('aux_')]}"
