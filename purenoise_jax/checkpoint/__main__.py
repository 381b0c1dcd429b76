"""Command line that verifies the checkpoints of a run.

python -m purenoise_jax.checkpoint verify runs/digits
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from purenoise_jax.checkpoint import manifest
from purenoise_jax.checkpoint.manager import FOLDER, QUARANTINE, Checkpoints
from purenoise_jax.runtime.console import SafeConsole
from purenoise_jax.runtime.errors import CheckpointError, one_line
from purenoise_jax.runtime.exit_codes import Parser, run_command
from purenoise_jax.runtime.paths import expand


def parser() -> argparse.ArgumentParser:
    """Builds the parser of the command line."""
    parse = Parser(
        prog="python -m purenoise_jax.checkpoint",
        usage="python -m purenoise_jax.checkpoint verify [-h] [--debug] DIR",
        description="Compares every file of every checkpoint with the sha256 that was recorded "
        "when it was saved. Changes nothing.",
        epilog="exit codes: 0 all are complete, 2 usage, 4 one is damaged or there is none, "
        "5 one cannot be read",
    )
    parse.add_argument("command", choices=("verify",))
    parse.add_argument("folder", metavar="DIR", help="workdir of a run, or its checkpoints folder")
    parse.add_argument("--debug", action="store_true", help="show tracebacks")
    return parse


def verify(folder: Path, console: SafeConsole) -> int:
    """Prints a line for every checkpoint and returns the exit code.

    Args:
        folder: workdir of a run, or the checkpoints folder in it.
        console: to print on.

    Raises:
        CheckpointError: there is no checkpoint.
    """
    checkpoints = Checkpoints(folder)
    if not checkpoints.folder.is_dir() and folder.name == FOLDER:
        checkpoints = Checkpoints(folder.parent)
    steps = checkpoints.steps()
    if not steps:
        raise CheckpointError(f"{checkpoints.folder}: there is no checkpoint")
    table = Table()
    for name in ("step", "epoch", "MB"):
        table.add_column(name, justify="right")
    table.add_column(overflow="fold")
    damaged = 0
    for step in steps:
        path = checkpoints.folder / str(step)
        try:
            why = manifest.find_damage(path)
            epoch = "" if why else f"{checkpoints.record(step)['epoch']:g}"
            size = sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
        except (OSError, CheckpointError):
            if step in checkpoints.steps():
                raise
        if step not in checkpoints.steps():
            # Pruned meanwhile by a running process.
            continue
        damaged += why is not None
        verdict = Text(one_line(f"damaged: {why}"), "red") if why else Text("complete", "green")
        table.add_row(f"{step:,}", epoch, f"{size / 1e6:,.1f}", verdict)
    console.print(one_line(checkpoints.folder), soft_wrap=True)
    console.print(table)
    aside = checkpoints.folder / QUARANTINE
    if aside.is_dir() and any(aside.iterdir()):
        names = one_line(", ".join(sorted(path.name for path in aside.iterdir())))
        console.print(f"set aside in {QUARANTINE}/: {names}", soft_wrap=True)
    return CheckpointError.exit_code if damaged else 0


def main(argv: Sequence[str]) -> int:
    """Runs one command line and returns its exit code."""

    def run() -> int:
        args = parser().parse_args(argv[1:])
        return verify(expand(args.folder, "DIR"), SafeConsole())

    return run_command(run, debug="--debug" in argv, interrupted="interrupted")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
