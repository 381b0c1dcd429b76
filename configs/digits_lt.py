"""Long-tailed handwritten digits: a first run of a minute, with nothing to download.

    python -m purenoise_jax.main --config configs/digits_lt.py --workdir runs/digits

Arguments after a colon, separated by commas:
    method=open (any of docs/methods.md, or several joined by +)   epochs=60   ir=50
"""

from ml_collections import ConfigDict

from purenoise_jax.config import parts as common
from purenoise_jax.config.fields import default_config


def get_config(arg: str | None = None) -> ConfigDict:
    """Builds the config; the top of the file lists the arguments."""
    args = common.parse_arg(arg, method="open", epochs=60, ir=50.0)
    config = default_config()
    common.set_methods(config, args.method, args.epochs)
    # With 371 images, the papers' batches of 128 and rates down to 1e-5 would leave too few
    # effective steps after the first drop.
    config.batch_size = 32
    config.optimizer.gamma = 0.1
    config.data.source = "digits"
    config.data.name = "digits"
    config.data.imbalance_ratio = args.ir
    # No flip: a mirrored digit is another digit or none.
    config.data.augment = ("crop",)
    config.data.crop_padding = 2
    config.model.name = "resnet8"
    return config
