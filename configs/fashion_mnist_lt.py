r"""Fashion-MNIST-LT, grey pictures of clothes of 28 x 28 pixels, WRN-28-10, OPeN with DAR-BN.

    python -m purenoise_jax.main --config configs/fashion_mnist_lt.py --workdir runs/fashion \
        --config.data.path=fashion-mnist

Arguments after a colon, separated by commas:
    method=open (any of docs/methods.md, or several joined by +)   epochs=200   model=wrn28_10
    ir=100

Files: https://github.com/zalandoresearch/fashion-mnist, or Debian's package dataset-fashion-mnist.
The four files are read as they are, also with .gz. At ratio 100 a class keeps 6,000 to 60 images.

READING: no source has a recipe; it is that of CIFAR-LT (Zada et al. 2022, appendix D), without
SimCLR's colours, because the pictures are grey.
"""

from ml_collections import ConfigDict

from purenoise_jax.config import parts as common


def get_config(arg: str | None = None) -> ConfigDict:
    """Builds the config; the top of the file lists the arguments."""
    config, _ = common.start_config(
        arg,
        source="idx",
        name="fashion_mnist",
        method="open",
        model="wrn28_10",
        times=common.CIFAR_TIMES,
        ir=100.0,
    )
    config.data.augment = common.AUGMENTS["cutout"]
    return config
