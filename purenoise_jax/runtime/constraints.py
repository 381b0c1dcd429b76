"""Constraints on the values of config fields: as a check, and in words for messages.

Ranges and names are data, not code, so that `chaos.invalid_configs` can derive illegal values.
"""

import dataclasses
import itertools
import math
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any, Final, Protocol

from purenoise_jax.runtime.errors import ConfigError, nearest

MAX_INT = 2**31 - 1  # steps and sizes are 32-bit on the devices
MAX_TEXT = 4096
# In place of the value that runs without a field have: every run has the field. It equals no JSON
# value.
ALWAYS: Final = object()
# Other numbers would silently become zero or infinite in float32.
_SMALLEST, _LARGEST = 2.0**-126, (2 - 2.0**-23) * 2.0**127


class Constraint(Protocol):
    """The legal values of a field; `str()` describes them in words."""

    def allows(self, value: Any) -> bool:
        """True if a value is legal, its type included."""
        ...

    def hint(self, value: Any) -> str:
        """Returns the nearest legal name to a misspelt one, as the end of a message, or ""."""
        ...


class _NoHint:
    def hint(self, value: Any) -> str:
        """Returns "", because there are no names."""
        del value
        return ""


@dataclasses.dataclass(frozen=True)
class Switch(_NoHint):
    """On or off."""

    def allows(self, value: Any) -> bool:
        """True for a bool; 0 and 1 are none."""
        return type(value) is bool

    def __str__(self) -> str:
        return "True | False"


@dataclasses.dataclass(frozen=True)
class OneOf:
    """One of several names.

    Attributes:
        names: not copied, so that a config file may add a model or method of its own to its table.
    """

    names: Collection[str]

    def allows(self, value: Any) -> bool:
        """True for one of the names."""
        return type(value) is str and value in self.names

    def hint(self, value: Any) -> str:
        """Returns the nearest name."""
        return nearest(value, self.names)

    def __str__(self) -> str:
        return " | ".join(self.names)


@dataclasses.dataclass(frozen=True)
class Integer(_NoHint):
    """An integer from `low` to `high`."""

    low: int
    high: int = MAX_INT

    def allows(self, value: Any) -> bool:
        """True for an integer in the range; a bool is none."""
        return type(value) is int and self.low <= value <= self.high

    def __str__(self) -> str:
        if self.high == MAX_INT:
            return f"an integer, at least {self.low} and at most {self.high}"
        return f"an integer in {self.low} .. {self.high}"


@dataclasses.dataclass(frozen=True)
class Real(_NoHint):
    """A number from `low` to `high`, without `low` if `above` and without `high` if `below`.

    With `or_zero` 0 is legal too, with `or_minus_one` -1; the field then gives it a meaning of its
    own.
    """

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False
    or_zero: bool = False
    or_minus_one: bool = False

    def allows(self, value: Any) -> bool:
        """True for a finite number in the range, neither a bool nor text."""
        others = [0] * self.or_zero + [-1] * self.or_minus_one
        if type(value) in (int, float) and value in others:
            return True
        return (
            _is_float32(value)
            and (value > self.low if self.above else value >= self.low)
            and (value < self.high if self.below else value <= self.high)
        )

    def __str__(self) -> str:
        others = ", or 0" * self.or_zero + ", or -1" * self.or_minus_one
        if math.isinf(self.high):
            low = f"{'above' if self.above else 'of at least'} {self.low:g}"
            return f"a finite number {low}, in float32{others}"
        left, right = "(" if self.above else "[", ")" if self.below else "]"
        return f"a number in {left}{self.low:g}, {self.high:g}{right}{others}"


@dataclasses.dataclass(frozen=True)
class PerChannel(_NoHint):
    """A tuple of one number per channel, in the range of `each`; or an empty tuple."""

    each: Real

    def allows(self, value: Any) -> bool:
        """True for a tuple of 0, 1 or 3 such numbers."""
        return (
            type(value) is tuple and len(value) in (0, 1, 3) and all(map(self.each.allows, value))
        )

    def __str__(self) -> str:
        low = self.each.low
        if math.isinf(low):
            kind = ""
        else:
            kind = f" {'above' if self.each.above else 'of at least'} {low:g}"
        return f"a tuple of finite numbers{kind}, one per channel (1 or 3), or ()"


