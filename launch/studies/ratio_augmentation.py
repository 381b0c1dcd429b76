"""Augmentations over the training ratio (Shwartz-Ziv et al. 2023, appendix A.2, figures 7 and 8).

READING: TrivialAugment, AutoAugment and AugMix replace flips and crops, as the source compares
them one by one.
"""

from functools import partial

from ..plan import Plan, Table
from .curves import curve_config, curve_table

NONE = "no augmentation"
AUGMENTS: dict[str, tuple[str, ...]] = {
    NONE: (),
    "flip": ("flip",),
    "crop": ("crop",),
    "flip, crop": ("flip", "crop"),
    "AugMix": ("augmix",),
    "TrivialAugment": ("trivialaugment",),
    "AutoAugment": ("autoaugment",),
}
IN_MINI = (NONE, "flip, crop", "TrivialAugment", "AutoAugment")


def ratio_augmentation(plan: Plan) -> Table:
    """Augmentations over the training ratio of two classes."""
    names = IN_MINI if plan.mini or plan.quick else tuple(AUGMENTS)
    lines = {name: partial(curve_config, plan, data__augment=AUGMENTS[name]) for name in names}
    return curve_table(plan, "augmentation", lines, baseline=NONE)
