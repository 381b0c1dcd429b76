"""The config fields of a phase, of which a config has any number."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from purenoise_jax.checkpoint.init_transforms import RESETS
from purenoise_jax.config.field import Field
from purenoise_jax.methods import METHODS
from purenoise_jax.methods.freezing import FREEZABLE
from purenoise_jax.methods.schedules import SCHEDULES
from purenoise_jax.runtime.constraints import (
    Epochs,
    Integer,
    Names,
    OneOf,
    Real,
)

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
    "freeze": Field(
        (),
        "parts of the network that do not train; the batch norms of all parts then use their "
        "running statistics, which stay as they are",
        Names(FREEZABLE),
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
