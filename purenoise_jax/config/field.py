"""One config field: its default, its legal values, and whether a started run may change it."""

import dataclasses
from typing import Any

from purenoise_jax.runtime.constraints import ALWAYS, Constraint


@dataclasses.dataclass(frozen=True)
class Field:
    """One config field.

    Attributes:
        default: its value in `default_config`.
        help: its meaning, for `--help`.
        legal: its legal values.
        fixed: part of the definition of a run: hashed, and not to be changed after the start.
        absent: for a field that came after the first release, the value of runs that were started
            without it. Such a field is compared and hashed only if it has another value, so that
            older runs and their hashes stay valid. It does not change when the default changes.
    """

    default: Any
    help: str
    legal: Constraint
    fixed: bool = True
    absent: Any = ALWAYS
