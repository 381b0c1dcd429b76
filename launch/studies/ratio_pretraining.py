"""Pretraining over the training ratio (Shwartz-Ziv et al. 2023, appendix A.4, figure 11).

The published curves begin with weights that were trained on ImageNet-1k, ImageNet-21k, and by
SimCLR on ImageNet-1k. Such weights are read from a file, in the names of torchvision, or from every
file of a folder: `--set model.pretrained=PATH`. In the mini tier networks are trained on the other
CIFAR instead, with labels and by SimCLR without, once for each seed.

READING: the network is not given; it is a ResNet-50, on images that are enlarged to 224 x 224 and
normalised with the statistics of ImageNet, as they were trained with. Pretraining of the mini tier
has the recipe of the runs that follow, and 50 images of each of the 100 classes.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.runtime.paths import expand

from ..plan import Plan, Table
from .curves import curve_config, curve_table
from .two_classes import counted_config

RANDOM = "random start"
FIELD = "model.pretrained"
SIDE, PADDING = 224, 28
IMAGENET: dict[str, Any] = {
    "data__normalize": "explicit",
    "data__normalize_mean": (0.485, 0.456, 0.406),
    "data__normalize_std": (0.229, 0.224, 0.225),
    "data__image_size": SIDE,
    "data__crop_padding": PADDING,
}
PUBLISHED = (
    "ImageNet-1k, supervised",
    "ImageNet-21k, supervised",
    "ImageNet-1k, SimCLR",
)
NEEDS = f"weights of a ResNet-50: --set {FIELD}=PATH"
# Images of a class of CIFAR-100.
EACH, QUICK_EACH = 50, 1


def ratio_pretraining(plan: Plan) -> Table:
    """Pretrained and random starts over the training ratio of two classes."""
    if plan.mini or plan.quick:
        return _on_other_cifar(plan)
    path = plan.overrides.get(FIELD, "")
    others = {name: value for name, value in plan.overrides.items() if name != FIELD}

    def line(file: str) -> partial:
        own = dataclasses.replace(plan, overrides=others | ({FIELD: file} if file else {}))
        return partial(curve_config, own, model="resnet50", **IMAGENET)

    lines: dict[str, Any] = {RANDOM: line("")}
    if path:
        lines |= {f"weights {file.stem}": line(str(file)) for file in _files(path)}
    else:
        lines |= dict.fromkeys(PUBLISHED, NEEDS)
    return curve_table(plan, "pretraining", lines, baseline=RANDOM)


def _files(path: str) -> list[Path]:
    """The file, or those of a folder by name.

    Raises:
        ConfigError: the folder has none.
    """
    found = expand(path, FIELD)
    if not found.is_dir():
        return [found]
    files = sorted(found.glob("*.safetensors"))
    if not files:
        raise ConfigError(f"{FIELD}={path}: there is no .safetensors file in this folder")
    return files


def _on_other_cifar(plan: Plan) -> Table:
    data: dict[str, Any] = {"data__class_counts": (QUICK_EACH if plan.quick else EACH,) * 100}
    first = {
        "CIFAR-100, supervised": counted_config(plan, "CIFAR-100-LT", "erm", **data),
        "CIFAR-100, SimCLR": counted_config(
            plan, "CIFAR-100-LT", "simclr", method__simclr__supervised_weight=0.0, **data
        ),
    }
    lines = dict.fromkeys((RANDOM, *first), partial(curve_config, plan))
    return curve_table(plan, "pretraining", lines, baseline=RANDOM, pretraining=first)
