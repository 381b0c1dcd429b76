"""Search space of a tuning: ranges and lists of values of config fields, and random draws."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from purenoise_jax.config.fields import field_of
from purenoise_jax.runtime.constraints import Integer, Real
from purenoise_jax.runtime.errors import ConfigError

INSTALL = "pip install 'optuna>=5,<6'"
LOG = "log"
# Of a number that is drawn, so that a command line stays readable.
DIGITS = 4
# Draws in a row that were there before, after which a space counts as exhausted.
PATIENCE = 1_000


@dataclasses.dataclass(frozen=True)
class Dimension:
    """A config field, or an argument of a config file, and its values.

    Attributes:
        name: dotted path of the field, or the argument.
        choices: values as text; () = the range.
        low: lower end of the range, an int for a field of integers.
        high: its upper end.
        log: drawn uniformly by logarithm.
    """

    name: str
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False

    @property
    def is_argument(self) -> bool:
        """True for an argument behind the colon of --config."""
        return field_of(self.name) is None and "." not in self.name

    def __str__(self) -> str:
        if self.choices:
            return f"{self.name}={','.join(self.choices)}"
        return f"{self.name}={self.low}..{self.high}{f':{LOG}' * self.log}"


def parse_dimension(text: str) -> Dimension:
    """Reads NAME=A,B,C or NAME=LOW..HIGH, with :log at its end for a draw by logarithm.

    Args:
        text: such as "optimizer.learning_rate=1e-3..1:log". Commas in parentheses do not separate
            values.

    Raises:
        ConfigError: one line that says what is wrong.
    """
    name, equals, values = text.partition("=")
    name, values = name.strip(), values.strip()
    if not equals or not name or not values:
        raise ConfigError(
            f"--field {text} is not legal; legal: NAME=A,B,C, or NAME=LOW..HIGH, or "
            "NAME=LOW..HIGH:log"
        )
    if ".." not in values:
        choices = _parts(values)
        if "" in choices or len(set(choices)) < len(choices):
            raise ConfigError(f"--field {text} has an empty value, or one twice")
        return Dimension(name, choices)
    span, _, scale = values.partition(":")
    field = field_of(name)
    if field is None or not isinstance(field.legal, Integer | Real):
        raise ConfigError(
            f"--field {text}: a range needs a config field of numbers; legal: {name}=A,B,C"
        )
    whole = isinstance(field.legal, Integer)
    ends = [_number(end, whole) for end in span.split("..")]
    if scale not in ("", LOG) or len(ends) != 2 or None in ends:
        kind = "integers" if whole else "numbers"
        raise ConfigError(
            f"--field {text} is not legal; legal: {name}=LOW..HIGH of {kind}, {LOG} after a colon"
        )
    low, high = ends
    for end in (low, high):
        if not field.legal.allows(end):
            raise ConfigError(f"--field {text}: {name}={end} is not legal; legal: {field.legal}")
    if not low < high or (scale and low <= 0):
        positive = ", and above 0" if scale else ""
        raise ConfigError(f"--field {text}: the lower end must be below the upper one{positive}")
    return Dimension(name, (), low, high, bool(scale))


def draw(space: Sequence[Dimension], count: int, seed: int) -> list[dict[str, str]]:
    """Draws different trials at random, uniformly or by logarithm.

    Args:
        space: what is drawn.
        count: of trials; fewer are drawn if the space has no more.
        seed: of the draws. More of them begin with the same ones.

    Returns:
        Name -> value as text, for each trial.

    Raises:
        ConfigError: optuna is not installed.
    """
    optuna = import_optuna()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    distributions = distributions_of(space, optuna)
    trials: list[dict[str, str]] = []
    left = PATIENCE
    while len(trials) < count and left:
        trial = texts_of(space, study.ask(distributions).params)
        left = left - 1 if trial in trials else PATIENCE
        if trial not in trials:
            trials.append(trial)
    return trials


def import_optuna() -> Any:
    """Returns the module optuna, which then shows only warnings.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise ConfigError(f"the search needs optuna, which is not installed: {INSTALL}") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def distributions_of(space: Sequence[Dimension], optuna: Any) -> dict[str, Any]:
    """Returns optuna's distribution of each dimension, by name."""
    return {dim.name: _distribution(dim, optuna.distributions) for dim in space}


def texts_of(space: Sequence[Dimension], params: Mapping[str, Any]) -> dict[str, str]:
    """Returns the values of a trial as text, by name."""
    return {dim.name: _text(dim, params[dim.name]) for dim in space}


def params_of(space: Sequence[Dimension], texts: Mapping[str, str]) -> dict[str, Any]:
    """Returns the values of a trial as optuna has them, from those of `texts_of`."""
    found: dict[str, Any] = {}
    for dim in space:
        text = texts[dim.name]
        whole = isinstance(dim.low, int) and isinstance(dim.high, int)
        found[dim.name] = text if dim.choices else int(text) if whole else float(text)
    return found


def _distribution(dim: Dimension, distributions: Any) -> Any:
    if dim.choices:
        return distributions.CategoricalDistribution(dim.choices)
    if isinstance(dim.low, int) and isinstance(dim.high, int):
        return distributions.IntDistribution(dim.low, dim.high, log=dim.log)
    return distributions.FloatDistribution(dim.low, dim.high, log=dim.log)


def _text(dim: Dimension, value: Any) -> str:
    if dim.choices or isinstance(value, int):
        return str(value)
    return str(min(max(float(f"{value:.{DIGITS}g}"), dim.low), dim.high))


def _parts(text: str) -> tuple[str, ...]:
    """Splits text at the commas outside of parentheses."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return tuple(part.strip() for part in parts)


def _number(text: str, whole: bool) -> Any:
    """The number that a text is, an int where `whole`; None if it is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    if not math.isfinite(value) or (whole and not value.is_integer()):
        return None
    return int(value) if whole else value
