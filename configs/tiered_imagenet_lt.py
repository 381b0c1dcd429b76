r"""tieredImageNet as a step: 351 classes with many images, 160 with five; ResNet-12, MFW with DRW.

    python -m purenoise_jax.main --config configs/tiered_imagenet_lt.py --workdir runs/tiered \
        --config.data.path=tiered_imagenet

Arguments after a colon, separated by commas:
    method=mfw+drw (any of docs/methods.md, or several joined by +)   epochs=180   model=resnet12

With `--config.data.test_split=val` the minor classes are the 97 of the validation split, to tune.

Files: the files *_images_png.pkl and *_labels.pkl of
https://github.com/renmengye/few-shot-ssl-public, or the same classes as folders train/, val/ and
test/ of images. Nothing that the pickles name is run.

Recipe: Ye et al. 2021, supplement, C.1 and C.5. Its numbers are in the main text, which was not
available.
READING: the weight decay (2e-4, as on CIFAR), the warm-up (none) and alpha of MFW (5, as for steps
of CIFAR) are not stated. The weight function of MFW is reconstructed.
"""

from ml_collections import ConfigDict

from purenoise_jax.config import parts as common

TIMES = common.Times(180, warmup=0, drops=(), deferred=144)


def get_config(arg: str | None = None) -> ConfigDict:
    """Builds the config; the top of the file lists the arguments."""
    config, _ = common.start_config(
        arg,
        source="tiered_imagenet",
        name="tiered_imagenet",
        method="mfw+drw",
        model="resnet12",
        times=TIMES,
    )
    common.set_sgd(config, batch=512, rate=0.2, decay=2e-4)
    config.method.mfw.alpha, config.method.mfw.beta = 5.0, 0.01
    config.data.image_size, config.data.crop_padding = 84, 8
    config.data.augment = ("flip", "crop")
    return config
