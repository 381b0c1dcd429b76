r"""ImageNet-LT, 115,846 training images of 1,000 classes, in the recipes of five sources.

    python -m purenoise_jax.main --config configs/imagenet_lt.py --workdir runs/imagenet \
        --config.data.path=imagenet --config.data.train_list=ImageNet_LT_train.txt \
        --config.data.val_list=ImageNet_LT_val.txt --config.data.test_list=ImageNet_LT_test.txt

Arguments after a colon, separated by commas:
    recipe=open|mfw|mislas|lade|decoupling (its source below; the default is open)
    method=... (any of docs/methods.md, or several joined by +)   epochs=...   model=...
        (by default those of the recipe)

Files: images of ILSVRC 2012 from https://image-net.org, lists ImageNet_LT_*.txt from
https://github.com/facebookresearch/classifier-balancing. Images lie in `train/<class>/` and
`val/<class>/`. The lists have 115,846 training images, 1,280 to 5 of a class (table 5 of the paper
prints 1,200, its section 4.1 has 1,280).

Recipes, with the test accuracy in percent that is published for them:
    open: Zada et al. 2022, appendix D: ResNeXt-50 with a cosine classifier, OPeN with DAR-BN from
        epoch 180 of 220: 55.1, ERM 51.1.
    mfw: Ye et al. 2021, supplement, C.6: 200 epochs with a cosine, MFW with DRW. ResNeXt-50: 51.9,
        without DRW 50.5; model=resnet10: 42.0 and 40.1.
    mislas: Zhong et al. 2021, authors' configs: ResNet-50, mixup for 180 epochs (45.5), then 10
        epochs of the classifier: 52.7.
    lade: Hong et al. 2021, authors' configs and readme: ResNeXt-50, 180 epochs: 53.0.
    decoupling: Kang et al. 2020, authors' configs: ResNeXt-50, plain training for 90 epochs, then
        10 of the classifier: 49.6; method=lws, 5 epochs: 49.9; method=tau_norm: 49.4.

READING: the cosine classifier of open has a scale that trains, 10 at first, as in the paper that
they cite for it (Gidaris and Komodakis 2018); `ldam` has cosines without it, because it scales them
itself.
READING: of open, the batch (256), the range of rotation (15 degrees to both sides), the warm-up
(none) and the crops of the test (the shorter side resized to 256, the central 224 x 224) are not
stated.
READING: of mfw, the weight decay (2e-4, as on CIFAR), the warm-up (none), alpha and beta of MFW
(0.2 and 2, as on CIFAR-100-LT) and the crops of the test are not stated. "Resized to 256 x 256" is
the shorter side here. The weight function of MFW is reconstructed.
READING: in the last three, deferred methods begin after 80 % of the epochs. The exponent of
tau_norm is our default, and alpha of tde the 3 of its authors, whose config has the schedule of
decoupling.
DEVIATION: in the last three, images have random resized crops and flips alone. The code of Zhong et
al. and Kang et al. changes brightness, contrast and saturation as well.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from purenoise_jax.config import parts as common


class Recipe(NamedTuple):
    """The settings of a source.

    Attributes:
        method: default of the argument.
        model: default of the argument.
        times: of the schedule.
        batch: images of a batch.
        rate: learning rate, also of its second stage.
        decay: weight decay, also of its second stage.
        augment: augmentations of the training images.
        head: of the network.
        arguments: of methods, by dotted path.
        second: method -> epochs of its second stage, which follows a cosine.
    """

    method: str
    model: str
    times: common.Times
    batch: int
    rate: float
    decay: float
    augment: tuple[str, ...] = ("original_crop", "flip")
    head: str = "linear"
    arguments: Mapping[str, Any] = {}
    second: Mapping[str, int] = {}


RESNEXT = "resnext50_32x4d"
MISLAS = {
    "mixup.alpha": 0.2,
    "mislas.head_smoothing": 0.3,
    "mislas.tail_smoothing": 0.0,
    "mislas.lr_factor": 0.05,
    "mislas.bn": "shifted",
}
RECIPES = {
    "open": Recipe(
        "open",
        RESNEXT,
        common.Times(220, warmup=0, drops=(160, 170), deferred=180),
        *(256, 5e-2, 5e-4),
        augment=("original_crop", "simclr_scaled", "rotation"),
        head="scaled_cosine",
    ),
    "mfw": Recipe(
        "mfw+drw",
        RESNEXT,
        common.Times(200, warmup=0, drops=(), deferred=160),
        *(256, 0.1, 2e-4),
        augment=("random_crop", "flip"),
        arguments={"mfw.alpha": 0.2, "mfw.beta": 2.0},
    ),
    "mislas": Recipe(
        "mixup+mislas",
        "resnet50",
        common.Times(180, warmup=0, drops=(), deferred=144),
        *(256, 0.1, 5e-4),
        arguments=MISLAS,
        second={"mislas": 10},
    ),
    "lade": Recipe(
        "lade",
        RESNEXT,
        common.Times(180, warmup=0, drops=(), deferred=144),
        *(256, 0.05, 5e-4),
        arguments={"lade.alpha": 0.05, "lade.penalty": 0.5},
    ),
    "decoupling": Recipe(
        "crt",
        RESNEXT,
        common.Times(90, warmup=0, drops=(), deferred=72),
        *(512, 0.2, 5e-4),
        arguments={"crt.bn": "shifted", "lws.bn": "shifted", "tde.alpha": 3.0},
        second={"crt": 10, "lws": 5},
    ),
}


def get_config(arg: str | None = None) -> ConfigDict:
    """Builds the config; the top of the file lists the arguments."""
    name = common.parse_arg(arg, recipe="open", method="", model="", epochs=0).recipe
    common.choose("recipe", name, RECIPES)
    recipe = RECIPES[name]
    config, args = common.start_config(
        arg,
        source="list",
        name="imagenet_lt",
        method=recipe.method,
        model=recipe.model,
        times=recipe.times,
        head=recipe.head,
        recipe=name,
    )
    common.set_sgd(config, recipe.batch, recipe.rate, recipe.decay)
    config.method.update_from_flattened_dict(recipe.arguments)
    for method in recipe.second.keys() & {*args.method.split("+")}:
        length = recipe.second[method] * args.epochs / recipe.times.epochs
        common.set_second_stage(config, round(length), recipe.rate, recipe.decay)
    config.data.image_size, config.data.resize_shorter = 224, 256
    config.data.augment = recipe.augment
    return config
