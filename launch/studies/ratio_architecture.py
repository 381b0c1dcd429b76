"""Depths and widths over the training ratio (Shwartz-Ziv et al. 2023, A.3, figures 9 and 10).

READING: the networks of the figures are not given. Here they are ResNets of torchvision by depth,
with a stem for small images, ResNet-32 with 16 and with 64 channels in its first stage, and
WRN-28-10. Figures 9 and 10 are the left end of the curves.
"""

import dataclasses
from functools import partial

from ..plan import MINI_MODEL, Plan, Table
from .curves import curve_config, curve_table

NETWORKS = (
    "resnet18_cifar", "resnet34_cifar", "resnet50_cifar", "resnet101_cifar", "resnet152_cifar",
    "resnet32", "resnet32_w64", "wrn28_10",
)  # fmt: skip
# The network that other studies have, and one of four times as many parameters.
MINI_NETWORKS = (MINI_MODEL, "wrn10_2")


def ratio_architecture(plan: Plan) -> Table:
    """Depths and widths of networks over the training ratio of two classes."""
    mini = plan.mini and plan.model == MINI_MODEL
    names = MINI_NETWORKS if mini else plan.models(*NETWORKS)
    lines = {
        name: partial(curve_config, dataclasses.replace(plan, model=name if mini else plan.model),
                      model=name)
        for name in names
    }  # fmt: skip
    return curve_table(plan, "networks as named", lines, baseline=names[0])
