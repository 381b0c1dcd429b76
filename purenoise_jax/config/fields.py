"""Every config field: its default, what is legal, and whether a started run may change it.

Config files start from `default_config()`; `validate` refuses a bad value in one line before
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
    refuse_unfinished_schedule,
)
from purenoise_jax.config.resolve import AUTO, resolved
from purenoise_jax.data.augment.compose import AUGMENTATIONS
from purenoise_jax.data.longtail import MAX_SEED, PROFILES, RULES
from purenoise_jax.data.sources.registry import SOURCES
from purenoise_jax.data.training_set import NORMALIZE
from purenoise_jax.methods import METHODS, arguments_of
from purenoise_jax.methods.optimizer import OPTIMIZERS
from purenoise_jax.models import DTYPES, HEADS, MODELS, NORMS
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


@dataclasses.dataclass(frozen=True)
class Field:
    """One config field.

    Attributes:
        default: its value in `default_config`.
        help: what it means, for `--help`.
        legal: what is legal.
        fixed: part of what a run is: hashed, and the same for as long as the run lives.
        absent: for a field that came after the first release, the value that runs without it have.
            Such a field is compared and hashed only where it has another value, so that it leaves
            older runs and their hashes as they are. It stays what it is if the default changes.
    """

    default: Any
    help: str
    legal: Constraint
    fixed: bool = True
    absent: Any = ALWAYS


_STATIC_FIELDS: dict[str, Field] = {
    "seed": Field(0, "of everything random but the choice of the subset", Integer(0, MAX_SEED)),
    "num_epochs": Field(
        200,
        "a finished run may be started again with more",
        Integer(1, MAX_EPOCHS),
        fixed=False,
    ),
    "batch_size": Field(128, "rows of a step, over all devices", Integer(1)),
    "dtype": Field(
        "float32",
        "of activations; moments, statistics and parameters are float32",
        OneOf(DTYPES),
    ),
    "matmul_precision": Field(
        "default",
        "of products and convolutions of float32; default is the device's, which on recent NVIDIA "
        "GPUs is TF32, with 10 bits of mantissa",
        OneOf(MATMUL_PRECISIONS),
        absent="default",
    ),
    "num_devices": Field(0, "0 = all", Integer(0), fixed=False),
    "steps_per_call": Field(
        0, "steps the host hands over at once; 0 = 1 on a CPU, else 50", Integer(0), fixed=False
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
        "with init_from a run without aux_bn: its noise layers are new, or copies of the others",
        OneOf(AUX_STARTS),
        fixed=False,
    ),
    "data.source": Field("auto", "where images come from", OneOf(SOURCES)),
    "data.name": Field("cifar10", "of the data set, for sources that hold several", Text()),
    "data.path": Field("", "file or folder of the source", Text(), fixed=False),
    "data.train_split": Field(
        "", "of tfds or folder: split or folder that trains; '' = train", Text(), absent=""
    ),
    "data.test_split": Field(
        "",
        "of tfds or folder: split or folder of the test; '' = test, with tfds else validation",
        Text(),
        absent="",
    ),
    "data.image_size": Field(
        0, "resize to this height and width; 0 = as stored", Integer(0, MAX_SIDE)
    ),
    "data.imbalance_ratio": Field(
        0.0,
        "largest class over smallest; 0 = not asked for, which comes to 100 where a subset is cut",
        Real(1, or_zero=True),
    ),
    "data.profile": Field(
        AUTO,
        "of class sizes; natural = keep every image; auto = exp for balanced benchmarks such as "
        "CIFAR and wherever a ratio is asked for, natural for all other data",
        OneOf((AUTO, *PROFILES)),
    ),
    "data.rule": Field(
        "cao", "which images of a class: shuffled (Cao et al.) or the first n", OneOf(RULES)
    ),
    "data.seed": Field(0, "of the cao rule", Integer(0, MAX_SEED)),
    "data.indices": Field(
        "", "file with the indices of the subset, instead of the rule", Text(), fixed=False
    ),
    "data.limit": Field(
        0,
        "to try things out: images kept of the largest training class, the others in proportion, "
        "and of each test class; 0 = all",
        Integer(0),
    ),
    "data.augment": Field(
        ("flip", "crop", "cutout", "simclr"),
        "in this order, in pixel space",
        Names(AUGMENTATIONS),
    ),
    "data.crop_padding": Field(
        4, "pixels of zeros around the image before a crop", Integer(0, MAX_SIDE)
    ),
    "data.cutout_size": Field(
        16, "side of the hole, in pixels; an odd one is one smaller", Integer(2, MAX_SIDE)
    ),
    "data.normalize": Field(
        AUTO,
        "whose mean and standard deviation images are normalised with; auto = the customary "
        "constants for CIFAR, train_subset for all other data",
        OneOf((AUTO, *NORMALIZE)),
    ),
    "data.normalize_mean": Field(
        (),
        "for explicit: one number per channel",
        PerChannel(Real(-math.inf)),
    ),
    "data.normalize_std": Field(
        (),
        "for explicit: one number per channel",
        PerChannel(Real(0, above=True)),
    ),
    "model.name": Field("wrn28_10", "network", OneOf(MODELS)),
    "model.head": Field(
        "linear",
        "classifier; cosine = of features and weights of length 1, without a bias",
        OneOf(HEADS),
        absent="linear",
    ),
    "model.norm": Field("dar_bn", "normalisation layer", OneOf(NORMS)),
    "model.noise_grad": Field(
        "auto",
        "what flows back from noise rows through the norms; auto = affine_stop with dar_bn, else "
        "none (nothing is stopped)",
        OneOf(("auto", *NOISE_GRADS)),
    ),
    "optimizer.name": Field("sgd", "optimiser", OneOf(OPTIMIZERS)),
    "optimizer.learning_rate": Field(0.1, "after the warm-up", Real(0, above=True)),
    "optimizer.momentum": Field(0.9, "of sgd", Real(0, 1, below=True)),
    "optimizer.weight_decay": Field(2e-4, "on every parameter, coupled", Real(0)),
    "optimizer.warmup_epochs": Field(5, "linear, epoch by epoch", Integer(0)),
    "optimizer.milestones": Field(
        (160, 180),
        "epochs at which the learning rate drops",
        Epochs(increasing=True),
    ),
    "optimizer.gamma": Field(0.01, "factor of each drop", Real(0, above=True)),
    "checkpoint.epochs": Field(
        (160,),
        "completed epochs that are kept for good, beside the last",
        Epochs(),
        fixed=False,
    ),
    "checkpoint.every_epochs": Field(
        10, "a rolling checkpoint this often; 0 = none", Integer(0), fixed=False
    ),
    "checkpoint.every_steps": Field(
        0, "and this often within epochs; 0 = none", Integer(0), fixed=False
    ),
    "checkpoint.keep": Field(2, "rolling checkpoints kept", Integer(1), fixed=False),
    "fresh": Field(
        False,
        "start from scratch although there are checkpoints, which are moved to quarantine/; a job "
        "that SLURM starts again does so once",
        Switch(),
        fixed=False,
    ),
    "report": Field(True, "write report.html at the end", Switch(), fixed=False),
    "eval.every_epochs": Field(
        5, "evaluate this often, and at the end; 0 = at the end", Integer(0), fixed=False
    ),
    "eval.batch_size": Field(
        512,
        "images of a forward pass, at most; does not change results",
        Integer(1),
        fixed=False,
    ),
}


class _Fields(Mapping[str, Field]):
    """All fields by dotted path: those of this module, and the arguments of every method.

    The latter are read off the methods' signatures each time, so that a config file may add a
    method of its own to `METHODS`.
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

