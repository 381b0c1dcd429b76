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
from purenoise_jax.methods.cutmix import cutmix
from purenoise_jax.methods.ema import ema
from purenoise_jax.methods.erm import erm
from purenoise_jax.methods.label_smoothing import label_smoothing
from purenoise_jax.methods.ldam import ldam
from purenoise_jax.methods.logit_adjustment import logit_adjusted_loss, post_hoc_logit_adjustment
from purenoise_jax.methods.m2m import m2m
from purenoise_jax.methods.major_feature_weakening import major_feature_weakening
from purenoise_jax.methods.mamix import mamix
from purenoise_jax.methods.manifold_mixup import manifold_mixup
from purenoise_jax.methods.mixup import mixup
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.methods.remix import remix
from purenoise_jax.methods.resampling import class_balanced_sampling
from purenoise_jax.methods.sam import sam
from purenoise_jax.methods.vector_scaling import class_dependent_temperatures, vector_scaling
from purenoise_jax.runtime.errors import ConfigError, unknown

Apply = Callable[..., Recipe]


class Checked(NamedTuple):
    """A method together with a check across its arguments.

    Attributes:
        apply: the method, a function (recipe, stats, *, arguments) -> recipe.
        check: function (arguments by name, batch size) that raises ConfigError before any data are
            read.
    """

    apply: Apply
    check: Callable[[Mapping[str, Any], int], None]


METHODS: dict[str, Apply | Checked] = {
    "erm": erm,
    "rs": class_balanced_sampling,
    # The published name of "rs" if its phase starts later (deferred).
    "drs": class_balanced_sampling,
    "open": Checked(pure_noise.pure_noise, pure_noise.check),
    "append": Checked(appended_noise.append_noise, appended_noise.check),
    "ldam": ldam,
    # Deferred re-weighting, if its phase starts later.
    "drw": class_balanced_weights,
    "sam": sam,
    "ema": ema,
    "crt": classifier_retraining,
    "m2m": m2m,
    "mixup": mixup,
    "manifold_mixup": manifold_mixup,
    "cutmix": cutmix,
    "remix": remix,
    "mamix": mamix,
    "mfw": major_feature_weakening,
    "la": logit_adjusted_loss,
    # The published name of "la" with tau = 1, which is the default of both.
    "balanced_softmax": logit_adjusted_loss,
    "la_post_hoc": post_hoc_logit_adjustment,
    "vs": vector_scaling,
    "cdt": class_dependent_temperatures,
    "label_smoothing": label_smoothing,
}


def arguments_of(method: Apply | Checked) -> dict[str, signatures.Argument]:
    """The arguments of an entry of `METHODS` by name; see `arguments.arguments_of`."""
    return signatures.arguments_of(_apply_of(method))


def check_arguments(name: str, arguments: Mapping[str, Any], batch_size: int) -> None:
    """Checks that the arguments of a method fit together.

    Args:
        name: a key of `METHODS`.
        arguments: all arguments of the method, by name.
        batch_size: rows per step.

    Raises:
        ConfigError: they do not; the message names them.
    """
    method = METHODS[name]
    if isinstance(method, Checked):
        method.check(arguments, batch_size)


def build_recipe(
    names: Sequence[str], stats: DataStats, arguments: Mapping[str, Mapping[str, Any]]
) -> Recipe:
    """Applies methods one after the other to the default recipe.

    Args:
        names: keys of `METHODS`, in the order in which the methods are applied.
        stats: statistics of the training set.
        arguments: by method name; a method without an entry uses its defaults.

    Raises:
        ConfigError: a method or an argument is unknown, an argument is out of range, or two methods
            set the same field of the recipe.
    """
    recipe, setters = Recipe(), dict[str, str]()
    for name in names:
        if name not in METHODS:
            raise unknown("phases.*.methods", name, METHODS)
        given, legal = arguments.get(name, {}), arguments_of(METHODS[name])
        unexpected = sorted(set(given) - set(legal))
        if unexpected:
            raise ConfigError(
                f"method.{name}.{unexpected[0]} is unknown; legal: {', '.join(legal) or 'none'}"
            )
        before, recipe = recipe, _apply_of(METHODS[name])(recipe, stats, **given)
        for field in dataclasses.fields(Recipe):
            old, new = getattr(before, field.name), getattr(recipe, field.name)
            if _extends(new, old):
                continue
            if field.name in setters:
                raise ConfigError(
                    f"methods {setters[field.name]} and {name} both set {field.name} of a step, so "
                    "the second would overwrite the first; use only one of them"
                )
            setters[field.name] = name
    return recipe


def _extends(new: Any, old: Any) -> bool:
    """Returns whether a field keeps its old value: unchanged, or with entries added to it."""
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
