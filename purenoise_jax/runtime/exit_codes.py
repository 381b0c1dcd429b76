"""Runs a command and turns its errors into an exit code and a message of one line."""

import argparse
import os
from collections.abc import Callable
from typing import Any, NoReturn

from purenoise_jax.runtime.console import show_error, show_traceback
from purenoise_jax.runtime.errors import ConfigError, PureNoiseError, Stopped, exit_code
from purenoise_jax.runtime.program_names import as_called
from purenoise_jax.runtime.threads import exit_process


class Parser(argparse.ArgumentParser):
    """A parser of command-line arguments that raises errors as `ConfigError`.

    Its help names the programs as the user calls them.
    """

    def __init__(self, *, prog: str, **options: Any) -> None:
        super().__init__(prog=as_called(prog), **options)

    def format_help(self) -> str:
        """Returns the help."""
        return as_called(super().format_help())

    def error(self, message: str) -> NoReturn:
        """Raises the message as a `ConfigError`."""
        raise ConfigError(f"{message}; see --help")


def run_command(command: Callable[[], int], *, debug: bool, interrupted: str) -> int:
    """Runs a command; prints one line for an error of the user or the disk, and for Ctrl-C.

    Args:
        command: returns its exit code.
        debug: print tracebacks, too.
        interrupted: message after Ctrl-C, unless the KeyboardInterrupt has its own.

    Returns:
        The exit code: that of `command`, of the `PureNoiseError` or `Stopped`, 5 for the operating
        system's errors, or 130.
    """
    try:
        return command()
    except Stopped as stopped:
        show_error(str(stopped), style="")
        return exit_code(stopped)
    except KeyboardInterrupt as interrupt:
        show_error(str(interrupt) or interrupted, style="")
        return exit_code(interrupt)
    except (PureNoiseError, OSError) as error:
        if debug:
            show_traceback()
        show_error(f"error: {as_called(_message(error))}")
        return exit_code(error)


def run_program(main: Callable[[list[str]], int], argv: list[str]) -> NoReturn:
    """Runs a program, and ends the process with its exit code.

    Args:
        main: (arguments) -> the exit code.
        argv: its arguments.
    """
    try:
        code = main(argv)
    except Exception:
        # Shown here, because `exit_process` may end the process before the interpreter shows it.
        show_traceback()
        code = 1
    exit_process(code)


def _message(error: Exception) -> str:
    """Returns the message of an error; those of the operating system name the file first."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        # A file name may be bytes.
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error) or type(error).__name__