# Of every entry of `phases`, which has as many as a config gives it.
PHASE_FIELDS: dict[str, Field] = {
    "start_epoch": Field(0, "the first epoch of the phase, counted from 0", Integer(0)),
    "methods": Field(("erm",), "that train from then on", Names(METHODS, needed=True)),
    "reset": Field(
        (), "starts anew at the start of the phase, from the run's seed", Names(RESETS), absent=()
    ),
    "learning_rate": Field(
        0.0,
        "0 = the run's schedule goes on; above = the phase has its own, with this rate",
        Real(0),
        absent=0.0,
    ),
    "warmup_epochs": Field(0, "of the phase's own schedule", Integer(0), absent=0),
    "milestones": Field(
        (),
        "of the phase's own schedule, in epochs after its start",
        Epochs(increasing=True),
        absent=(),
    ),
    "gamma": Field(0.1, "of the phase's own schedule", Real(0, above=True), absent=0.1),
}


def make_phase(start_epoch: int, methods: tuple[str, ...], **own: Any) -> ConfigDict:
    """A phase of a config, all fields at their default but those that are given.

    Args:
        start_epoch: its first epoch, counted from 0.
        methods: that train from then on.
        **own: other fields of `PHASE_FIELDS`, such as `reset` or `learning_rate`.
    """
    return ConfigDict(phase_values({"start_epoch": start_epoch, "methods": methods, **own}))


def phase_values(phase: Mapping[str, Any] | ConfigDict) -> dict[str, Any]:
    """All fields of a phase; those that a config leaves out have their defaults."""
    return {name: phase.get(name, field.default) for name, field in PHASE_FIELDS.items()}


def field_of(path: str) -> Field | None:
    """The field at a dotted path, those of phases included; None if there is none."""
    if path.startswith("phases.") and path.count(".") == 2:
        return PHASE_FIELDS.get(path.rpartition(".")[2])
    return FIELDS.get(path)


def default_config() -> ConfigDict:
    """The paper's CIFAR-10-LT run with empirical risk minimisation, all fields at their default."""
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
    """Dotted path -> value for every leaf."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def validate(config: ConfigDict, to_train: bool = True) -> None:
    """Checks every field and what fields must agree on.

    Args:
        config: to check.
        to_train: False for a run of before that is only looked at, which may have been started with
            a schedule that it did not see the end of.

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
    if to_train:
        refuse_unfinished_schedule(config)


