"""Arguments of a method as its signature declares them: default, legal values and help."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, get_type_hints

from purenoise_jax.runtime.constraints import ALWAYS, Constraint


class Argument(NamedTuple):
    """One argument of a method.

    Attributes:
        default: the value if a config gives none.
        legal: the values that a config may give.
        help: its meaning, for `--help`.
        absent: the value of runs started before the method had it, see `config.field.Field`.
    """

    default: Any
    legal: Constraint
    help: str
    absent: Any = ALWAYS


@functools.cache
def arguments_of(method: Callable[..., Any]) -> dict[str, Argument]:
    """Reads the keyword-only arguments of a method off its signature, by name.

    Args:
        method: a function (recipe, stats, *, name: Annotated[type, legal, help] = default, ...). An
            argument that was added to the method later also gives the value of runs without it:
            Annotated[type, legal, help, absent].

    Raises:
        TypeError: an argument lacks a default, its legal values or its help.

    Example:
        >>> from purenoise_jax.methods.sam import sam
        >>> arguments_of(sam)["rho"].default
        0.05
    """
    hints = get_type_hints(method, include_extras=True)
    found = {}
    for name, parameter in inspect.signature(method).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        metadata: tuple[Any, ...] = getattr(hints[name], "__metadata__", ())
        if parameter.default is inspect.Parameter.empty or len(metadata) not in (2, 3):
            raise TypeError(
                f"{method.__name__}: {name} must be Annotated[type, legal values, help] with a "
                "default"
            )
        found[name] = Argument(parameter.default, *metadata)
    return found
