"""Every config field: its default, its legal values, and whether a started run may change it.

Config files start from `default_config()`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from purenoise_jax.config.data_fields import DATA_FIELDS
from purenoise_jax.config.field import Field
from purenoise_jax.config.phase_fields import PHASE_FIELDS, make_phase
from purenoise_jax.data.longtail import MAX_SEED
from purenoise_jax.methods import METHODS, arguments_of, frozen_networks
from purenoise_jax.methods.optimizer import OPTIMIZERS
from purenoise_jax.methods.schedules import SCHEDULES
from purenoise_jax.models import DTYPES, HEADS, MODELS, NORMS, PROJECTORS, REMATS
from purenoise_jax.models.norm import AUX_STARTS, NOISE_GRADS
from purenoise_jax.runtime.constraints import (
    Epochs,
    Integer,
    OneOf,
    Real,
    Switch,
    Text,
)
from purenoise_jax.runtime.numerics import MATMUL_PRECISIONS

MAX_EPOCHS = 1_000_000  # the learning rate of each is held in memory
OPTIONAL = "optional"
EVAL_TEST = ("always", "end", "never", OPTIONAL)
# Metrics of `checkpoint.best`; the best of "nll" is the smallest.
NONE = "none"
BEST = (NONE, "balanced_accuracy", "accuracy", "geometric_mean", "nll")


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
        "with init_from: completed epochs of the checkpoint to start from; 0 = only the network of "
        "its newest one is taken over, and a head for other classes is re-initialised",
        Integer(0),
        fixed=False,
    ),
    "init_aux_bn": Field(
        "fresh",
        "with init_from a run without aux_bn, or model.pretrained: noise layers are fresh, or "
        "copies of the others",
        OneOf(AUX_STARTS),
        fixed=False,
    ),
    **DATA_FIELDS,
    "model.name": Field("wrn28_10", "network", OneOf(MODELS)),
    "model.head": Field(
        "linear",
        "classifier; scaled = linear, times one scale per class; cosine = features and weights "
        "scaled to length 1, no bias, for methods that scale the cosines, as ldam does; "
        "scaled_cosine = the same times one scale that trains",
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
    "model.dropout": Field(
        -1.0,
        "share of the activations that a wide ResNet drops in training; -1 = 0.3, as published",
        Real(0, 1, below=True, or_minus_one=True),
        absent=-1.0,
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
        "learning rate after the warm-up: drops at milestones, or a cosine that ends at 0 with the "
        "run, or where its second stage begins",
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
        "the test set is evaluated whenever the validation images are, only at the end, or never; "
        "the numbers are then those of the validation images; optional = at the end, and data with "
        "neither test nor validation images are not refused",
        OneOf(EVAL_TEST),
        fixed=False,
        absent="always",
    ),
    "eval.train": Field(
        False,
        "every evaluation also classifies the training images, as they are stored: not augmented "
        "and not mixed; costs a forward pass of each",
        Switch(),
        fixed=False,
        absent=False,
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
    """All fields by dotted path: those of this module, and those that the methods have.

    The arguments and frozen networks of the methods are read from `METHODS` at each access, so that
    a config file may add a method of its own there.
    """

    def __getitem__(self, path: str) -> Field:
        parts = path.split(".")
        if parts[0] == "frozen" and len(parts) == 2:
            return _frozen_field(frozen_networks()[parts[1]])
        if parts[0] != "method" or len(parts) != 3:
            return _STATIC_FIELDS[path]
        argument = arguments_of(METHODS[parts[1]])[parts[2]]
        return Field(argument.default, argument.help, argument.legal, absent=argument.absent)

    def __iter__(self) -> Iterator[str]:
        yield from _STATIC_FIELDS
        yield from (f"frozen.{name}" for name in frozen_networks())
        for method in METHODS:
            yield from (f"method.{method}.{name}" for name in arguments_of(METHODS[method]))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _frozen_field(users: Mapping[str, str]) -> Field:
    """The field of a frozen network: method that uses it -> usual method of its run."""
    usual = ", ".join(dict.fromkeys(users.values()))
    return Field(
        "",
        f"workdir of a run of the same network, usually with method={usual}, which "
        f"{', '.join(users)} uses and does not train",
        Text(),
        # The network itself is compared, by its digest.
        fixed=False,
    )


FIELDS = _Fields()


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
