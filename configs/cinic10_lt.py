r"""CINIC-10-LT, WRN-28-10, plain training with the tuned recipe of Shwartz-Ziv et al.

    python -m purenoise_jax.main --config configs/cinic10_lt.py --workdir runs/cinic \
        --config.data.path=CINIC-10

Arguments after a colon, separated by commas:
    method=cutmix+label_smoothing+ema (any of docs/methods.md, or several joined by +)
    epochs=300   model=wrn28_10   ir=100

Files: https://datashare.ed.ac.uk/handle/10283/3192. The images of `train` are cut to the ratio and
those of `test` are tested on; `valid` is not read, unless `data.test_split=valid` names it.

Recipe: Shwartz-Ziv et al. 2023, appendix B; table 5 reports 40.5 / 64.1 / 90.1 % of classes with
few, medium and many images.
READING: the ratio is not stated. With 9,000 images of the largest class, a ratio below 450 leaves
no class with fewer than 20 images, which are "few" in the paper. Nor are the batch (128, the
default of the authors' code), the warm-up (5 epochs), the amount of smoothing and the decay of the
average (our defaults). WRN-28-10 drops no activations, as in the authors' code.
"""

from ml_collections import ConfigDict

from purenoise_jax.config import parts as common

TIMES = common.Times(300, warmup=5, drops=(), deferred=240)


def get_config(arg: str | None = None) -> ConfigDict:
    """Builds the config; the top of the file lists the arguments."""
    config, _ = common.start_config(
        arg,
        source="folder",
        name="cinic10",
        method="cutmix+label_smoothing+ema",
        model="wrn28_10",
        times=TIMES,
        ir=100.0,
    )
    common.set_sgd(config, batch=128, rate=0.1, decay=2e-4)
    config.model.dropout = 0.0
    config.data.image_size = 32
    config.data.augment = ("trivialaugment",)
    return config
