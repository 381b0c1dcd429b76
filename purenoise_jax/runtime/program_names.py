"""Names the programs in help and in messages as the user calls them.

Texts name them as in a checkout, `python -m purenoise_jax.predict`. If a program was started as
`purenoise-jax predict`, its texts say so, of itself and of the others.
"""

import contextlib
import contextvars
import re
from collections.abc import Iterator
from pathlib import Path

# What follows `python -m` -> the subcommand of purenoise-jax that does the same.
SUBCOMMANDS = {
    "purenoise_jax.main": "train",
    "purenoise_jax.predict": "predict",
    "purenoise_jax.export": "export",
    "purenoise_jax.calibrate": "calibrate",
    "purenoise_jax.analysis report": "report",
    "launch.compare": "compare",
    "launch.tune": "tune",
    "launch.reproduce": "reproduce",
    "purenoise_jax.checkpoint verify": "verify",
    "purenoise_jax.chaos": "chaos",
}
# In an installed package `launch` lies within it.
_INSIDE = (Path(__file__).parents[1] / "launch").is_dir()
_LAUNCH = re.compile(r"(python -m )(?=launch\.)")
_PROGRAM = re.compile(
    r"python\s+-m\s+("
    + "|".join(re.escape(name).replace(r"\ ", r"\s+") for name in SUBCOMMANDS)
    + r")(?!\.?\w)"
)
_as_subcommand = contextvars.ContextVar("_as_subcommand", default=False)


@contextlib.contextmanager
def as_subcommand() -> Iterator[None]:
    """Within it, programs are named as subcommands of purenoise-jax."""
    token = _as_subcommand.set(True)
    try:
        yield
    finally:
        _as_subcommand.reset(token)


def as_called(text: str) -> str:
    """Returns a text with the programs that it names called as the user calls them."""
    if _as_subcommand.get():
        text = _PROGRAM.sub(_subcommand, text)
    return _LAUNCH.sub(r"\1purenoise_jax.", text) if _INSIDE else text


def _subcommand(found: re.Match[str]) -> str:
    return f"purenoise-jax {SUBCOMMANDS[' '.join(found[1].split())]}"
