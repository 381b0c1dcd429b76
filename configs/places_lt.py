r"""Places-LT, ResNet-152 trained on ImageNet before, with a cosine classifier; OPeN with DAR-BN.

    python -m purenoise_jax.main --config configs/places_lt.py --workdir runs/places \
        --config.data.path=places365 --config.data.train_list=Places_LT_train.txt \
        --config.data.val_list=Places_LT_val.txt --config.data.test_list=Places_LT_test.txt

Arguments after a colon, separated by commas:
    method=open (any of docs/methods.md, or several joined by +)   epochs=30   model=resnet152
    weights=resnet152.safetensors (torchvision's or timm's, see docs/networks.md; nothing = none)

Files: images of Places365-Standard, 256 x 256, from http://places2.csail.mit.edu, lists
Places_LT_*.txt from https://github.com/facebookresearch/classifier-balancing. Images lie in
`train/<class>/` and `val/<class>/`. The lists have 62,500 training images, 4,980 to 5 of a class.

Recipe: Zada et al. 2022, appendix D, for which they report 40.5 % with OPeN and 29.9 % with ERM.
READING: the cosine classifier has a scale that trains, 10 at first, as in the paper cited for that
of ImageNet-LT (Gidaris and Komodakis 2018); `ldam` has cosines without it.
READING: the batch (256), the range of rotation (15 degrees to both sides), the warm-up (none) and
the crops of the test (the shorter side resized to 256, the central 224 x 224) are not stated.
"""

from ml_collections import ConfigDict

from purenoise_jax.config import parts as common

TIMES = common.Times(30, warmup=0, drops=(10, 15), deferred=15)


def get_config(arg: str | None = None) -> ConfigDict:
    """Builds the config; the top of the file lists the arguments."""
    config, args = common.start_config(
        arg,
        source="list",
        name="places_lt",
        method="open",
        model="resnet152",
        times=TIMES,
        head="scaled_cosine",
        weights="resnet152.safetensors",
    )
    config.model.pretrained = args.weights
    common.set_sgd(config, batch=256, rate=1e-3, decay=5e-4)
    config.optimizer.head_learning_rate = 5e-2
    config.data.image_size, config.data.resize_shorter = 224, 256
    config.data.augment = ("original_crop", "simclr_scaled", "rotation")
    return config
