"""Config files of further data sets: their published recipes, and a start of each on its layout."""

import inspect
import itertools
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from configs import (
    aptos,
    celeba5,
    cinic10_lt,
    eurosat_lt,
    fashion_mnist_lt,
    imagenet_lt,
    inaturalist18,
    isic2020,
    places_lt,
    svhn_lt,
    tiered_imagenet_lt,
    tiny_imagenet_lt,
)
from purenoise_jax.config.fields import default_config
from purenoise_jax.config.usual_phases import CIFAR_TIMES, Times, lay_out
from purenoise_jax.config.validation import validate
from purenoise_jax.data.decoded_images import DecodedImages
from purenoise_jax.data.sources import published_lists
from purenoise_jax.data.sources.by_feed import load_for
from purenoise_jax.data.sources.lists import Lists
from purenoise_jax.data.sources.where import WHERE
from purenoise_jax.methods import METHODS
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training.build import build
from purenoise_jax.training.compile_steps import step_program
from purenoise_jax.training.loop import train_and_evaluate
from tests import tiny  # noqa: F401  (adds the network)
from tests.trees import TREES

MODULES = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        *(aptos, celeba5, cinic10_lt, eurosat_lt, fashion_mnist_lt, imagenet_lt, inaturalist18),
        *(isic2020, places_lt, svhn_lt, tiered_imagenet_lt, tiny_imagenet_lt),
    )
}
# Epochs, batch, rate, weight decay, drops and their factor (or cosine), warm-up, network, head,
# size, shorter side, and the methods by the epoch from which they train.
RECIPES = {
    # Zada et al. 2022, appendix D: "for ImageNet OPeN is deferred to the last 40 epochs".
    "imagenet_lt": (220, 256, 5e-2, 5e-4, (160, 170), 0.1, 0, "resnext50_32x4d", "scaled_cosine",
                    224, 256, {0: ("erm",), 180: ("open",)}),
    "places_lt": (30, 256, 1e-3, 5e-4, (10, 15), 0.1, 0, "resnet152", "scaled_cosine", 224, 256,
                  {0: ("erm",), 15: ("open",)}),
    "celeba5": (90, 128, 0.1, 2e-4, (30, 60), 0.1, 5, "wrn28_10", "linear", 64, 0,
                {0: ("erm",), 60: ("open",)}),
    # Ye et al. 2021, supplement, C.4, C.5 and C.7; DRW after 80 % of the training.
    "tiny_imagenet_lt": (200, 128, 0.1, 2e-4, "cosine", None, 0, "resnet18", "linear", 64, 0,
                         {0: ("mfw",), 160: ("mfw", "drw")}),
    "tiered_imagenet_lt": (180, 512, 0.2, 2e-4, "cosine", None, 0, "resnet12", "linear", 84, 0,
                           {0: ("mfw",), 144: ("mfw", "drw")}),
    "inaturalist18": (90, 128, 0.05, 2e-4, (60, 80), 0.1, 0, "resnet50", "linear", 224, 256,
                      {0: ("mfw",), 72: ("mfw", "drw")}),
    # Shwartz-Ziv et al. 2023, appendix B.
    "cinic10_lt": (300, 128, 0.1, 2e-4, "cosine", None, 5, "wrn28_10", "linear", 32, 0,
                   {0: ("cutmix", "label_smoothing", "ema")}),
    "eurosat_lt": (300, 256, 0.1, 2e-4, "cosine", None, 5, "resnext50_32x4d", "linear", 224, 0,
                   {0: ("erm",), 240: ("open",)}),
    "aptos": (300, 256, 0.1, 2e-4, "cosine", None, 5, "resnext50_32x4d", "linear", 224, 256,
              {0: ("erm",), 240: ("open",)}),
    "isic2020": (300, 256, 0.1, 2e-4, "cosine", None, 5, "resnext50_32x4d", "linear", 224, 256,
                 {0: ("erm",), 240: ("open",)}),
    # As CIFAR-LT in Zada et al. 2022.
    "svhn_lt": (200, 128, 0.1, 2e-4, (160, 180), 0.01, 5, "wrn28_10", "linear", 0, 0,
                {0: ("erm",), 160: ("open",)}),
    "fashion_mnist_lt": (200, 128, 0.1, 2e-4, (160, 180), 0.01, 5, "wrn28_10", "linear", 0, 0,
                         {0: ("erm",), 160: ("open",)}),
}  # fmt: skip
AUGMENTS = {
    "imagenet_lt": ("original_crop", "simclr_scaled", "rotation"),
    "places_lt": ("original_crop", "simclr_scaled", "rotation"),
    "celeba5": ("flip", "crop", "cutout", "simclr"),
    "inaturalist18": ("random_crop", "flip"),
    "cinic10_lt": ("trivialaugment",),
    "svhn_lt": ("crop", "cutout", "simclr"),
    "fashion_mnist_lt": ("flip", "crop", "cutout"),
    **dict.fromkeys(("tiny_imagenet_lt", "tiered_imagenet_lt"), ("flip", "crop")),
    **dict.fromkeys(("aptos", "isic2020", "eurosat_lt"), ("original_crop", "flip", "rotation")),
}


