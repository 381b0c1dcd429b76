r"""ImageNet-LT, ResNeXt-50-32x4d with a cosine classifier, OPeN with DAR-BN.

    python -m purenoise_jax.main --config configs/imagenet_lt.py --workdir runs/imagenet \
        --config.data.path=imagenet --config.data.train_list=ImageNet_LT_train.txt \
        --config.data.val_list=ImageNet_LT_val.txt --config.data.test_list=ImageNet_LT_test.txt

Arguments after a colon, separated by commas:
    method=open (any of docs/methods.md, or several joined by +)   epochs=220
    model=resnext50_32x4d

Files: images of ILSVRC 2012 from https://image-net.org, lists ImageNet_LT_*.txt from
https://github.com/facebookresearch/classifier-balancing. Images lie in `train/<class>/` and
`val/<class>/`. The lists have 115,846 training images, 1,280 to 5 of a class (table 5 of the paper
prints 1,200, its section 4.1 has 1,280).

Recipe: Zada et al. 2022, appendix D, for which they report 55.1 % with OPeN and 51.1 % with ERM.
READING: the cosine classifier has a scale that trains, 10 at first, as in the paper that they cite
for it (Gidaris and Komodakis 2018); `ldam` has cosines without it, because it scales them itself.
READING: the batch (256), the range of rotation (15 degrees to both sides), the warm-up (none) and
the crops of the test (the shorter side resized to 256, the central 224 x 224) are not stated.
"""

from ml_collections import ConfigDict

from purenoise_jax.config import parts as common

TIMES = common.Times(220, warmup=0, drops=(160, 170), deferred=180)


def get_config(arg: str | None = None) -> ConfigDict:
    """Builds the config; the top of the file lists the arguments."""
    config, _ = common.start_config(
        arg,
        source="list",
        name="imagenet_lt",
        method="open",
        model="resnext50_32x4d",
        times=TIMES,
        head="scaled_cosine",
    )
    common.set_sgd(config, batch=256, rate=5e-2, decay=5e-4)
    config.data.image_size, config.data.resize_shorter = 224, 256
    config.data.augment = ("original_crop", "simclr_scaled", "rotation")
    return config
