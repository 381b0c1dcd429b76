"""Training methods by name."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods import appended_noise, pure_noise
from purenoise_jax.methods import arguments as signatures
from purenoise_jax.methods.class_balanced_weights import class_balanced_weights
from purenoise_jax.methods.classifier_retraining import classifier_retraining
from purenoise_jax.methods.ema import ema
from purenoise_jax.methods.erm import erm
from purenoise_jax.methods.ldam import ldam
from purenoise_jax.methods.m2m import m2m
from purenoise_jax.methods.manifold_mixup import manifold_mixup
from purenoise_jax.methods.mixup import mixup
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.methods.resampling import class_balanced_sampling
from purenoise_jax.methods.sam import sam
from purenoise_jax.runtime.errors import ConfigError, unknown

Apply = Callable[..., Recipe]


class Checked(NamedTuple):
    """A method with a check of arguments that must go together.

    Attributes:
        apply: the method, a function (recipe, stats, *, arguments) -> recipe.
        check: (arguments by name, batch size) -> None, or a ConfigError; before any data are read.
    """

    apply: Apply
    check: Callable[[Mapping[str, Any], int], None]


METHODS: dict[str, Apply | Checked] = {
    "erm": erm,
    "rs": class_balanced_sampling,
    # What "rs" is called when it begins in a later phase.
    "drs": class_balanced_sampling,
    "open": Checked(pure_noise.pure_noise, pure_noise.check),
    "append": Checked(appended_noise.append_noise, appended_noise.check),
    "ldam": ldam,
    # Deferred re-weighting, where its phase begins later.
    "drw": class_balanced_weights,
    "sam": sam,
    "ema": ema,
    "crt": classifier_retraining,
    "m2m": m2m,
    "mixup": mixup,
    "manifold_mixup": manifold_mixup,
}


def arguments_of(method: Apply | Checked) -> dict[str, signatures.Argument]:
    """The arguments of an entry of `METHODS` by name; see `arguments.arguments_of`."""
    return signatures.arguments_of(_apply_of(method))


def check_arguments(name: str, arguments: Mapping[str, Any], batch_size: int) -> None:
    """Refuses arguments of a method that do not go together.

    Args:
        name: of `METHODS`.
        arguments: all of the method, by name.
        batch_size: rows of a step.

    Raises:
        ConfigError: naming them.
    """
    method = METHODS[name]
    if isinstance(method, Checked):
        method.check(arguments, batch_size)


def build_recipe(
    names: Sequence[str], stats: DataStats, arguments: Mapping[str, Mapping[str, Any]]
) -> Recipe:
    """Applies methods one after the other to the default recipe.

    Args:
        names: of `METHODS`, in order.
        stats: of the training set.
        arguments: by method name; a method without an entry has its defaults.

    Raises:
        ConfigError: a method or an argument is unknown, an argument is out of range, or two methods
            set the same field of the recipe.
    """
    recipe, setters = Recipe(), dict[str, str]()
    for name in names:
        if name not in METHODS:
            raise unknown("phases.*.methods", name, METHODS)
        given, legal = arguments.get(name, {}), arguments_of(METHODS[name])
        foreign = sorted(set(given) - set(legal))
        if foreign:
            raise ConfigError(
                f"method.{name}.{foreign[0]} is unknown; legal: {', '.join(legal) or 'none'}"
            )
        before, recipe = recipe, _apply_of(METHODS[name])(recipe, stats, **given)
        for field in dataclasses.fields(Recipe):
            old, new = getattr(before, field.name), getattr(recipe, field.name)
            if _extends(new, old):
                continue
            if field.name in setters:
                raise ConfigError(
                    f"methods {setters[field.name]} and {name} both set {field.name} of a step, so "
                    "that one would undo the other; name one of them"
                )
            setters[field.name] = name
    return recipe


def _extends(new: Any, old: Any) -> bool:
    """Whether a field of a recipe keeps all that it was: the same value, or one with more in it."""
    if isinstance(old, tuple):
        return bool(new[: len(old)] == old)
    if isinstance(old, Mapping):
        return all(name in new and new[name] is value for name, value in old.items())
    if isinstance(old, np.ndarray):
        return isinstance(new, np.ndarray) and np.array_equal(new, old)
    return new is old


def _apply_of(method: Apply | Checked) -> Apply:
    return method.apply if isinstance(method, Checked) else method


__all__ = ["METHODS", "Checked", "arguments_of", "build_recipe", "check_arguments"]
