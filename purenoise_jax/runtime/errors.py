"""Errors that a user can cause or meet, each with the exit code of the command line.

A message is one line that names the field or file, the value seen and what is legal.
`main` prints it without a traceback and exits with `exit_code`.
"""

import difflib
import unicodedata
from collections.abc import Iterable, Sequence

# Longest value in a message, in characters; a list of a thousand names helps nobody.
_SHOWN = 120
_FAULTS_SHOWN = 5


class PureNoiseError(Exception):
    """Base of every error that is reported to the user as one line.

    Args:
        message: may quote a file or a user; its lines are joined, and characters that could
            control a terminal are escaped.
    """

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(message))


class ConfigError(PureNoiseError, ValueError):
    """A config field or a command-line argument is wrong."""

    exit_code = 2


class NothingToMeasureError(ConfigError):
    """A run would have neither test nor validation images."""


class DataError(PureNoiseError, ValueError):
    """A data set is missing, damaged, of the wrong shape or mislabelled."""

    exit_code = 3


class CheckpointError(PureNoiseError):
    """A checkpoint is missing, belongs to another run, or cannot be read."""

    exit_code = 4


class StorageError(PureNoiseError, OSError):
    """The file system fails: it is full, read-only or broken, or permission is denied."""

    exit_code = 5


class NonFiniteError(PureNoiseError, FloatingPointError):
    """Several steps in a row have a loss, a gradient or a result that is NaN or infinite."""

    exit_code = 6


class InUseError(PureNoiseError):
    """Another run is using the workdir."""

    exit_code = 7


# As in shells: 128 plus the number of SIGINT or SIGTERM.
INTERRUPTED, TERMINATED = 130, 143


class Stopped(BaseException):
    """A signal asked the run to stop; it did, after saving everything that it had computed.

    A `BaseException`, like `KeyboardInterrupt`, so that `except Exception` does not swallow it.

    Args:
        message: for the user.
        exit_code: `TERMINATED` for SIGTERM and SIGUSR1, `INTERRUPTED` for SIGINT.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def exit_code(error: BaseException | None) -> int:
    """Returns the exit code of an error: 5 for one of the operating system, 1 for an unknown."""
    if isinstance(error, PureNoiseError | Stopped):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return StorageError.exit_code if isinstance(error, OSError) else 1


def unknown(field: str, value: object, legal: Iterable[str]) -> ConfigError:
    """Returns the error for a name that is not legal, with all legal names and the nearest."""
    names = list(legal)
    hint = nearest(value, names)
    return ConfigError(f"{field}={shown(value)} is unknown; legal: {', '.join(names)}{hint}")


def all_faults(where: object, faults: Sequence[str]) -> DataError:
    """Returns one error for all faults of a data set: their number and the first few."""
    shown_faults = "; ".join(faults[:_FAULTS_SHOWN])
    if len(faults) == 1:
        return DataError(f"{where}: {shown_faults}")
    some = f", the first {_FAULTS_SHOWN}" if len(faults) > _FAULTS_SHOWN else ""
    return DataError(f"{where}: {len(faults)} faults{some}: {shown_faults}")


def counted(count: float, one: str, many: str = "") -> str:
    """Returns a number with its noun, such as "1 image" and "2,000 images".

    Args:
        count: may be a fraction, of epochs for example.
        one: the noun for 1.
        many: for any other number; "" = with an s.
    """
    return f"{count:,.10g} {one if count == 1 else many or f'{one}s'}"


def nearest(value: object, names: Iterable[str]) -> str:
    """Returns the nearest of some names to a misspelt one, as the end of a message; "" if none."""
    near = difflib.get_close_matches(str(value)[:_SHOWN], list(names), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def shown(value: object) -> str:
    """Returns the `repr` of a value, with the middle of a long one left out."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 20]} ... {text[-15:]}"


def one_line(text: object) -> str:
    """Joins the lines of a text into one and escapes what could control a terminal."""
    return harmless(" ".join(line.strip() for line in str(text).strip().splitlines()))


def harmless(text: str) -> str:
    r"""Escapes everything in a text that could control a terminal.

    These are control characters, line breaks, marks that change the direction of writing, and the
    surrogates that stand for undecodable bytes of a file name. They are written as in "\x1b".
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if _is_harmless(c) else ascii(c)[1:-1] for c in text)


def _is_harmless(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
