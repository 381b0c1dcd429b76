r"""Tiny-ImageNet-LT, 200 classes of 64 x 64 pixels, ResNet-18, MFW with DRW.

    python -m purenoise_jax.main --config configs/tiny_imagenet_lt.py --workdir runs/tiny \
        --config.data.path=tiny-imagenet-200

Arguments after a colon, separated by commas:
    method=mfw+drw (any of docs/methods.md, or several joined by +)   epochs=200   model=resnet18
    ir=100

Files: http://cs231n.stanford.edu/tiny-imagenet-200.zip. Its test images have no labels, so the
validation images are tested on. At ratio 100 a class keeps 500 to 5 of its training images.

Recipe: Ye et al. 2021, supplement, C.4. Its numbers are in the main text, which was not available.
READING: the weight decay (2e-4, as on CIFAR), the warm-up (none), alpha of MFW (0.2, as on
CIFAR-100) and the first layers of ResNet-18 (those for ImageNet; model=resnet18_cifar has those for
small images) are not stated. The classes are in the order of their names. The weight function of
MFW is reconstructed.
"""

from ml_collections import ConfigDict

from purenoise_jax.config import parts as common

TIMES = common.Times(200, warmup=0, drops=(), deferred=160)


def get_config(arg: str | None = None) -> ConfigDict:
    """Builds the config; the top of the file lists the arguments."""
    config, _ = common.start_config(
        arg,
        source="tiny_imagenet",
        name="tiny_imagenet",
        method="mfw+drw",
        model="resnet18",
        times=TIMES,
        ir=100.0,
    )
    common.set_sgd(config, batch=128, rate=0.1, decay=2e-4)
    config.method.mfw.alpha, config.method.mfw.beta = 0.2, 2.0
    config.data.image_size, config.data.crop_padding = 64, 8
    config.data.augment = ("flip", "crop")
    return config
