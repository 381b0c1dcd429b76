"""The installed command, purenoise-jax, with a subcommand for every program.

purenoise-jax train --config digits_lt --workdir runs/digits
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from purenoise_jax.runtime.console import show, show_error
from purenoise_jax.runtime.errors import unknown
from purenoise_jax.runtime.exit_codes import run_program
from purenoise_jax.runtime.program_names import as_subcommand


class Command(NamedTuple):
    """A subcommand.

    Attributes:
        run: (arguments) -> the exit code.
        help: one line.
    """

    run: Callable[[Sequence[str]], int]
    help: str


# A program is imported when it runs, because most take seconds to import.
def _train(arguments: Sequence[str]) -> int:
    from purenoise_jax import main

    return main.main(["purenoise-jax train", *arguments])


def _predict(arguments: Sequence[str]) -> int:
    from purenoise_jax import predict

    return predict.main(arguments)


def _export(arguments: Sequence[str]) -> int:
    from purenoise_jax import export

    return export.main(arguments)


def _calibrate(arguments: Sequence[str]) -> int:
    from purenoise_jax import calibrate

    return calibrate.main(arguments)


def _report(arguments: Sequence[str]) -> int:
    from purenoise_jax.analysis import __main__ as analysis

    return analysis.main(arguments, analysis.REPORT)


def _verify(arguments: Sequence[str]) -> int:
    from purenoise_jax.checkpoint import __main__ as checkpoint

    return checkpoint.main(["purenoise-jax", "verify", *arguments])


def _chaos(arguments: Sequence[str]) -> int:
    from purenoise_jax.chaos import __main__ as chaos

    return chaos.main(arguments)


def _launch(program: str, arguments: Sequence[str]) -> int:
    """Runs a program of `launch`: within an installed package, or beside it in a checkout."""
    inside = (Path(__file__).parent / "launch").is_dir()
    folder = "purenoise_jax.launch" if inside else "launch"
    return importlib.import_module(f"{folder}.{program}").main(arguments)


COMMANDS = {
    "train": Command(_train, "trains by a config file, or continues a run"),
    "predict": Command(_predict, "classifies images with the network of a run"),
    "export": Command(_export, "writes the network of a run as a file for other programs"),
    "calibrate": Command(_calibrate, "fits a temperature to the probabilities of a run"),
    "report": Command(_report, "writes everything about runs into one HTML file"),
    "compare": Command(partial(_launch, "compare"), "trains methods with several seeds: one table"),
    "tune": Command(partial(_launch, "tune"), "searches config fields on validation images"),
    "reproduce": Command(partial(_launch, "reproduce"), "trains the runs of a table of the papers"),
    "verify": Command(_verify, "compares the checkpoints of a run with their checksums"),
    "chaos": Command(_chaos, "breaks runs on purpose, and checks that they recover"),
}


def help_text() -> str:
    """Returns the list of subcommands."""
    lines = [f"  {name:<10}{command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: purenoise-jax COMMAND ...",
            "",
            *lines,
            "",
            "purenoise-jax COMMAND --help describes a command. Without one, as in",
            "purenoise-jax --config digits_lt --workdir runs/digits, it trains.",
        ]
    )


def main(argv: Sequence[str]) -> int:
    """Runs one command line and returns its exit code.

    Args:
        argv: with the program's name first.
    """
    arguments = argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        show(help_text())
        return 0
    if arguments[0].startswith("-"):
        arguments = ["train", *arguments]
    command = COMMANDS.get(arguments[0])
    if command is None:
        error = unknown("COMMAND", arguments[0], COMMANDS)
        show_error(f"error: {error}")
        return error.exit_code
    with as_subcommand():
        return command.run(arguments[1:])


def run() -> None:
    """Entry point of the installed command."""
    run_program(main, sys.argv)


if __name__ == "__main__":
    run()
