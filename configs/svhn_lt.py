r"""SVHN-LT, house numbers of 32 x 32 pixels, WRN-28-10, OPeN with DAR-BN.

    python -m purenoise_jax.main --config configs/svhn_lt.py --workdir runs/svhn \
        --config.data.path=svhn

Arguments after a colon, separated by commas:
    method=open (any of docs/methods.md, or several joined by +)   epochs=200   model=wrn28_10
    ir=100

Files: train_32x32.mat and test_32x32.mat from http://ufldl.stanford.edu/housenumbers. The largest
class of the subset has as many images as the smallest class of the files.

READING: no source has a recipe; it is that of CIFAR-LT (Zada et al. 2022, appendix D), without
flips, because a mirrored digit is another digit or none.
"""

from ml_collections import ConfigDict

from purenoise_jax.config import parts as common


def get_config(arg: str | None = None) -> ConfigDict:
    """Builds the config; the top of the file lists the arguments."""
    config, _ = common.start_config(
        arg,
        source="svhn",
        name="svhn",
        method="open",
        model="wrn28_10",
        times=common.CIFAR_TIMES,
        ir=100.0,
    )
    config.data.augment = ("crop", "cutout", "simclr")
    return config
