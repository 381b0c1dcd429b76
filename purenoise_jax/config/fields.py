"""Every config field: its default, its legal values, and whether a started run may change it.

Config files start from `default_config()`; `validate` refuses an illegal value in one line before
anything is read, compiled or written.
"""

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from purenoise_jax.checkpoint.init_transforms import RESETS
from purenoise_jax.config.cross_checks import (
    check_fields_agree,
    refuse_drops_of_a_cosine,
    refuse_unfinished_schedule,
)
from purenoise_jax.config.resolve import AUTO, resolved
from purenoise_jax.data.augment.compose import AUGMENTATIONS
from purenoise_jax.data.longtail import MAX_SEED, PROFILES, RULES
from purenoise_jax.data.sources.registry import SOURCES
from purenoise_jax.data.training_set import NORMALIZE
from purenoise_jax.methods import METHODS, arguments_of
from purenoise_jax.methods.optimizer import OPTIMIZERS
from purenoise_jax.methods.schedules import SCHEDULES
from purenoise_jax.models import DTYPES, HEADS, MODELS, NORMS, PROJECTORS
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
from purenoise_jax.runtime.errors import ConfigError, nearest, shown
from purenoise_jax.runtime.numerics import MATMUL_PRECISIONS

MAX_EPOCHS = 1_000_000  # the learning rate of each is held in memory
MAX_SIDE = 16_384
MAX_OPS = 100


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
        "with init_from a run without aux_bn: noise layers are fresh, or copies of the others",
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
    "data.image_size": Field(
        0, "resize to this height and width; 0 = as stored", Integer(0, MAX_SIDE)
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
    "data.seed": Field(0, "seed of the cao rule", Integer(0, MAX_SEED)),
    "data.indices": Field(
        "", "file with the indices of the subset, instead of the rule", Text(), fixed=False
    ),
    "data.limit": Field(
        0,
        "for quick trials: images kept of the largest training class, of the others in "
        "proportion, and of each test class; 0 = all",
        Integer(0),
    ),
    "data.augment": Field(
        ("flip", "crop", "cutout", "simclr"),
        "augmentations, applied in this order in pixel space",
        Names(AUGMENTATIONS),
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
    "optimizer.name": Field("sgd", "optimiser", OneOf(OPTIMIZERS)),
    "optimizer.learning_rate": Field(0.1, "learning rate after the warm-up", Real(0, above=True)),
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

# Fields that earlier versions had, each with the value that is still what a run does. A run is
# compared and hashed as if it had them, so that older runs and their hashes stay valid.
FORMER_FIELDS: dict[str, Any] = {"method.sam.asymmetry": "none"}

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


def validate(config: ConfigDict, to_train: bool = True) -> None:
    """Checks every field, and that fields agree with each other.

    Args:
        config: to check.
        to_train: False for an earlier run that is only read, whose schedule may go beyond its end.

    Raises:
        ConfigError: one line that names the field, its value and what is legal.
    """
    flat = flatten(config)
    for path, field in FIELDS.items():
        if path not in flat:
            raise ConfigError(f"{path} is missing; legal: {field.legal}")
        _check(path, field, flat.pop(path))
    foreign = [path for path in flat if path.partition(".")[0] != "phases"]
    if foreign:
        near = nearest(foreign[0], FIELDS) or "; see --help for all"
        raise ConfigError(f"{foreign[0]} is not a config field{near}")
    _validate_phases(config.get("phases"), config.num_epochs)
    check_fields_agree(config)
    refuse_drops_of_a_cosine("optimizer", config.optimizer, FIELDS["optimizer.gamma"].default)
    if to_train:
        refuse_unfinished_schedule(config)


def _check(path: str, field: Field, value: Any) -> None:
    legal = field.legal
    if not legal.allows(value):
        raise ConfigError(f"{path}={shown(value)} is not legal; legal: {legal}{legal.hint(value)}")


def _validate_phases(phases: Any, num_epochs: int) -> None:
    if not isinstance(phases, ConfigDict):
        raise ConfigError(
            f"phases={shown(phases)} is not legal; legal: start_epoch and methods of each, by name"
        )
    starts: dict[int, str] = {}
    for name, phase in phases.items():
        path = f"phases.{name}"
        keys = set(phase) if isinstance(phase, ConfigDict) else set()
        if not {"start_epoch", "methods"} <= keys <= {*PHASE_FIELDS}:
            legal = ", ".join(PHASE_FIELDS)
            raise ConfigError(f"{path} must have start_epoch and methods; legal: {legal}")
        for leaf, value in phase_values(phase).items():
            _check(f"{path}.{leaf}", PHASE_FIELDS[leaf], value)
        start = phase.start_epoch
        if start >= num_epochs:
            raise ConfigError(
                f"{path}.start_epoch={start} must be below num_epochs={num_epochs}, otherwise "
                "the phase never runs; the config argument epochs=N scales the whole schedule"
            )
        if start in starts:
            raise ConfigError(f"{path} and phases.{starts[start]} both start at epoch {start}")
        starts[start] = name
    if 0 not in starts:
        raise ConfigError("phases: none starts at epoch 0; legal: one phase with start_epoch=0")
    ends = dict(itertools.pairwise([*sorted(starts), num_epochs]))
    for start, name in starts.items():
        _validate_schedule(f"phases.{name}", phase_values(phases[name]), ends[start] - start)


def _validate_schedule(path: str, phase: Mapping[str, Any], num_epochs: int) -> None:
    """Refuses a phase's own schedule that is not used, or goes beyond the phase."""
    own = {name: phase[name] for name in ("schedule", "warmup_epochs", "milestones", "gamma")}
    if not phase["learning_rate"]:
        for name, value in own.items():
            if value != PHASE_FIELDS[name].default:
                raise ConfigError(
                    f"{path}.{name}={value} is used only with {path}.learning_rate above 0"
                )
        return
    refuse_drops_of_a_cosine(path, phase, PHASE_FIELDS["gamma"].default)
    last = max((phase["warmup_epochs"], *(m + 1 for m in phase["milestones"])))
    if last > num_epochs:
        raise ConfigError(
            f"{path}: its schedule of warmup_epochs={phase['warmup_epochs']} and "
            f"milestones={phase['milestones']}, counted from its start, goes beyond its "
            f"{num_epochs} epochs"
        )


def fixed_fields(config: ConfigDict) -> dict[str, Any]:
    """Returns the fields that define a run's results, resolved, by dotted path, as JSON values."""
    flat = flatten(resolved(config))
    chosen = {p: v for p, v in flat.items() if p not in FIELDS or FIELDS[p].fixed}
    return used_fields(json.loads(json.dumps({**FORMER_FIELDS, **chosen})))


def used_fields(fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves out fields without effect, so that two runs that compute the same compare equal.

    These are the arguments of methods that no phase names, the ratio if every image is kept, and
    fields with the value that runs without them have (see `Field.absent`).

    Args:
        fixed: JSON values by dotted path, from `fixed_fields` of this or an earlier version.
    """
    methods = _methods(fixed)
    idle = _idle(fixed)

    def is_used(path: str, value: Any) -> bool:
        return path not in idle and _is_argument_of(methods, path) and value != _value_without(path)

    return {path: value for path, value in fixed.items() if is_used(path, value)}


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Describes the fields in which two runs differ, each with both values.

    Args:
        there: from `fixed_fields`, of this or an earlier version.
        here: from `fixed_fields`.
    """
    there, here = used_fields(there), used_fields(here)
    # A field that only one run uses is not listed, because another field causes that difference:
    # the phases for arguments of a method, the profile for the ratio.
    idle = _idle(there) | _idle(here)
    methods = _methods(there) & _methods(here)
    values = [
        (path, *(side.get(path, _value_without(path, None)) for side in (there, here)))
        for path in sorted({*there, *here} - idle)
        if _is_argument_of(methods, path)
    ]
    return [f"{path}: {a!r} there, {b!r} here" for path, a, b in values if a != b]


def config_hash(config: ConfigDict) -> str:
    """Returns the sha256, in hex, of the fixed fields that a run uses and its number of epochs."""
    fields = {**fixed_fields(config), "num_epochs": config.num_epochs}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _idle(fixed: Mapping[str, Any]) -> set[str]:
    """Returns the fields that a run does not use: the ratio, if every image is kept."""
    return {"data.imbalance_ratio"} if fixed.get("data.profile") == "natural" else set()


def _methods(fixed: Mapping[str, Any]) -> set[str]:
    """Returns the methods that phases name."""
    return {
        method
        for path, methods in fixed.items()
        if path.startswith("phases.") and path.endswith(".methods") and isinstance(methods, list)
        for method in methods
    }


def _is_argument_of(methods: Collection[str], path: str) -> bool:
    """True for an argument of one of the methods, and for fields that are no arguments."""
    return not path.startswith("method.") or path.split(".")[1] in methods


def _value_without(path: str, always: Any = ALWAYS) -> Any:
    """Returns the JSON value of runs without such a field; `always` if all runs have it."""
    field = field_of(path)
    absent = ALWAYS if field is None else field.absent
    if absent is ALWAYS:
        return always
    return list(absent) if isinstance(absent, tuple) else absent
