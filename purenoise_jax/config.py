"""Every config field: its default, what is legal, and whether a started run may change it.

Config files start from `default_config()`; `validate` refuses a bad value in one line before
anything is read, compiled or written.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from purenoise_jax.data.augment import AUGMENTATIONS
from purenoise_jax.data.longtail import MAX_SEED, PROFILES, RULES
from purenoise_jax.data.pipeline import NORMALIZE
from purenoise_jax.data.sources import SOURCES
from purenoise_jax.errors import ConfigError, unknown
from purenoise_jax.methods import METHODS
from purenoise_jax.methods.noise_source import SPACES, STATS
from purenoise_jax.models import DTYPES, MODELS, NORMS
from purenoise_jax.models.norm import AUX_STARTS, NOISE_GRADS
from purenoise_jax.optimizer import OPTIMIZERS


@dataclasses.dataclass(frozen=True)
class Field:
    """One config field.

    Attributes:
      default: its value in `default_config`; its type is the field's type.
      help: what it means, for `--help`.
      legal: what is legal, in words.
      check: tells whether a value of the right type is legal.
      fixed: part of what a run is: hashed, and the same for as long as the run lives.
    """

    default: Any
    help: str
    legal: str
    check: Callable[[Any], bool]
    fixed: bool = True


def _one_of(names: Collection[str]) -> dict[str, Any]:
    # Not copied, so that a config file may add a model or method of its own to its table.
    return {"legal": " | ".join(names), "check": lambda value: value in names}


def _integer(low: int, high: int | None = None) -> dict[str, Any]:
    if high is None:
        return {"legal": f"an integer, at least {low}", "check": lambda value: value >= low}
    return {"legal": f"an integer in {low} .. {high}", "check": lambda value: low <= value <= high}


def _real(low: float, high: float = math.inf, *, above: bool = False, below: bool = False) -> Any:
    def check(value: float) -> bool:
        return (value > low if above else value >= low) and (
            value < high if below else value <= high
        )

    if math.isinf(high):
        return {
            "legal": f"a finite number {'above' if above else 'of at least'} {low:g}",
            "check": check,
        }
    left, right = "(" if above else "[", ")" if below else "]"
    return {"legal": f"a number in {left}{low:g}, {high:g}{right}", "check": check}


def _numbers(legal: str, check: Callable[[float], bool]) -> dict[str, Any]:
    def check_all(values: tuple) -> bool:
        return all(_is_number(v) and math.isfinite(v) and check(v) for v in values)

    return {"legal": legal, "check": check_all}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _epochs(values: tuple) -> bool:
    return all(isinstance(v, int) and not isinstance(v, bool) and v >= 1 for v in values)


TEXT: dict[str, Any] = {"legal": "text", "check": lambda value: True}
SWITCH: dict[str, Any] = {"legal": "True | False", "check": lambda value: True}


def _noise_fields(method: str) -> dict[str, Field]:
    """What every method that draws noise lets the user choose about it."""
    return {
        f"method.{method}.space": Field(
            "pixel", "noise is normalised with the images, or enters raw", **_one_of(SPACES)
        ),
        f"method.{method}.noise_stats": Field(
            "train_subset", "whose mean and standard deviation noise has", **_one_of(STATS)
        ),
        f"method.{method}.mean": Field(
            (),
            "for explicit: one number per channel",
            **_numbers("a tuple of finite numbers", lambda v: True),
        ),
        f"method.{method}.std": Field(
            (),
            "for explicit: one number per channel",
            **_numbers("a tuple of numbers of at least 0", lambda v: v >= 0),
        ),
        f"method.{method}.clip": Field(True, "clip noise to [0, 1]", **SWITCH),
    }


FIELDS: dict[str, Field] = {
    "seed": Field(0, "of everything random but the choice of the subset", **_integer(0, MAX_SEED)),
    "num_epochs": Field(
        200, "a finished run may be started again with more", **_integer(1), fixed=False
    ),
    "batch_size": Field(128, "rows of a step, over all devices", **_integer(1)),
    "dtype": Field(
        "float32",
        "of activations; moments, statistics and parameters are float32",
        **_one_of(DTYPES),
    ),
    "num_devices": Field(0, "0 = all", **_integer(0), fixed=False),
    "steps_per_call": Field(
        0, "steps the host hands over at once; 0 = 1 on a CPU, else 50", **_integer(0), fixed=False
    ),
    "init_from": Field(
        "", "workdir of a run to start from instead of from random parameters", **TEXT, fixed=False
    ),
    "init_epoch": Field(
        160,
        "with init_from: completed epochs of the checkpoint to start from",
        **_integer(1),
        fixed=False,
    ),
    "init_aux_bn": Field(
        "fresh",
        "with init_from a run without aux_bn: its noise layers are new, or copies of the others",
        **_one_of(AUX_STARTS),
        fixed=False,
    ),
    "data.source": Field("auto", "where images come from", **_one_of(SOURCES)),
    "data.name": Field("cifar10", "of the data set, for sources that hold several", **TEXT),
    "data.path": Field("", "file or folder of the source", **TEXT, fixed=False),
    "data.image_size": Field(0, "resize to this height and width; 0 = as stored", **_integer(0)),
    "data.imbalance_ratio": Field(100.0, "largest class over smallest", **_real(1)),
    "data.profile": Field("exp", "of class sizes; natural = keep every image", **_one_of(PROFILES)),
    "data.rule": Field(
        "cao", "which images of a class: shuffled (Cao et al.) or the first n", **_one_of(RULES)
    ),
    "data.seed": Field(0, "of the cao rule", **_integer(0, MAX_SEED)),
    "data.indices": Field(
        "", "file with the indices of the subset, instead of the rule", **TEXT, fixed=False
    ),
    "data.limit": Field(
        0,
        "to try things out: images kept of the largest training class, the others in proportion, "
        "and of each test class; 0 = all",
        **_integer(0),
    ),
    "data.augment": Field(
        ("flip", "crop", "cutout", "simclr"),
        "in this order, in pixel space",
        legal=f"a tuple of {', '.join(AUGMENTATIONS)}, each at most once",
        check=lambda value: set(value) <= set(AUGMENTATIONS) and len(set(value)) == len(value),
    ),
    "data.crop_padding": Field(4, "pixels of zeros around the image before a crop", **_integer(0)),
    "data.cutout_size": Field(16, "side of the hole, in pixels", **_integer(1)),
    "data.normalize": Field(
        "train_subset",
        "whose mean and standard deviation images are normalised with",
        **_one_of(NORMALIZE),
    ),
    "data.normalize_mean": Field(
        (),
        "for explicit: one number per channel",
        **_numbers("a tuple of finite numbers", lambda v: True),
    ),
    "data.normalize_std": Field(
        (),
        "for explicit: one number per channel",
        **_numbers("a tuple of numbers above 0", lambda v: v > 0),
    ),
    "model.name": Field("wrn28_10", "network", **_one_of(MODELS)),
    "model.norm": Field("dar_bn", "normalisation layer", **_one_of(NORMS)),
    "model.noise_grad": Field(
        "auto",
        "what flows back from noise rows through the norms; auto = affine_stop with dar_bn, else "
        "none (nothing is stopped)",
        **_one_of(("auto", *NOISE_GRADS)),
    ),
    "method.open.delta": Field(1 / 3, "ratio between pure noise and natural images", **_real(0, 1)),
    **_noise_fields("open"),
    "method.open.additive_std": Field(
        0.0,
        "0 = pure noise; above = natural images under noise of this standard deviation, in [0, 1]",
        **_real(0),
    ),
    "method.append.share": Field(
        0.25, "appended noise images over natural ones", **_real(0, 1, above=True)
    ),
    **_noise_fields("append"),
    "optimizer.name": Field("sgd", "optimiser", **_one_of(OPTIMIZERS)),
    "optimizer.learning_rate": Field(0.1, "after the warm-up", **_real(0, above=True)),
    "optimizer.momentum": Field(0.9, "of sgd", **_real(0, 1, below=True)),
    "optimizer.weight_decay": Field(2e-4, "on every parameter, coupled", **_real(0)),
    "optimizer.warmup_epochs": Field(5, "linear, epoch by epoch", **_integer(0)),
    "optimizer.milestones": Field(
        (160, 180),
        "epochs at which the learning rate drops",
        legal="a tuple of integers, each at least 1",
        check=_epochs,
    ),
    "optimizer.gamma": Field(0.01, "factor of each drop", **_real(0, above=True)),
    "checkpoint.epochs": Field(
        (160,),
        "completed epochs that are kept for good, beside the last",
        legal="a tuple of integers, each at least 1",
        check=_epochs,
        fixed=False,
    ),
    "checkpoint.every_epochs": Field(
        10, "a rolling checkpoint this often; 0 = none", **_integer(0), fixed=False
    ),
    "checkpoint.every_steps": Field(
        0, "and this often within epochs; 0 = none", **_integer(0), fixed=False
    ),
    "checkpoint.keep": Field(2, "rolling checkpoints kept", **_integer(1), fixed=False),
    "fresh": Field(
        False,
        "start from scratch although there are checkpoints, which are moved to quarantine/; a job "
        "that SLURM restarts continues all the same",
        **SWITCH,
        fixed=False,
    ),
    "report": Field(True, "write report.html at the end", **SWITCH, fixed=False),
    "eval.every_epochs": Field(
        5, "evaluate this often, and at the end; 0 = at the end", **_integer(0), fixed=False
    ),
    "eval.batch_size": Field(
        512,
        "images of a forward pass, at most; does not change results",
        **_integer(1),
        fixed=False,
    ),
}


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
    config.phases = ConfigDict({"initial": {"start_epoch": 0, "methods": ("erm",)}})
    return config


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted path -> value for every leaf."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def validate(config: ConfigDict) -> None:
    """Checks every field and what fields must agree on.

    Raises:
      ConfigError: one line that names the field, its value and what is legal.
    """
    flat = flatten(config)
    for path, field in FIELDS.items():
        if path not in flat:
            raise ConfigError(f"{path} is missing; legal: {field.legal}")
        value = flat.pop(path)
        right_type = type(value) is type(field.default) or (
            isinstance(field.default, float) and type(value) is int
        )
        finite = not isinstance(value, float) or math.isfinite(value)
        if not (right_type and finite and field.check(value)):
            raise ConfigError(f"{path}={value!r} is not legal; legal: {field.legal}")
    _validate_phases(config.phases, config.num_epochs)
    if config.init_from and config.init_epoch >= config.num_epochs:
        raise ConfigError(
            f"init_epoch={config.init_epoch} must be below num_epochs={config.num_epochs}, "
            "else nothing is left to train"
        )
    unknown = [path for path in flat if not path.startswith("phases.")]
    if unknown:
        raise ConfigError(f"{unknown[0]} is not a config field; see --help for all")


def _validate_phases(phases: ConfigDict, num_epochs: int) -> None:
    starts: dict[int, str] = {}
    for name, phase in phases.items():
        path = f"phases.{name}"
        keys = sorted(phase) if isinstance(phase, ConfigDict) else []
        if keys != ["methods", "start_epoch"]:
            raise ConfigError(f"{path} must have start_epoch and methods, and nothing else")
        start, methods = phase.start_epoch, phase.methods
        if type(start) is not int or not start >= 0:
            raise ConfigError(
                f"{path}.start_epoch={start!r} is not legal; legal: an integer, at least 0"
            )
        if start >= num_epochs:
            raise ConfigError(
                f"{path}.start_epoch={start} must be below num_epochs={num_epochs}, else the phase "
                "never runs; the config argument epochs=N scales the whole schedule"
            )
        if not isinstance(methods, tuple) or not methods:
            raise ConfigError(f"{path}.methods={methods!r} must be a tuple of methods")
        wrong = [m for m in methods if m not in METHODS]
        if wrong:
            raise unknown(f"{path}.methods", wrong[0], METHODS)
        if start in starts:
            raise ConfigError(f"{path} and phases.{starts[start]} both start at epoch {start}")
        starts[start] = name
    if 0 not in starts:
        raise ConfigError("phases: none starts at epoch 0")


def fixed_fields(config: ConfigDict) -> dict[str, Any]:
    """The fields that define what a run computes, JSON types only."""
    flat = flatten(config)
    chosen = {p: v for p, v in flat.items() if p not in FIELDS or FIELDS[p].fixed}
    return json.loads(json.dumps(chosen))


def config_hash(config: ConfigDict) -> str:
    """Sha256, in hex, over the fixed fields and the number of epochs."""
    fields = {**fixed_fields(config), "num_epochs": config.num_epochs}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