def _check(path: str, field: Field, value: Any) -> None:
    legal = field.legal
    if not legal.allows(value):
        raise ConfigError(f"{path}={shown(value)} is not legal; legal: {legal}{legal.hint(value)}")


def _validate_phases(phases: Any, num_epochs: int) -> None:
    if not isinstance(phases, ConfigDict):
        raise ConfigError(
            f"phases={shown(phases)} is not legal; legal: by name, start_epoch and methods of each"
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
                f"{path}.start_epoch={start} must be below num_epochs={num_epochs}, else the phase "
                "never runs; the config argument epochs=N scales the whole schedule"
            )
        if start in starts:
            raise ConfigError(f"{path} and phases.{starts[start]} both start at epoch {start}")
        starts[start] = name
    if 0 not in starts:
        raise ConfigError("phases: none starts at epoch 0")
    ends = dict(itertools.pairwise([*sorted(starts), num_epochs]))
    for start, name in starts.items():
        _validate_schedule(f"phases.{name}", phase_values(phases[name]), ends[start] - start)


def _validate_schedule(path: str, phase: Mapping[str, Any], num_epochs: int) -> None:
    """Refuses a schedule of a phase's own that is not used, or not seen to its end."""
    own = {name: phase[name] for name in ("warmup_epochs", "milestones", "gamma")}
    if not phase["learning_rate"]:
        for name, value in own.items():
            if value != PHASE_FIELDS[name].default:
                raise ConfigError(
                    f"{path}.{name}={value} is used with {path}.learning_rate above 0 only"
                )
        return
    last = max((phase["warmup_epochs"], *(m + 1 for m in phase["milestones"])))
    if last > num_epochs:
        raise ConfigError(
            f"{path}: its schedule of warmup_epochs={phase['warmup_epochs']} and "
            f"milestones={phase['milestones']}, counted from its start, goes beyond its "
            f"{num_epochs} epochs"
        )


def fixed_fields(config: ConfigDict) -> dict[str, Any]:
    """The fields that define what a run computes, by dotted path, resolved; JSON types only."""
    flat = flatten(resolved(config))
    chosen = {p: v for p, v in flat.items() if p not in FIELDS or FIELDS[p].fixed}
    return used_fields(json.loads(json.dumps(chosen)))


def used_fields(fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves out what has no part in a run, so that two runs that compute the same compare equal.

    That is the arguments of methods that no phase names, the ratio where every image is kept, and
    fields that have the value which a run has without them (see `Field.absent`).

    Args:
        fixed: JSON values by dotted path, from `fixed_fields` of this or an earlier version.
    """
    named = _methods(fixed)
    idle = _idle(fixed)

    def is_used(path: str, value: Any) -> bool:
        return path not in idle and _is_argument_of(named, path) and value != _value_without(path)

    return {path: value for path, value in fixed.items() if is_used(path, value)}


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Names the fields in which two runs differ, each with both values.

    Args:
        there: from `fixed_fields`, of this or an earlier version.
        here: from `fixed_fields`.
    """
    there, here = used_fields(there), used_fields(here)
    # What only one run has a use for is left to the difference that it comes from: arguments of a
    # method to the phases, the ratio to the profile.
    idle = _idle(there) | _idle(here)
    named = _methods(there) & _methods(here)
    values = [
        (path, *(side.get(path, _value_without(path, None)) for side in (there, here)))
        for path in sorted({*there, *here} - idle)
        if _is_argument_of(named, path)
    ]
    return [f"{path}: {a!r} there, {b!r} here" for path, a, b in values if a != b]


def config_hash(config: ConfigDict) -> str:
    """Sha256, in hex, over the fixed fields that a run uses and the number of epochs."""
    fields = {**fixed_fields(config), "num_epochs": config.num_epochs}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _idle(fixed: Mapping[str, Any]) -> set[str]:
    """Fields that a run has no use for: the ratio, where every image is kept."""
    return {"data.imbalance_ratio"} if fixed.get("data.profile") == "natural" else set()


def _methods(fixed: Mapping[str, Any]) -> set[str]:
    """The methods that phases name."""
    return {
        method
        for path, methods in fixed.items()
        if path.startswith("phases.") and path.endswith(".methods") and isinstance(methods, list)
        for method in methods
    }


def _is_argument_of(methods: Collection[str], path: str) -> bool:
    """Whether a field belongs to one of the methods, or to none at all."""
    return not path.startswith("method.") or path.split(".")[1] in methods


def _value_without(path: str, always: Any = ALWAYS) -> Any:
    """The value, in JSON's types, of runs that have no such field; `always` if all runs have it."""
    field = field_of(path)
    absent = ALWAYS if field is None else field.absent
    if absent is ALWAYS:
        return always
    return list(absent) if isinstance(absent, tuple) else absent
