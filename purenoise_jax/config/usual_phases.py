"""Lays out the phases of methods over a run, as their files say.

At 200 epochs, as in the papers on CIFAR: warm-up over 5, the learning rate drops at 160 and 180,
deferred methods begin at 160, and a second stage follows after 200. Other data have other times.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from purenoise_jax.config.phase_fields import make_phase
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods import METHODS, UsualPhase, as_method, build_recipe
from purenoise_jax.methods.method import DEFERRED
from purenoise_jax.methods.schedules import COSINE
from purenoise_jax.runtime.errors import ConfigError, unknown

# Fields of a phase's own schedule that are lengths.
LENGTHS = ("warmup_epochs", "milestones")
# The head whose logits only some methods scale.
COSINES = "cosine"


@dataclasses.dataclass(frozen=True)
class Times:
    """Times of a schedule, in epochs of a training of `epochs`; other lengths scale them.

    Attributes:
        epochs: of the training.
        warmup: epochs of the warm-up.
        drops: epochs at which the learning rate drops; () = it follows a cosine.
        deferred: first epoch of deferred methods.
    """

    epochs: int
    warmup: int
    drops: tuple[int, ...]
    deferred: int


CIFAR_TIMES = Times(200, warmup=5, drops=(160, 180), deferred=160)


def parse_methods(text: str) -> tuple[str, ...]:
    """Reads names of methods joined by +.

    Raises:
        ConfigError: a name is unknown, or given twice.
    """
    names = tuple(text.split("+"))
    for name in names:
        if name not in METHODS:
            raise unknown("config argument method", name, METHODS)
        if names.count(name) > 1:
            raise ConfigError(f"config argument method={text} names {name} twice")
    return names


def lay_out(
    config: ConfigDict, names: Sequence[str], epochs: int, times: Times = CIFAR_TIMES
) -> None:
    """Sets phases, schedule and model of a config for methods.

    Methods of the training take part from their start to its end, or to the start of a method that
    replaces them; where none does, training is plain (`erm`). A second stage follows the training,
    with its own methods only.

    Args:
        config: changed in place.
        names: keys of `METHODS`.
        epochs: of the training, at least 1.
        times: of the schedule, which are scaled to `epochs`.

    Raises:
        ConfigError: there are too few epochs for a method, two methods have different second
            stages, or a second stage would train on cosines that no method scales.
    """
    if epochs < 1:
        raise ConfigError(f"config argument epochs={epochs} must be at least 1")
    usual = {name: as_method(METHODS[name]).phase for name in names}
    # At least one epoch remains for the deferred methods, and one between the drops.
    deferred = _scaled(times.deferred, times, epochs)
    drops: list[int] = []
    for drop in times.drops:
        first = _scaled(drop, times, epochs)
        drops.append(max(round(drop * epochs / times.epochs), drops[-1] + 1) if drops else first)
    config.num_epochs = epochs
    config.optimizer.warmup_epochs = round(times.warmup * epochs / times.epochs)
    # A run of few epochs ends before the last drops.
    config.optimizer.milestones = tuple(e for e in drops if e < epochs)
    if not times.drops:
        config.optimizer.schedule = COSINE
    config.checkpoint.epochs = (deferred,)
    config.init_epoch = deferred

    in_training = {name: phase for name, phase in usual.items() if phase.start < 1}
    starts = {name: _start(name, phase, times, epochs) for name, phase in in_training.items()}
    phases = {}
    for start in sorted({0, *starts.values()}):
        begun = [name for name in names if name in starts and starts[name] <= start]
        ended = {old for name in begun for old in as_method(METHODS[name]).replaces}
        active = tuple(name for name in begun if name not in ended)
        label = {0: "initial", deferred: "deferred"}.get(start, f"from_{start}")
        phases[label] = make_phase(start, _listed(active) or ("erm",))
    second = {name: phase for name, phase in usual.items() if phase.start >= 1}
    if second:
        taking_part = tuple(n for n in names if n in second or usual[n].all_stages)
        phases["second_stage"] = _second_stage(second, _listed(taking_part), epochs)
        config.num_epochs = epochs + _second_epochs(second, epochs)
        config.checkpoint.epochs = (deferred, epochs)
        config.init_epoch = epochs
    config.phases = ConfigDict(phases)
    for name in names:
        for field, value in as_method(METHODS[name]).model.items():
            config.model[field] = value
    if second and config.model.head == COSINES:
        _refuse_unscaled_cosines(names, taking_part)


def draws_by_class(methods: Sequence[str]) -> bool:
    """True if the methods of a phase draw images with probabilities by class."""
    level = np.full(1, 0.5, np.float32)
    # A class as rare as can be, because some methods are refused without one.
    stats = DataStats(np.array([10**6, 1]), (1, 1, 1), *[level] * 6)
    return build_recipe(methods, stats, {}).class_probs is not None


def _refuse_unscaled_cosines(names: Sequence[str], second: Sequence[str]) -> None:
    """Refuses a second stage whose softmax would be that of cosines, which lie in [-1, 1].

    Args:
        names: all methods of the run.
        second: those of its second stage.
    """
    scaling = [name for name in names if as_method(METHODS[name]).model.get("head") == COSINES]
    if scaling and not set(scaling) & set(second):
        training = next(name for name in second if as_method(METHODS[name]).phase.start >= 1)
        raise ConfigError(
            f"config argument method={'+'.join(names)}: {scaling[0]} scales the cosines of its "
            f"head, and {training}, which would train that head after it, does not; legal: one of "
            "them"
        )


def _scaled(epoch: int, times: Times, epochs: int) -> int:
    """An epoch of a schedule in a training of another length, in 1 .. epochs - 1."""
    return max(min(round(epoch * epochs / times.epochs), epochs - 1), 1)


def _start(name: str, phase: UsualPhase, times: Times, epochs: int) -> int:
    if not phase.start:
        return 0
    if epochs < 2:
        raise ConfigError(
            f"config argument epochs={epochs} leaves no epoch for {name} after plain "
            "training; legal: at least 2"
        )
    if phase.start == DEFERRED.start:
        return _scaled(times.deferred, times, epochs)
    return max(min(round(phase.start * epochs), epochs - 1), 1)


def _listed(names: Sequence[str]) -> tuple[str, ...]:
    """The names as phases list them, each once."""
    return tuple(dict.fromkeys(as_method(METHODS[name]).listed_as or name for name in names))


def _second_epochs(second: Mapping[str, UsualPhase], epochs: int) -> int:
    return max(1, round(max(phase.epochs for phase in second.values()) * epochs))


def _second_stage(
    second: Mapping[str, UsualPhase], taking_part: tuple[str, ...], epochs: int
) -> ConfigDict:
    (first, phase), *others = second.items()
    for other, its_phase in others:
        if its_phase != phase:
            raise ConfigError(
                f"methods {first} and {other} have different second stages; use one of them, or "
                "write the phases into a config file"
            )
    length = _second_epochs(second, epochs)

    def scaled(share: float | tuple[float, ...]) -> Any:
        if isinstance(share, tuple):
            # Drops that a short stage has no room for are left out.
            ends = sorted({round(each * length) for each in share})
            return tuple(end for end in ends if 0 < end < length)
        return min(round(share * length), length - 1)

    schedule = {
        name: scaled(value) if name in LENGTHS else value for name, value in phase.schedule.items()
    }
    if schedule.get("milestones"):
        schedule["warmup_epochs"] = min(schedule.get("warmup_epochs", 0), schedule["milestones"][0])
    own: dict[str, Any] = {"reset": phase.reset}
    if phase.learning_rate:
        own |= {"learning_rate": phase.learning_rate, **schedule}
    return make_phase(epochs, taking_part, **own)
