r"""EuroSAT-LT, ten kinds of land use from above, ResNeXt-50-32x4d, OPeN with DAR-BN.

    python -m purenoise_jax.main --config configs/eurosat_lt.py --workdir runs/eurosat \
        --config.data.path=eurosat

Arguments after a colon, separated by commas, beside those of configs/aptos.py:
    ir=100   folder=EuroSAT_RGB (that of the archive, below data.path; 2750 in an older one)

Files: EuroSAT_RGB.zip from https://zenodo.org/records/7711810. It has no split, so a fifth of each
class is tested on; the others are cut to the ratio.

Recipe as in configs/aptos.py.
READING: the ratio and the size of the images are not stated. Images of 64 x 64 pixels are resized
to 224 x 224, whole for the test, because the network is made for that size.
"""

from ml_collections import ConfigDict

from purenoise_jax.config.parts import beside


def get_config(arg: str | None = None) -> ConfigDict:
    """Builds the config; the top of the file lists the arguments."""
    config, args = beside(__file__, "aptos").resnext(
        arg, source="folder", name="eurosat", ir=100.0, folder="EuroSAT_RGB"
    )
    config.data.train_split = args.folder
    return config
