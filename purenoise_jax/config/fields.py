"""Every config field: its default, its legal values, and whether a started run may change it.

Config files start from `default_config()`.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from purenoise_jax.checkpoint.init_transforms import RESETS
from purenoise_jax.config.resolve import AUTO
from purenoise_jax.data.augment.compose import AUGMENTATIONS
from purenoise_jax.data.feed import FEEDS, ON_BAD
from purenoise_jax.data.longtail import MAX_SEED, PROFILES, RULES
from purenoise_jax.data.sources.lists import REPEATS
from purenoise_jax.data.sources.registry import SOURCES
from purenoise_jax.data.sources.resize import RESIZES
from purenoise_jax.data.training_set import NORMALIZE
from purenoise_jax.data.view import CROPS
from purenoise_jax.methods import METHODS, arguments_of
from purenoise_jax.methods.optimizer import OPTIMIZERS
from purenoise_jax.methods.schedules import SCHEDULES
from purenoise_jax.models import DTYPES, HEADS, MODELS, NORMS, PROJECTORS, REMATS
from purenoise_jax.models.norm import AUX_STARTS, NOISE_GRADS
from purenoise_jax.runtime.constraints import (
    ALWAYS,
    Constraint,
    Epochs,
    Integer,
    Names,
    OneOf,
    PerChannel,
    Real,
    Switch,
    Text,
)
from purenoise_jax.runtime.numerics import MATMUL_PRECISIONS

MAX_EPOCHS = 1_000_000  # the learning rate of each is held in memory
MAX_SIDE = 16_384
MAX_OPS = 100
MAX_WORKERS = 1024
EVAL_TEST = ("always", "end")
# Metrics of `checkpoint.best`; the best of "nll" is the smallest.
NONE = "none"
BEST = (NONE, "balanced_accuracy", "accuracy", "geometric_mean", "nll")


@dataclasses.dataclass(frozen=True)
class Field:
    """One config field.

    Attributes:
        default: its value in `default_config`.
        help: its meaning, for `--help`.
        legal: its legal values.
        fixed: part of the definition of a run: hashed, and not to be changed after the start.
        absent: for a field that came after the first release, the value of runs that were started
            without it. Such a field is compared and hashed only if it has another value, so that
            older runs and their hashes stay valid. It does not change when the default changes.
    """

    default: Any
    help: str
    legal: Constraint
    fixed: bool = True
    absent: Any = ALWAYS


_STATIC_FIELDS: dict[str, Field] = {
    "seed": Field(
        0, "random seed for everything but the choice of the subset", Integer(0, MAX_SEED)
    ),
    "num_epochs": Field(
        200,
        "number of epochs; a finished run continues if started again with more, unless its rate "
        "follows a cosine",
        Integer(1, MAX_EPOCHS),
        fixed=False,
    ),
    "batch_size": Field(128, "images per step, over all devices", Integer(1)),
    "dtype": Field(
        "float32",
        "type of activations; moments, statistics and parameters are float32",
        OneOf(DTYPES),
    ),
    "matmul_precision": Field(
        "default",
        "precision of matrix products and convolutions in float32; default = the device's, which "
        "on recent NVIDIA GPUs is TF32, with 10 bits of mantissa",
        OneOf(MATMUL_PRECISIONS),
        absent="default",
    ),
    "num_devices": Field(0, "number of devices; 0 = all", Integer(0), fixed=False),
    "steps_per_call": Field(
        0, "steps dispatched per call; 0 = 1 on a CPU, otherwise 50", Integer(0), fixed=False
    ),
    "init_from": Field(
        "", "workdir of a run to start from instead of from random parameters", Text(), fixed=False
    ),
    "init_epoch": Field(
        160,
        "with init_from: completed epochs of the checkpoint to start from",
        Integer(1),
        fixed=False,
    ),
    "init_aux_bn": Field(
        "fresh",
        "with init_from a run without aux_bn, or model.pretrained: noise layers are fresh, or "
        "copies of the others",
        OneOf(AUX_STARTS),
        fixed=False,
    ),
    "data.source": Field("auto", "source of the images", OneOf(SOURCES)),
    "data.name": Field("cifar10", "name of the data set, for sources that hold several", Text()),
    "data.path": Field("", "file or folder of the source", Text(), fixed=False),
    "data.train_split": Field(
        "", "training split of tfds, or training folder; '' = train", Text(), absent=""
    ),
    "data.test_split": Field(
        "",
        "test split of tfds, or test folder; '' = test, or validation if tfds has no test",
        Text(),
        absent="",
    ),
    "data.train_list": Field(
        "",
        "of source=list: training images, as lines 'path label' or a .csv table",
        Text(),
        fixed=False,
        absent="",
    ),
    "data.val_list": Field(
        "", "of source=list: validation images; '' = none", Text(), fixed=False, absent=""
    ),
    "data.test_list": Field(
        "", "of source=list: test images; '' = none", Text(), fixed=False, absent=""
    ),
    "data.path_column": Field(
        "path", "column of .csv lists with the paths below data.path", Text(), absent="path"
    ),
    "data.label_column": Field(
        "label",
        "column of .csv lists with the label, an integer or a name; or several with commas, of "
        "which an image has one: 1 and not 0 or -1",
        Text(),
        absent="label",
    ),
    "data.path_suffix": Field(
        "", "appended to every path of the lists, for example .png", Text(), absent=""
    ),
    "data.path_parts": Field(
        0, "parts at the end of every path of the lists that count; 0 = all", Integer(0), absent=0
    ),
    "data.repeats": Field(
        "refuse",
        "an image that a list names twice, or the test list and the training list",
        OneOf(REPEATS),
        absent="refuse",
    ),
    "data.image_size": Field(
        0, "resize to this height and width; 0 = as stored", Integer(0, MAX_SIDE)
    ),
    "data.resize": Field(
        "squash",
        "with image_size, images that are no squares: both sides scaled, the largest square in the "
        "middle, or the longer side scaled and the rest black",
        OneOf(RESIZES),
        absent="squash",
    ),
    "data.resize_shorter": Field(
        0,
        "resize the shorter side to this, and cut image_size out of the centre, or anywhere with "
        "random_crop; 0 = the whole image is resized to a square",
        Integer(0, MAX_SIDE),
        absent=0,
    ),
    "data.imbalance_ratio": Field(
        0.0,
        "size of the largest class over the smallest; 0 = 100 if a subset is cut",
        Real(1, or_zero=True),
    ),
    "data.profile": Field(
        AUTO,
        "profile of class sizes; natural = keep every image; auto = exp for balanced benchmarks "
        "such as CIFAR and wherever imbalance_ratio is given, natural for all other data",
        OneOf((AUTO, *PROFILES)),
    ),
    "data.rule": Field(
        "cao", "images kept of a class: shuffled (Cao et al.) or the first n", OneOf(RULES)
    ),
    "data.seed": Field(
        0,
        "seed of the cao rule, and of the draw of validation and test images",
        Integer(0, MAX_SEED),
    ),
    "data.indices": Field(
        "", "file with the indices of the subset, instead of the rule", Text(), fixed=False
    ),
    "data.limit": Field(
        0,
        "for quick trials: images kept of the largest training class, of the others in "
        "proportion, and of each test class; 0 = all",
        Integer(0),
    ),
    "data.val_fraction": Field(
        0.0,
        "share of each class held out of the training images for validation, drawn by data.seed",
        Real(0, 1, below=True),
        absent=0.0,
    ),
    "data.val_per_class": Field(
        0,
        "instead of a share: images of each class held out; classes without more keep all",
        Integer(0),
        absent=0,
    ),
    "data.folds": Field(
        0,
        "instead of a share: parts that the training images are divided into, one of which is for "
        "validation; 0 = none",
        Integer(0),
        absent=0,
    ),
    "data.fold": Field(0, "with folds: the part for validation, from 0", Integer(0), absent=0),
    "data.test_fraction": Field(
        0.0,
        "share of each class held out of the training images to test with, of data without a test "
        "set, before any validation images",
        Real(0, 1, below=True),
        absent=0.0,
    ),
    "data.feed": Field(
        "auto",
        "images lie on the devices, in a file on the host, or are decoded as they are needed; "
        "auto = on the devices if they fit, otherwise in a file; does not change results",
        OneOf(FEEDS),
        fixed=False,
        absent="auto",
    ),
    "data.workers": Field(
        0,
        "threads that read images with feed=mapped or decoded; 0 = one per core; does not change "
        "results",
        Integer(0, MAX_WORKERS),
        fixed=False,
        absent=0,
    ),
    "data.on_bad": Field(
        "stop",
        "an image file that cannot be read, at the start or later, or has changed: stop the run, "
        "or skip the file and list it in bad_images.txt",
        OneOf(ON_BAD),
        fixed=False,
        absent="stop",
    ),
    "data.augment": Field(
        ("flip", "crop", "cutout", "simclr"),
        "augmentations, applied in this order in pixel space",
        Names((*AUGMENTATIONS, *CROPS)),
    ),
    "data.crop_padding": Field(
        4, "pixels of zero padding around the image before a crop", Integer(0, MAX_SIDE)
    ),
    "data.cutout_size": Field(
        16, "side of the hole in pixels; odd sizes are rounded down to even", Integer(2, MAX_SIDE)
    ),
    "data.rotation_degrees": Field(
        15.0, "largest angle of rotation, to both sides", Real(0, 180), absent=15.0
    ),
    "data.randaugment_ops": Field(
        2, "operations of randaugment per image", Integer(1, MAX_OPS), absent=2
    ),
    "data.randaugment_magnitude": Field(
        9, "level of all operations of randaugment", Integer(0, 30), absent=9
    ),
    "data.augmix_severity": Field(
        3, "augmix draws from this many of its 10 levels, the mildest", Integer(1, 10), absent=3
    ),
    "data.normalize": Field(
        AUTO,
        "source of the mean and standard deviation that images are normalised with; auto = the "
        "customary constants for CIFAR, train_subset for all other data",
        OneOf((AUTO, *NORMALIZE)),
    ),
    "data.normalize_mean": Field(
        (),
        "mean for normalize=explicit, one number per channel",
        PerChannel(Real(-math.inf)),
    ),
    "data.normalize_std": Field(
        (),
        "standard deviation for normalize=explicit, one number per channel",
        PerChannel(Real(0, above=True)),
    ),
    "model.name": Field("wrn28_10", "network", OneOf(MODELS)),
    "model.head": Field(
        "linear",
        "classifier; scaled = linear, times one scale per class; cosine = features and weights "
        "scaled to length 1, no bias",
        OneOf(HEADS),
        absent="linear",
    ),
    "model.projector": Field(
        "none",
        "layers on the features for methods that compare two views of an image",
        OneOf(PROJECTORS),
        absent="none",
    ),
    "model.projector_width": Field(
        0,
        "length of the projector's output; 0 = 2048 with vicreg, otherwise 128",
        Integer(0, 65536),
        absent=0,
    ),
    "model.norm": Field("dar_bn", "normalisation layer", OneOf(NORMS)),
    "model.noise_grad": Field(
        "auto",
        "gradients of noise rows that the norms stop; auto = affine_stop with dar_bn, otherwise "
        "none (no gradient is stopped)",
        OneOf(("auto", *NOISE_GRADS)),
    ),
    "model.remat": Field(
        "none",
        "activations that the backward pass computes again instead of keeping them in memory: "
        "those within each norm, or within each block",
        OneOf(REMATS),
        absent="none",
    ),
    "model.pretrained": Field(
        "",
        "safetensors file with weights of torchvision or timm to start from instead of from "
        "random parameters",
        Text(),
        fixed=False,
    ),
    "optimizer.name": Field("sgd", "optimiser", OneOf(OPTIMIZERS)),
    "optimizer.learning_rate": Field(0.1, "learning rate after the warm-up", Real(0, above=True)),
    "optimizer.head_learning_rate": Field(
        0.0,
        "learning rate of the head after the warm-up, with the schedule of the run; 0 = "
        "learning_rate",
        Real(0),
        absent=0.0,
    ),
    "optimizer.momentum": Field(0.9, "momentum of sgd", Real(0, 1, below=True)),
    "optimizer.nesterov": Field(
        False, "sgd has Nesterov's momentum instead of heavy-ball momentum", Switch(), absent=False
    ),
    "optimizer.weight_decay": Field(
        2e-4,
        "weight decay of every parameter; decoupled with adamw, otherwise part of the gradient",
        Real(0),
    ),
    "optimizer.clip_norm": Field(
        0.0,
        "the gradient is scaled down to this norm, before weight decay is added; 0 = it is not",
        Real(0),
        absent=0.0,
    ),
    "optimizer.schedule": Field(
        "step",
        "learning rate after the warm-up: drops at milestones, or a cosine that ends at 0",
        OneOf(SCHEDULES),
        absent="step",
    ),
    "optimizer.warmup_epochs": Field(
        5, "epochs of linear warm-up, in steps of one epoch", Integer(0)
    ),
    "optimizer.milestones": Field(
        (160, 180),
        "epochs at which the learning rate drops; () = none, as a cosine needs",
        Epochs(increasing=True),
    ),
    "optimizer.gamma": Field(0.01, "factor of each drop of the learning rate", Real(0, above=True)),
    "checkpoint.epochs": Field(
        (160,),
        "completed epochs whose checkpoints are kept for good, besides the last",
        Epochs(),
        fixed=False,
    ),
    "checkpoint.every_epochs": Field(
        10, "epochs between rolling checkpoints; 0 = none", Integer(0), fixed=False
    ),
    "checkpoint.every_steps": Field(
        0, "steps between rolling checkpoints within epochs; 0 = none", Integer(0), fixed=False
    ),
    "checkpoint.keep": Field(2, "number of rolling checkpoints to keep", Integer(1), fixed=False),
    "checkpoint.best": Field(
        "balanced_accuracy",
        "metric of the validation images by which the best checkpoint is kept as well; without "
        "validation images there is none",
        OneOf(BEST),
        fixed=False,
        absent=NONE,
    ),
    "fresh": Field(
        False,
        "start from scratch and move existing checkpoints to quarantine/; a job that SLURM "
        "restarts does so only once",
        Switch(),
        fixed=False,
    ),
    "report": Field(True, "write report.html at the end", Switch(), fixed=False),
    "eval.every_epochs": Field(
        5, "epochs between evaluations; 0 = only at the end", Integer(0), fixed=False
    ),
    "eval.test": Field(
        "always",
        "the test set is evaluated whenever the validation images are, or only at the end",
        OneOf(EVAL_TEST),
        fixed=False,
        absent="always",
    ),
    "eval.patience": Field(
        0,
        "evaluations of the last phase in a row without a better one by checkpoint.best, after "
        "which the run ends; 0 = it never ends early",
        Integer(0),
        fixed=False,
        absent=0,
    ),
    "eval.batch_size": Field(
        512,
        "most images per forward pass; does not change results",
        Integer(1),
        fixed=False,
    ),
}


class _Fields(Mapping[str, Field]):
    """All fields by dotted path: those of this module, and the arguments of every method.

    The arguments are read from the signatures of the methods at each access, so that a config file
    may add a method of its own to `METHODS`.
    """

    def __getitem__(self, path: str) -> Field:
        parts = path.split(".")
        if parts[0] != "method" or len(parts) != 3:
            return _STATIC_FIELDS[path]
        argument = arguments_of(METHODS[parts[1]])[parts[2]]
        return Field(
            argument.default, argument.help, argument.legal, argument.fixed, argument.absent
        )

    def __iter__(self) -> Iterator[str]:
        yield from _STATIC_FIELDS
        for method in METHODS:
            yield from (f"method.{method}.{name}" for name in arguments_of(METHODS[method]))

    def __len__(self) -> int:
        return sum(1 for _ in self)


FIELDS = _Fields()


# Fields of each entry of `phases`, whose number is up to the config.
PHASE_FIELDS: dict[str, Field] = {
    "start_epoch": Field(0, "first epoch of the phase, counted from 0", Integer(0)),
    "methods": Field(("erm",), "methods that train from then on", Names(METHODS, needed=True)),
    "reset": Field(
        (),
        "parts that are reset to fresh values at the start of the phase",
        Names(RESETS),
        absent=(),
    ),
    "learning_rate": Field(
        0.0,
        "0 = the schedule of the run continues; above 0 = the phase has its own, with this rate",
        Real(0),
        absent=0.0,
    ),
    "head_learning_rate": Field(
        0.0,
        "learning rate of the head in the phase's own schedule; 0 = learning_rate of the phase",
        Real(0),
        absent=0.0,
    ),
    "schedule": Field("step", "the phase's own schedule", OneOf(SCHEDULES), absent="step"),
    "warmup_epochs": Field(0, "warm-up epochs of the phase's own schedule", Integer(0), absent=0),
    "milestones": Field(
        (),
        "drops of the phase's own schedule, in epochs after its start",
        Epochs(increasing=True),
        absent=(),
    ),
    "gamma": Field(
        0.1, "factor of drops in the phase's own schedule", Real(0, above=True), absent=0.1
    ),
    "weight_decay": Field(
        -1.0,
        "weight decay of the phase; -1 = that of the run",
        Real(0, or_minus_one=True),
        absent=-1.0,
    ),
}


def make_phase(start_epoch: int, methods: tuple[str, ...], **own: Any) -> ConfigDict:
    """Makes a phase of a config, with defaults for all fields that are not given.

    Args:
        start_epoch: its first epoch, counted from 0.
        methods: that train from then on.
        **own: other fields of `PHASE_FIELDS`, such as `reset` or `learning_rate`.
    """
    return ConfigDict(phase_values({"start_epoch": start_epoch, "methods": methods, **own}))


def phase_values(phase: Mapping[str, Any] | ConfigDict) -> dict[str, Any]:
    """Returns all fields of a phase, with defaults for those that a config leaves out."""
    return {name: phase.get(name, field.default) for name, field in PHASE_FIELDS.items()}


def field_of(path: str) -> Field | None:
    """Returns the field at a dotted path, those of phases included; None if there is none."""
    if path.startswith("phases.") and path.count(".") == 2:
        return PHASE_FIELDS.get(path.rpartition(".")[2])
    return FIELDS.get(path)


def default_config() -> ConfigDict:
    """Returns all fields at their defaults: CIFAR-10-LT with empirical risk minimisation."""
    config = ConfigDict()
    for path, field in FIELDS.items():
        *parents, leaf = path.split(".")
        node = config
        for name in parents:
            if name not in node:
                node[name] = ConfigDict()
            node = node[name]
        node[leaf] = field.default
    config.phases = ConfigDict({"initial": make_phase(0, ("erm",))})
    return config


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Maps dotted paths to values, for every leaf."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
