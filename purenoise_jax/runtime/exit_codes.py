"""How every command ends: its exit code, and one line for what went wrong."""

import argparse
import os
from collections.abc import Callable
from typing import NoReturn

from purenoise_jax.runtime.console import show_error, show_traceback
from purenoise_jax.runtime.errors import ConfigError, PureNoiseError, Stopped, exit_code


class Parser(argparse.ArgumentParser):
    """A parser whose errors are ours, to be told in one line."""

    def error(self, message: str) -> NoReturn:
        """Raises the message as a `ConfigError`."""
        raise ConfigError(f"{message}; see --help")


def run_command(command: Callable[[], int], *, debug: bool, interrupted: str) -> int:
    """Runs a command; errors of the user, of the disk and Ctrl-C take one line.

    Args:
        command: returns its exit code.
        debug: show tracebacks, too.
        interrupted: what is said after Ctrl-C, unless the KeyboardInterrupt has a message.

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
        show_error(f"error: {_told(error)}")
        return exit_code(error)


def _told(error: Exception) -> str:
    """An error in words; one of the operating system names its file first."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        # A file name may be bytes.
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error) or type(error).__name__
