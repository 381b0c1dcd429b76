"""Refuses an illegal config in one line, before anything is read, compiled or written."""

import itertools
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from purenoise_jax.config.cross_checks import (
    check_fields_agree,
    refuse_drops_of_a_cosine,
    refuse_unfinished_schedule,
)
from purenoise_jax.config.field import Field
from purenoise_jax.config.fields import FIELDS, flatten
from purenoise_jax.config.phase_fields import PHASE_FIELDS, phase_values
from purenoise_jax.runtime.errors import ConfigError, nearest, shown


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
    names = ("head_learning_rate", "schedule", "warmup_epochs", "milestones", "gamma")
    own = {name: phase[name] for name in names}
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