@dataclasses.dataclass(frozen=True)
class Names:
    """A tuple of names, each at most once.

    Attributes:
        names: as for `OneOf`.
        needed: at least one is required.
    """

    names: Collection[str]
    needed: bool = False

    def allows(self, value: Any) -> bool:
        """True for a tuple of such names."""
        return (
            type(value) is tuple
            and all(type(name) is str and name in self.names for name in value)
            and len(set(value)) == len(value) >= self.needed
        )

    def hint(self, value: Any) -> str:
        """Returns the nearest name to the first that is not legal."""
        given = value if isinstance(value, tuple | list) else (value,)
        wrong = [x for x in given if isinstance(x, str) and x not in self.names]
        return nearest(wrong[0], self.names) if wrong else ""

    def __str__(self) -> str:
        least = "at least one, " if self.needed else ""
        return f"a tuple of {', '.join(self.names)}, {least}each at most once"


@dataclasses.dataclass(frozen=True)
class Epochs(_NoHint):
    """A tuple of epochs, each at least 1, in increasing order if `increasing`."""

    increasing: bool = False

    def allows(self, value: Any) -> bool:
        """True for a tuple of such integers."""
        if type(value) is not tuple or not all(map(Integer(1).allows, value)):
            return False
        pairs = itertools.pairwise(value)
        return not self.increasing or all(first < second for first, second in pairs)

    def __str__(self) -> str:
        order = ", in increasing order" if self.increasing else ""
        return f"a tuple of integers, each at least 1 and at most {MAX_INT}{order}"


@dataclasses.dataclass(frozen=True)
class PerClass(_NoHint):
    """A tuple of an integer for each of two or more classes; or an empty tuple.

    Attributes:
        each: range of the integers.
        distinct: each integer occurs at most once.
    """

    each: Integer
    distinct: bool = False

    def allows(self, value: Any) -> bool:
        """True for a tuple of such integers, but not of a single one."""
        if type(value) is not tuple or len(value) == 1 or not all(map(self.each.allows, value)):
            return False
        return not self.distinct or len(set(value)) == len(value)

    def __str__(self) -> str:
        once = ", each at most once" if self.distinct else ""
        return (
            f"a tuple of integers of at least {self.each.low}, two or more{once}, or () for no "
            "choice"
        )


@dataclasses.dataclass(frozen=True)
class Text(_NoHint):
    """A name or path."""

    def allows(self, value: Any) -> bool:
        """True for one line of text that a path may contain."""
        return (
            type(value) is str
            and len(value) <= MAX_TEXT
            # Control characters and line breaks of every kind.
            and not any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in value)
        )

    def __str__(self) -> str:
        return f"one line of text, at most {MAX_TEXT} characters, no control characters"


def _is_float32(value: Any) -> bool:
    """True for an int or a float in the range of float32, zero included; False for NaN."""
    if type(value) not in (int, float):
        return False
    return value == 0 or _SMALLEST <= abs(value) <= _LARGEST


def refuse_idle_statistics(field: str, choice: str, given: Mapping[str, Any]) -> None:
    """Refuses statistics that would not be used, and a choice of "explicit" without statistics.

    Args:
        field: path of the choice.
        choice: its value; "explicit" requires numbers.
        given: path -> one number per channel or (), of the mean and of the standard deviation.

    Raises:
        ConfigError: naming both fields.
    """
    mean, std = given.values()
    if choice != "explicit":
        for name, values in given.items():
            if values:
                raise ConfigError(
                    f"{name}={values} is used only with {field}=explicit, but {field}={choice}; "
                    f"leave {name} at (), or set {field}=explicit"
                )
    elif not mean or len(mean) != len(std):
        names = " and ".join(f"{name}={values}" for name, values in given.items())
        raise ConfigError(f"{field}=explicit needs one number per channel in both {names}")
