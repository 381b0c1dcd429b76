"""CIFAR-100-LT, WRN-28-10, OPeN with DAR-BN.

    python -m purenoise_jax.main --config configs/cifar100_lt.py --workdir runs/open100

Arguments as in configs/cifar10_lt.py. The paper reports 51.5 +- 0.4 % at ratio 100 (four runs), the
reproduction 52.1 % (one run).
"""

from ml_collections import ConfigDict

from purenoise_jax.config.parts import beside


def get_config(arg: str | None = None) -> ConfigDict:
    """Builds the config; the top of the file lists the arguments."""
    return beside(__file__, "cifar10_lt").cifar_lt(arg, "cifar100")
