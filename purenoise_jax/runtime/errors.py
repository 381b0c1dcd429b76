"""The errors that a user can cause or meet, each with the exit code of the command line.

A message is one line that names the field or file, the value seen and what is legal.
`main` prints it without a traceback and exits with `exit_code`.
"""

import difflib
import unicodedata
from collections.abc import Iterable, Sequence

# Of a value in a message; a list of a thousand names helps nobody.
_SHOWN = 120
_FAULTS_SHOWN = 5


class PureNoiseError(Exception):
    """Base of every error that is reported to the user as one line.

    Args:
        message: what a file or a user gave stands in it, so that line breaks and control
            characters, with which a terminal can be steered, are written out.
    """

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(message))


class ConfigError(PureNoiseError, ValueError):
    """A config field or a command-line argument is wrong."""

    exit_code = 2


class DataError(PureNoiseError, ValueError):
    """A data set is missing, damaged, of the wrong shape or mislabelled."""

    exit_code = 3


class CheckpointError(PureNoiseError):
    """A checkpoint is absent, belongs to something else, or cannot be read."""

    exit_code = 4


class StorageError(PureNoiseError, OSError):
    """The file system refuses: it is full, read-only, not ours, or broken."""

    exit_code = 5


class NonFiniteError(PureNoiseError, FloatingPointError):
    """Step after step has a loss, a gradient or a result that is NaN or infinite."""

    exit_code = 6


class InUseError(PureNoiseError):
    """Another run is at work in the workdir."""

    exit_code = 7


# As shells have it: 128 and the number of SIGINT or SIGTERM.
INTERRUPTED, TERMINATED = 130, 143


class Stopped(BaseException):
    """A signal asked the run to stop, and it did, with all that it had computed on disk.

    No `Exception`, as little as `KeyboardInterrupt` is: nobody on its way may take it for a fault.

    Args:
        message: what to tell the user.
        exit_code: `TERMINATED` for SIGTERM and SIGUSR1, `INTERRUPTED` for SIGINT.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def exit_code(error: BaseException | None) -> int:
    """The exit code that the command line gives an error: 5 for the operating system's, else 1."""
    if isinstance(error, PureNoiseError | Stopped):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return StorageError.exit_code if isinstance(error, OSError) else 1


def unknown(field: str, value: object, legal: Iterable[str]) -> ConfigError:
    """The error for a name that is not among the legal ones, with the nearest of them."""
    names = list(legal)
    hint = nearest(value, names)
    return ConfigError(f"{field}={shown(value)} is unknown; legal: {', '.join(names)}{hint}")


def all_faults(where: object, faults: Sequence[str]) -> DataError:
    """The one error for all faults of one data set: their number and the first of them."""
    shown_faults = "; ".join(faults[:_FAULTS_SHOWN])
    if len(faults) == 1:
        return DataError(f"{where}: {shown_faults}")
    some = f", the first {_FAULTS_SHOWN}" if len(faults) > _FAULTS_SHOWN else ""
    return DataError(f"{where}: {len(faults)} faults{some}: {shown_faults}")


def nearest(value: object, names: Iterable[str]) -> str:
    """The nearest of some names to a misspelt one, ready to stand behind a message; "" if none."""
    near = difflib.get_close_matches(str(value)[:_SHOWN], list(names), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def shown(value: object) -> str:
    """A value as Python writes it, the middle of a long one left out."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 20]} ... {text[-15:]}"


def one_line(text: object) -> str:
    """A text of one or several lines as one, with nothing in it that can steer a terminal."""
    return harmless(" ".join(line.strip() for line in str(text).strip().splitlines()))


def harmless(text: str) -> str:
    r"""A text in which nothing can steer a terminal.

    Control characters, line breaks, marks that turn the direction of writing, and the surrogates
    that stand for bytes of a file name that are no text are written out, as in "\x1b".
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if _is_harmless(c) else ascii(c)[1:-1] for c in text)


def _is_harmless(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