# Recipes of ImageNet-LT beside the default: as above, and the epochs of the second stage with its
# rate, weight decay and schedule.
IMAGENET_RECIPES = {
    # Ye et al. 2021, supplement, C.6.
    "mfw": (200, 256, 0.1, 2e-4, "resnext50_32x4d", {0: ("mfw",), 160: ("mfw", "drw")}, None),
    # Authors' configs of Zhong et al. 2021, Hong et al. 2021 and Kang et al. 2020.
    "mislas": (180, 256, 0.1, 5e-4, "resnet50", {0: ("mixup",), 180: ("mislas",)},
               (10, 0.1, 5e-4, "cosine")),
    "lade": (180, 256, 0.05, 5e-4, "resnext50_32x4d", {0: ("lade",)}, None),
    "decoupling": (90, 512, 0.2, 5e-4, "resnext50_32x4d", {0: ("erm",), 90: ("crt",)},
                   (10, 0.2, 5e-4, "cosine")),
}  # fmt: skip


def test_every_config_has_a_layout_and_a_recipe():
    assert {*MODULES} == {*TREES} == {*RECIPES} == {*AUGMENTS}


@pytest.mark.parametrize("name", MODULES)
def test_the_recipe_is_that_of_its_source(name):
    config = MODULES[name].get_config()
    validate(config)
    opt = config.optimizer
    step = opt.schedule == "step"
    found = (
        *(config.num_epochs, config.batch_size, opt.learning_rate, opt.weight_decay),
        *((opt.milestones, opt.gamma) if step else (opt.schedule, None)),
        *(opt.warmup_epochs, config.model.name, config.model.head),
        *(config.data.image_size, config.data.resize_shorter),
        {phase.start_epoch: phase.methods for phase in config.phases.values()},
    )
    assert found == RECIPES[name]
    assert config.data.augment == AUGMENTS[name]
    assert (opt.name, opt.momentum, opt.nesterov) == ("sgd", 0.9, False)
    assert config.data.rotation_degrees == 15
    subset = name.endswith("_lt") and config.data.source != "list" and "tiered" not in name
    assert (config.data.imbalance_ratio, config.data.profile) == (
        (100, "auto") if subset else (0, "natural")
    )


@pytest.mark.parametrize("name", IMAGENET_RECIPES)
def test_imagenet_has_the_recipes_of_other_sources(name):
    config = imagenet_lt.get_config(f"recipe={name}")
    validate(config)
    opt = config.optimizer
    epochs, *others, methods, second = IMAGENET_RECIPES[name]
    stage = config.phases.get("second_stage")
    found = (config.batch_size, opt.learning_rate, opt.weight_decay, config.model.name)
    assert found == tuple(others)
    assert {phase.start_epoch: phase.methods for phase in config.phases.values()} == methods
    assert (opt.schedule, opt.milestones, opt.warmup_epochs) == ("cosine", (), 0)
    assert config.model.head == ("scaled" if name == "mislas" else "linear")
    assert config.num_epochs == epochs + (second[0] if second else 0)
    if second:
        wanted = (stage.learning_rate, stage.weight_decay, stage.schedule)
        assert wanted == second[1:] and (stage.warmup_epochs, stage.milestones) == (0, ())
    crop = "random_crop" if name == "mfw" else "original_crop"
    assert config.data.augment == (crop, "flip")
    assert (config.data.image_size, config.data.resize_shorter) == (224, 256)


