r"""SIIM-ISIC 2020, melanoma or not in 33,126 photos, ResNeXt-50-32x4d, OPeN with DAR-BN.

    python -m purenoise_jax.main --config configs/isic2020.py --workdir runs/isic \
        --config.data.path=jpeg/train --config.data.train_list=train.csv

Arguments and recipe as in configs/aptos.py.

Files: train.csv and jpeg/train from
https://www.kaggle.com/competitions/siim-isic-melanoma-classification. There are no labels of its
test images, so a fifth of the training images is tested on.

READING: no source says how the share to test on is drawn. Here it is drawn by patient, with about a
fifth of each class, because photos of a patient are alike: no patient is on both sides, nor do
validation images share one with the others. `data.group_column=""` draws single images.
"""

from ml_collections import ConfigDict

from purenoise_jax.config.parts import beside


def get_config(arg: str | None = None) -> ConfigDict:
    """Builds the config; the top of the file lists the arguments."""
    config, _ = beside(__file__, "aptos").resnext(arg, source="list", name="isic2020")
    config.data.path_column, config.data.label_column = "image_name", "target"
    config.data.path_suffix, config.data.group_column = ".jpg", "patient_id"
    config.data.resize_shorter = 256
    return config
