"""CIFAR-10-LT, WRN-28-10, OPeN with DAR-BN: the paper's main experiment.

    python -m purenoise_jax.main --config configs/cifar10_lt.py --workdir runs/open

Arguments after a colon, separated by commas:
    method=open|erm|rs|drs   preset=paper|rescience   epochs=200   model=wrn28_10   ir=100
    augment=simclr|cutout|flip_crop|autoaugment

The paper reports 84.6 +- 0.2 % (four runs), the reproduction 85.0 % (one run). Both leave open what
flows back from noise images: the paper's equations stop the affine parameters (preset=paper), its
listing and the reproduction stop everything (preset=rescience, with the reproduction's constants).
"""

from ml_collections import ConfigDict

from purenoise_jax import config_parts as common
from purenoise_jax.config import default_config


def get_config(arg: str | None = None) -> ConfigDict:
    """See the top of the file."""
    return cifar_lt(arg, "cifar10")


def cifar_lt(arg: str | None, name: str) -> ConfigDict:
    """The config of either CIFAR; the papers' recipes differ in the data only."""
    args = common.parse_arg(
        arg,
        method="open",
        preset="paper",
        epochs=200,
        model="wrn28_10",
        ir=100.0,
        augment="simclr",
    )
    common.choose("augment", args.augment, common.AUGMENTS)
    config = default_config()
    common.set_schedule(config, args.method, args.epochs)
    config.data.name = name
    config.data.imbalance_ratio = args.ir
    config.data.augment = common.AUGMENTS[args.augment]
    config.model.name = args.model
    common.set_preset(config, args.preset)
    return config