def test_arguments_of_methods_on_imagenet_are_those_of_their_sources():
    def arguments(recipe, method):
        return imagenet_lt.get_config(f"recipe={recipe}").method[method]

    mfw, mislas = arguments("mfw", "mfw"), arguments("mislas", "mislas")
    assert (mfw.alpha, mfw.beta) == (0.2, 2.0)
    assert (mislas.head_smoothing, mislas.tail_smoothing, mislas.lr_factor) == (0.3, 0.0, 0.05)
    assert mislas.bn == "shifted" and arguments("mislas", "mixup").alpha == 0.2
    lade = arguments("lade", "lade")
    assert (lade.alpha, lade.penalty) == (0.05, 0.5)
    assert {arguments("decoupling", method).bn for method in ("crt", "lws")} == {"shifted"}
    assert arguments("decoupling", "tde").alpha == 3.0
    default = default_config().method
    assert arguments("open", "lade") == default.lade and arguments("mfw", "mixup") == default.mixup


def test_a_second_stage_of_imagenet_is_scaled_with_its_recipe():
    lws = imagenet_lt.get_config("recipe=decoupling,method=lws")
    assert (lws.phases.second_stage.start_epoch, lws.num_epochs) == (90, 95)
    short = imagenet_lt.get_config("recipe=mislas,epochs=18")
    assert (short.phases.second_stage.start_epoch, short.num_epochs) == (18, 19)
    # A method that is not of the source keeps the stage that it usually has.
    other = imagenet_lt.get_config("recipe=decoupling,method=maxnorm").phases.second_stage
    usual = imagenet_lt.get_config("method=maxnorm,epochs=90").phases.second_stage
    assert other.to_dict() == usual.to_dict()
    for recipe in IMAGENET_RECIPES:
        for method in ("open", "crt", "mixup+mislas", "tde", "mfw+drw"):
            validate(imagenet_lt.get_config(f"recipe={recipe},method={method},epochs=2"))
    with pytest.raises(ConfigError, match="config argument recipe='oltr' is unknown; legal: open"):
        imagenet_lt.get_config("recipe=oltr")


def test_the_classifier_of_places_has_its_own_rate_and_the_network_its_weights():
    config = places_lt.get_config()
    assert config.optimizer.head_learning_rate == 5e-2
    assert config.model.pretrained == "resnet152.safetensors"
    assert places_lt.get_config("weights=").model.pretrained == ""
    others = {n: m.get_config().optimizer.head_learning_rate for n, m in MODULES.items()}
    assert {n for n, rate in others.items() if rate} == {"places_lt"}


@pytest.mark.parametrize("module", [imagenet_lt, places_lt])
def test_only_methods_that_scale_cosines_get_them_without_a_scale(module):
    heads = {
        method: module.get_config(f"method={method}").model.head
        for method in ("erm", "rs", "open", "balanced_softmax", "lade", "crt", "ldam", "ldam+drw")
    }
    without = {method for method, head in heads.items() if head == "cosine"}
    assert without == {"ldam", "ldam+drw"} and {*heads.values()} == {"cosine", "scaled_cosine"}


def test_the_wide_network_of_cinic_drops_no_activations_as_in_its_source():
    assert cinic10_lt.get_config().model.dropout == 0


def test_mfw_has_the_strength_of_long_tails_and_that_of_steps():
    for name, (alpha, beta) in {
        "tiny_imagenet_lt": (0.2, 2.0),
        "inaturalist18": (0.2, 2.0),
        "tiered_imagenet_lt": (5.0, 0.01),
    }.items():
        mfw = MODULES[name].get_config().method.mfw
        assert (mfw.alpha, mfw.beta) == (alpha, beta)


@pytest.mark.parametrize("module", [imagenet_lt, tiny_imagenet_lt])
@pytest.mark.parametrize("epochs", [2, 60])
def test_every_method_is_valid_at_other_lengths(module, epochs):
    for method in METHODS:
        validate(module.get_config(f"method={method},epochs={epochs}"))


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 30, 110, 219])
def test_a_schedule_is_scaled_to_any_length(epochs):
    for module in MODULES.values():
        if epochs == 1:
            validate(module.get_config("method=rs,epochs=1"))
            continue
        config = module.get_config(f"method=open,epochs={epochs}")
        validate(config)
        (_, deferred) = sorted(phase.start_epoch for phase in config.phases.values())
        assert 0 < deferred < epochs and config.checkpoint.epochs == (deferred,)
    config = imagenet_lt.get_config("epochs=110")
    assert config.optimizer.milestones == (80, 85) and config.phases.deferred.start_epoch == 90


