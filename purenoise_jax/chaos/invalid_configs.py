"""Illegal values for every config field, derived from its legal values.

The tests and fault injection use them: each must be refused before anything is written.
"""

import math
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import tuple_parser

from purenoise_jax.config.field import Field
from purenoise_jax.config.fields import FIELDS, field_of
from purenoise_jax.config.phase_fields import PHASE_FIELDS
from purenoise_jax.runtime.constraints import (
    MAX_TEXT,
    Epochs,
    Integer,
    Names,
    OneOf,
    PerChannel,
    PerClass,
    Real,
    Switch,
    Text,
)

# The parsers that the command line uses.
_PARSERS: dict[type, Any] = {
    bool: flags.BooleanParser(),
    int: flags.IntegerParser(),
    float: flags.FloatParser(),
    str: flags.ArgumentParser(),
    tuple: tuple_parser.TupleParser(),
}


def field_paths() -> list[str]:
    """Paths of all fields, including those of the phase `initial` of the default config."""
    return [*FIELDS, *(f"phases.initial.{leaf}" for leaf in PHASE_FIELDS)]


def bad_values(path: str) -> list[Any]:
    """Returns at least six illegal values for a field, each illegal for a different reason.

    Args:
        path: dotted path of the field.

    Raises:
        KeyError: there is no such field.
    """
    values: list[Any] = [None, {}, 1j, object]
    match _field(path).legal:
        case Switch():
            values += [0, 1, 2, 0.5, "maybe", "True", (True,)]
        case Integer(low, high):
            values += [low - 1, high + 1, 10**40, True, low + 0.5, math.nan, math.inf]
            values += ["many", str(low), (low,), float(low)]
        case Real() as real:
            values += [*_bad_numbers(real), True, "many", "0.5", (0.5,), [0.5]]
        case OneOf(names):
            name = next(iter(names))
            values += [*_near_misses(name), "", 1, True, (name,), name.encode(), f"{name}\n"]
            values += [f"{name}\0", name * 2000]
        case Names(names, needed):
            name = next(iter(names))
            values += [(near,) for near in _near_misses(name)]
            values += [(name, name), name, [name], (name, 1), ((name,),), (None,), 1, ("",)]
            values += [()] if needed else []
        case PerChannel(each):
            bad = [*_bad_numbers(each), True, "0.5", None, (0.5,)]
            values += [(number,) * 3 for number in bad]
            values += [(0.5, 0.5), (0.5,) * 4, (0.5,) * 10_000, 0.5, [0.5] * 3, "0.5"]
        case Epochs(increasing):
            values += [(0,), (-1,), (2.5,), (2.0,), (True,), ("2",), ((2,),), (2**31,), (10**40,)]
            values += [2, [2], "2", (math.nan,), (None,)]
            values += [(4, 2), (2, 2)] if increasing else []
        case PerClass(each, distinct):
            bad = [each.low - 1, each.high + 1, 10**40, each.low + 0.5, float(each.low), True]
            values += [(each.low + 1, number) for number in [*bad, str(each.low), None, math.nan]]
            values += [(each.low,), each.low, [each.low, each.low + 1], "both"]
            values += [(each.low, each.low)] if distinct else []
        case Text():
            values += [1, 1.5, True, b"bytes", ("text",), ["text"]]
            values += ["nul\0", "two\nlines", "return\r", "colour\x1b[31m", "line\u2028separator"]
            values += ["long" * MAX_TEXT]
        case other:
            raise NotImplementedError(f"{path}: no bad values for {type(other).__name__}")
    return values


def with_value(config: ConfigDict, path: str, value: Any) -> ConfigDict:
    """Returns a copy of a config with another value of any type, as a config file may give.

    Args:
        config: a config that has the field.
        path: dotted path of the field.
        value: set unchanged; an assignment to the config would convert or refuse it.
    """
    fields = config.to_dict()
    *parents, leaf = path.split(".")
    node = fields
    for name in parents:
        node = node[name]
    node[leaf] = value
    return ConfigDict(fields)


def as_flag(path: str, value: Any) -> str | None:
    """Returns the text of an illegal value for `--config.PATH=`.

    Args:
        path: dotted path of the field.
        value: one of `bad_values(path)`.

    Returns:
        The text; None if the text is legal, such as "1" for a text field, or cannot be typed.
    """
    text = value if isinstance(value, str) else repr(value)
    if "\0" in text:
        return None
    field = _field(path)
    try:
        read = _PARSERS[type(field.default)].parse(text)
    except ValueError:
        return text
    return None if field.legal.allows(read) else text


def _field(path: str) -> Field:
    field = field_of(path)
    if field is None:
        raise KeyError(path)
    return field


def _bad_numbers(real: Real) -> list[Any]:
    """Numbers outside the range, several on each side."""
    bad: list[Any] = [math.nan, math.inf, -math.inf, 10**400, 1e39, -1e39]
    if not math.isinf(real.low):
        bad += [-1.0 if real.or_zero else real.low - 1.5, real.low - 1e-6]
        bad += [real.low] if real.above else []
    if not math.isinf(real.high):
        bad += [real.high + 1, real.high + 1e-6]
        bad += [real.high] if real.below else []
    return bad


def _near_misses(name: str) -> list[str]:
    """Misspellings: a letter missing, added or swapped, a leading space, capitals."""
    return [name[:-1], f"{name}{name[-1]}", f" {name}", name[1] + name[0] + name[2:], name.upper()]
