r"""APTOS 2019, five grades of retinopathy in 3,662 photos, ResNeXt-50-32x4d, OPeN with DAR-BN.

    python -m purenoise_jax.main --config configs/aptos.py --workdir runs/aptos \
        --config.data.path=train_images --config.data.train_list=train.csv

Arguments after a colon, separated by commas:
    method=open (any of docs/methods.md, or several joined by +)   epochs=300
    model=resnext50_32x4d

Files: train.csv and train_images from
https://www.kaggle.com/competitions/aptos2019-blindness-detection. There are no labels of its test
images, so a fifth of each class of the training images is tested on.

Recipe: Shwartz-Ziv et al. 2023, appendix B, which names the network and follows Fang et al. 2023
for the rest; neither numbers nor that paper were available.
READING: the schedule is that of the same appendix for CIFAR (300 epochs, a rate of 0.1 with a
cosine, weight decay 2e-4, here after 5 epochs of warm-up). The batch (256), the augmentations
(random crops, flips, rotations by up to 15 degrees to both sides), the crops of the test (the
shorter side resized to 256, the central 224 x 224) and the share to test on are not stated.
"""

from typing import Any

from ml_collections import ConfigDict

from purenoise_jax.config import parts as common

TIMES = common.Times(300, warmup=5, drops=(), deferred=240)


def get_config(arg: str | None = None) -> ConfigDict:
    """Builds the config; the top of the file lists the arguments."""
    config, _ = resnext(arg, source="list", name="aptos")
    config.data.path_column, config.data.label_column = "id_code", "diagnosis"
    config.data.path_suffix = ".png"
    config.data.resize_shorter = 256
    return config


def resnext(arg: str | None, **data: Any) -> tuple[ConfigDict, ConfigDict]:
    """Builds the config, with its arguments, of a data set of that appendix that has no split."""
    config, args = common.start_config(
        arg, method="open", model="resnext50_32x4d", times=TIMES, **data
    )
    common.set_sgd(config, batch=256, rate=0.1, decay=2e-4)
    config.data.test_fraction = 0.2
    config.data.image_size = 224
    config.data.augment = ("original_crop", "flip", "rotation")
    return config, args
