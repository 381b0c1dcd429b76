"""CIFAR-10-LT, WRN-28-10, OPeN with DAR-BN: the paper's main experiment.

    python -m purenoise_jax.main --config configs/cifar10_lt.py --workdir runs/open

Arguments after a colon, separated by commas:
    method=open (any of docs/methods.md, or several joined by +)   preset=paper|rescience
    epochs=200   model=wrn28_10   ir=100
    augment=simclr|cutout|flip_crop|autoaugment   draws=train_size|balanced   profile=exp|step

The paper reports 84.6 +- 0.2 % (four runs), the reproduction 85.0 % (one run). Both leave the
gradient of noise images open: the paper's equations stop the affine parameters (preset=paper), its
listing and the reproduction stop everything (preset=rescience, with the reproduction's constants).
With draws=balanced an epoch of class-balanced sampling has K * n_max draws, as section 3 of the
paper reads, instead of as many as there are images, as its authors say: the deferred 40 epochs at
ratio 100 are then as long as 161 of ours.

With profile=step the rarer half of the classes are of one size, the others of another. The
arguments of methods and the epochs of draws=balanced follow this argument, not
--config.data.profile.

Arguments of methods are those of their sources for the data set, the profile and the ratio. If a
source has none for a ratio, they are those for 100, and for steps those of the long tail.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from purenoise_jax.config import parts as common
from purenoise_jax.config.fields import default_config

# Method -> its arguments.
Arguments = Mapping[str, Mapping[str, Any]]
# By ratio, where they are not those for 100, which are the defaults of the methods. Sources are the
# code of Zhong et al. 2021 (MiSLAS), Du et al. 2023 (GLMC) and Wang et al. 2023 (VS, ADRW).
ARGUMENTS: Mapping[int, Arguments] = {
    50: {
        "mislas": {"head_smoothing": 0.2, "lr_factor": 0.2},
        "label_aware_smoothing": {"head": 0.2},
    },
    10: {
        "mislas": {"head_smoothing": 0.1, "lr_factor": 0.2},
        "label_aware_smoothing": {"head": 0.1},
        "glmc": {"contrast_weight": 2.0, "power": 1.0},
        "vs": {"gamma": 0.0},
        "adrw": {"t": 0.1},
    },
}
# Beside those, for steps: the code of Wang et al. 2023 (VS, ADRW) and, for MFW, table 6 and section
# C.2 of Ye et al. 2021.
STEP_ARGUMENTS: Mapping[int, Arguments] = {
    100: {
        "mfw": {"alpha": 5.0, "beta": 0.01},
        "vs": {"gamma": 0.0, "tau": 1.25},
        "adrw": {"t": 0.1},
    },
    10: {"vs": {"tau": 1.0}},
}
PROFILES = ("exp", "step")
# Number of images of the largest class, number of classes.
CLASSES = {"cifar10": (5000, 10), "cifar100": (500, 100)}


def get_config(arg: str | None = None) -> ConfigDict:
    """Builds the config; the top of the file lists the arguments."""
    return cifar_lt(arg, "cifar10", ARGUMENTS, STEP_ARGUMENTS)


def cifar_lt(
    arg: str | None,
    name: str,
    arguments: Mapping[int, Arguments],
    step_arguments: Mapping[int, Arguments],
) -> ConfigDict:
    """Builds the config of either CIFAR; the papers' recipes differ only in the data.

    Args:
        arg: the text after the colon.
        name: "cifar10" or "cifar100".
        arguments: of methods, by ratio; those for 100 hold where a ratio does not change them.
        step_arguments: those of steps, likewise, where they are not `arguments`.
    """
    args = common.parse_arg(
        arg,
        method="open",
        preset="paper",
        epochs=200,
        model="wrn28_10",
        ir=100.0,
        augment="simclr",
        draws="train_size",
        profile="exp",
    )
    common.choose("profile", args.profile, PROFILES)
    common.choose("draws", args.draws, common.DRAWS)
    common.choose("augment", args.augment, common.AUGMENTS)
    config = default_config()
    factor = 1.0
    if args.draws == "balanced":
        factor = common.balanced_factor(
            *CLASSES[name], imbalance_ratio=args.ir, profile=args.profile
        )
    common.set_methods(config, args.method, args.epochs, factor)
    config.data.name = name
    config.data.imbalance_ratio = args.ir
    if args.profile == "step":
        # Otherwise as the data have it; the ratio asks for a long tail.
        config.data.profile = "step"
    config.data.augment = common.AUGMENTS[args.augment]
    config.model.name = args.model
    for by_ratio in (arguments, step_arguments if args.profile == "step" else {}):
        for ratio in dict.fromkeys((100, args.ir)):
            for method, given in by_ratio.get(ratio, {}).items():
                config.method[method].update(given)
    common.set_preset(config, args.preset)
    return config