def test_the_times_of_cifar_are_those_of_the_first_release():
    """Its formulas, for every length that is likely."""
    for epochs in range(2, 400):
        config = default_config()
        lay_out(config, ("open",), epochs)
        first = max(min(round(0.8 * epochs), epochs - 1), 1)
        second = max(round(0.9 * epochs), first + 1)
        assert config.optimizer.milestones == tuple(e for e in (first, second) if e < epochs)
        assert config.optimizer.warmup_epochs == round(epochs / 40)
        assert config.phases.deferred.start_epoch == config.init_epoch == first
    assert Times(200, 5, (160, 180), 160) == CIFAR_TIMES


@pytest.mark.parametrize("name", MODULES)
def test_each_says_where_its_files_are_to_be_had(name):
    config = MODULES[name].get_config()
    text = " ".join((inspect.getdoc(MODULES[name]) or "").split())
    assert f"Files: {WHERE[config.data.name]}" in text and "READING:" in text
    assert f"--config configs/{name}.py " in text
    with pytest.raises(ConfigError) as end:
        build(config)
    message = str(end.value)
    assert message.startswith("data.path is empty") and WHERE[config.data.name] in message
    assert "\n" not in message


def test_a_missing_list_says_where_it_is_to_be_had(tmp_path):
    config = places_lt.get_config()
    config.data.path = str(tmp_path)
    with pytest.raises(ConfigError, match=r"data\.train_list is empty: .*; places_lt: images of"):
        build(config)


def small(name, root, monkeypatch, **overrides):
    """The config of a file on its layout, with a network and images that compile in no time."""
    monkeypatch.setattr(published_lists, "PUBLISHED", {})
    monkeypatch.setenv("PURENOISE_JAX_CACHE", str(root / "cache"))
    module, fields = MODULES[name], TREES[name](root)
    arg = "epochs=2,model=tiny" + (",weights=" if name == "places_lt" else "")
    arg += ",ir=2" if module.get_config().data.imbalance_ratio else ""
    config = module.get_config(arg)
    crop = config.data.resize_shorter
    config.update_from_flattened_dict(
        {
            "batch_size": 8,
            "num_devices": 1,
            "data.image_size": 8,
            "data.crop_padding": 2,
            "data.cutout_size": 4,
            "method.mfw.place": "features",
            "eval.batch_size": 16,
            "report": False,
            **({"data.resize_shorter": 10} if crop else {}),
            **fields,
            **overrides,
        }
    )
    return config


# Training images of each class, their test images, and validation images in all.
SIZES = {
    **dict.fromkeys(("imagenet_lt", "places_lt"), ([6, 4, 3], [2, 2, 2], 3)),
    "inaturalist18": ([6, 4, 3], [2, 2, 2], 0),
    "celeba5": ([2, 3, 3, 3, 2], [2] * 5, 6),
    # Four images of each class, cut to ratio 2.
    "tiny_imagenet_lt": ([4, 2, 2], [2, 2, 2], 0),
    "tiered_imagenet_lt": ([10, 10, 5, 5], [50] * 4, 12),
    "cinic10_lt": ([4, 2, 2], [4, 4, 4], 0),
    # Of 8, 9 and 10 images that are not tested on.
    "eurosat_lt": ([8, 5, 4], [2, 2, 2], 0),
    **dict.fromkeys(("svhn_lt", "fashion_mnist_lt"), ([4, 3, 3, 3, 2, 2, 2, 2, 2, 2], [2] * 10, 0)),
    "aptos": ([4] * 5, [1] * 5, 0),
    "isic2020": ([12, 4], [3, 1], 0),
}


@pytest.mark.parametrize("name", MODULES)
def test_its_data_are_read_from_its_layout(name, tmp_path, monkeypatch):
    config = small(name, tmp_path, monkeypatch)
    validate(config)
    experiment = build(config)
    training, dataset = experiment.training, experiment.dataset
    counts, tests, val = SIZES[name]
    assert training.stats.class_counts.tolist() == counts
    assert np.bincount(dataset.test_labels).tolist() == tests
    assert (0 if dataset.val_labels is None else len(dataset.val_labels)) == val
    channels = 1 if name == "fashion_mnist_lt" else 3
    assert training.stats.image_shape == (8, 8, channels)
    crops = {"original_crop", "random_crop"} & {*config.data.augment}
    assert isinstance(training.images, DecodedImages) == bool(crops)


