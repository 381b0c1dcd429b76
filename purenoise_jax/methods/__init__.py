"""Training methods by name."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from purenoise_jax.errors import ConfigError, unknown
from purenoise_jax.methods.appended_noise import append_noise
from purenoise_jax.methods.erm import erm
from purenoise_jax.methods.pure_noise import pure_noise
from purenoise_jax.methods.resampling import balance
from purenoise_jax.recipe import DataStats, Recipe

METHODS: dict[str, Callable[..., Recipe]] = {
    "erm": erm,
    "rs": balance,
    # What "rs" is called when it begins in a later phase.
    "drs": balance,
    "open": pure_noise,
    "append": append_noise,
}


def build_recipe(
    names: Sequence[str], stats: DataStats, arguments: Mapping[str, Mapping[str, Any]]
) -> Recipe:
    """Applies methods one after the other to the default recipe.

    Args:
      names: of `METHODS`, in order.
      stats: of the training set.
      arguments: by method name; a method without an entry has its defaults.

    Raises:
      ConfigError: a method or an argument is unknown, or an argument is out of range.
    """
    recipe = Recipe()
    for name in names:
        if name not in METHODS:
            raise unknown("phases.*.methods", name, METHODS)
        given = arguments.get(name, {})
        legal = list(inspect.signature(METHODS[name]).parameters)[2:]
        foreign = sorted(set(given) - set(legal))
        if foreign:
            raise ConfigError(
                f"method.{name}.{foreign[0]} is unknown; legal: {', '.join(legal) or 'none'}"
            )
        recipe = METHODS[name](recipe, stats, **given)
    return recipe


__all__ = ["METHODS", "build_recipe"]
