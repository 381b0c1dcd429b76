r"""iNaturalist 2018, ResNet-50, MFW with DRW: 437,513 photos of 8,142 species.

    python -m purenoise_jax.main --config configs/inaturalist18.py --workdir runs/inaturalist \
        --config.data.path=inaturalist --config.data.train_list=iNaturalist18_train.txt \
        --config.data.test_list=iNaturalist18_val.txt

Arguments after a colon, separated by commas:
    method=mfw+drw (any of docs/methods.md, or several joined by +)   epochs=90 (or 180)
    model=resnet50

Files: images train_val2018 from https://github.com/visipedia/inat_comp, lists iNaturalist18_*.txt
from https://github.com/facebookresearch/classifier-balancing. There are no labels of test images,
so the validation list is tested on. `data.path` is the folder that holds `train_val2018`.

Recipe: Ye et al. 2021, supplement, C.7. Its numbers are in the main text, which was not available.
READING: the weight decay (2e-4, as on CIFAR), the warm-up (none), alpha of MFW (0.2, as on
CIFAR-100), and the crops of the test (the central 224 x 224) are not stated. Images are "resized to
256 x 256" before a random crop; here the shorter side is, which does not change their proportions.
It subtracts the means of the channels; here they are divided by their deviations as well. The
weight function of MFW is reconstructed.
"""

from ml_collections import ConfigDict

from purenoise_jax.config import parts as common

TIMES = common.Times(90, warmup=0, drops=(60, 80), deferred=72)


def get_config(arg: str | None = None) -> ConfigDict:
    """Builds the config; the top of the file lists the arguments."""
    config, _ = common.start_config(
        arg,
        source="list",
        name="inaturalist18",
        method="mfw+drw",
        model="resnet50",
        times=TIMES,
    )
    common.set_sgd(config, batch=128, rate=0.05, decay=2e-4)
    config.method.mfw.alpha, config.method.mfw.beta = 0.2, 2.0
    config.data.image_size, config.data.resize_shorter = 224, 256
    config.data.augment = ("random_crop", "flip")
    return config