@pytest.mark.every(3)
@pytest.mark.parametrize("name", MODULES)
def test_a_step_of_each_phase_fits_its_data(name, tmp_path, monkeypatch):
    """Traced, not compiled."""
    experiment = build(small(name, tmp_path, monkeypatch))
    shapes, streamed = experiment.step_shapes(), experiment.streams
    for phase in experiment.phases:
        step = experiment.step_fn(phase)
        program = step_program(step, experiment.placement, looped=False, streamed=streamed)
        number = () if streamed else (jax.ShapeDtypeStruct((), np.int32),)
        state, _ = jax.eval_shape(program, *shapes, *number)
        assert jax.tree.map(np.shape, state) == jax.tree.map(np.shape, shapes[0])


# Decoded and cropped with lists; grey and resident; a share to test on.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["inaturalist18", "fashion_mnist_lt", "eurosat_lt"])
def test_it_trains_from_its_layout_to_the_end(name, tmp_path, monkeypatch):
    config = small(name, tmp_path, monkeypatch)
    train_and_evaluate(config, tmp_path / "run")
    assert (tmp_path / "run/summary.json").is_file()


@pytest.mark.parametrize("feed", ["resident", "mapped", "decoded"])
def test_every_feed_has_the_central_crop(feed, tmp_path, monkeypatch):
    """All images that come without random numbers, as PIL cuts them."""
    config = small("places_lt", tmp_path, monkeypatch)
    lists = {f"{s}_list": config.data[f"{s}_list"] for s in ("train", "val", "test")}
    options = dict(name="", path=config.data.path, train_split="", test_split="")
    options["lists"] = Lists(**lists)
    found = load_for(feed, "list", image_size=8, resize_shorter=10, **options)
    whole = load_for(feed, "list", image_size=8, **options)
    for split in ("train", "val", "test"):
        images = getattr(found, f"{split}_images")[:]
        rows = [line.split()[0] for line in Path(lists[f"{split}_list"]).read_text().splitlines()]
        wanted = [central(f"{config.data.path}/{row}") for row in rows]
        np.testing.assert_array_equal(images, wanted)
        assert (images != getattr(whole, f"{split}_images")[:]).any()


def central(path):
    image = Image.open(path)
    w, h = image.size
    w, h = (10, int(10 * h / w)) if w <= h else (int(10 * w / h), 10)
    top, left = round((h - 8) / 2), round((w - 8) / 2)
    resized = image.resize((w, h), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + 8, top + 8)))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"data.resize_shorter": 6}, "data.resize_shorter=6 with data.image_size=8"),
        ({"data.image_size": 0}, "data.resize_shorter=10 with data.image_size=0"),
        ({"data.resize_shorter": 0}, "data.augment has random_crop, so data.resize_shorter=0"),
        ({"data.augment": ("random_crop", "original_crop")}, "crops every image twice"),
    ],
)
def test_crops_that_do_not_fit_are_refused(overrides, message, tmp_path, monkeypatch):
    config = small("inaturalist18", tmp_path, monkeypatch, **overrides)
    with pytest.raises(ConfigError, match=re.escape(message)):
        validate(config)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"data.feed": "mapped"}, "random_crop, which crops images where they are decoded, but data.feed=mapped"),
        ({"data.source": "svhn"}, "but data.source=svhn has no encoded images; legal: data.source=folder or list"),
        ({"data.source": "svhn", "data.augment": ("flip",)}, "data.resize_shorter=10 is for image files, which data.source=svhn has not"),
    ],
)  # fmt: skip
def test_crops_need_image_files(overrides, message, tmp_path, monkeypatch):
    config = small("inaturalist18", tmp_path, monkeypatch, **overrides)
    with pytest.raises(ConfigError, match=re.escape(message)):
        build(config)


def test_every_argument_is_checked():
    for module, key in itertools.product(MODULES.values(), ("nope=1", "epochs=x", "method=nope")):
        with pytest.raises(ConfigError, match="config argument"):
            module.get_config(key)
    with pytest.raises(ConfigError, match="augment='nope' is unknown"):
        celeba5.get_config("augment=nope")
    assert eurosat_lt.get_config("folder=2750").data.train_split == "2750"
