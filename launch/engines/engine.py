"""The choice of an engine on the command line, for programs that train many runs.

The programs share these options, `--run WORKDIR`, with which a process or a job trains one run, and
`--only-table`, with which nothing is trained.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import jax

from purenoise_jax.runtime import compilation_cache
from purenoise_jax.runtime.console import SafeConsole
from purenoise_jax.runtime.errors import ConfigError

from ..planning import Task
from . import in_turn, side_by_side, slurm

LOCAL, SLURM = "local", "slurm"


def add_options(parse: argparse.ArgumentParser, cluster: bool = True) -> None:
    """Adds `--engine`, `--jobs` and `--sbatch`.

    Args:
        parse: of a program.
        cluster: False = `--jobs` alone, for a program whose later runs depend on the earlier ones.
    """
    of_cluster = ", or jobs of each array (default: no limit)" if cluster else ""
    parse.add_argument(
        "--jobs",
        type=int,
        help="runs at a time: processes of this machine, each with its share of cores and GPUs "
        f"(default 1){of_cluster}",
    )
    if not cluster:
        parse.set_defaults(engine=LOCAL, sbatch=[])
        return
    parse.add_argument(
        "--engine",
        choices=(LOCAL, SLURM),
        default=LOCAL,
        help="slurm: submit the runs as arrays of jobs, and return at once; the same command again "
        "submits only what is neither finished nor in the queue",
    )
    parse.add_argument(
        "--sbatch",
        action="append",
        default=[],
        metavar="OPTION",
        help="with --engine slurm: an option of sbatch, as --sbatch=--partition=gpu",
    )


def prepare(args: argparse.Namespace) -> None:
    """Checks the options, and leaves the GPUs to the processes that train, if others do.

    Args:
        args: with the options, `run` and `only_table`.

    Raises:
        ConfigError: an option is not legal.
    """
    if args.jobs is not None and args.jobs < 1:
        raise ConfigError(f"--jobs={args.jobs} must be at least 1")
    if args.sbatch and args.engine != SLURM:
        raise ConfigError("--sbatch is used only with --engine slurm")
    if not args.run and (args.engine == SLURM or (args.jobs or 1) > 1):
        jax.config.update("jax_platforms", "cpu")


def submits(args: argparse.Namespace) -> bool:
    """Returns True if the command only submits jobs, so that it has no results at its end."""
    return args.engine == SLURM and not (args.run or args.only_table)


def train(
    tasks: Sequence[Task],
    args: argparse.Namespace,
    arguments: Sequence[str],
    *,
    program: Sequence[str],
    root: Path,
    console: SafeConsole,
    quick: bool = False,
) -> list[Path]:
    """Trains or submits the tasks that are not finished, unless only the table is wanted.

    Args:
        tasks: each after those that it starts from.
        args: see `prepare`.
        arguments: of the program, for processes and jobs; each gets `--run WORKDIR` besides.
        program: that trains a run in a process: Python, "-m" and its module.
        root: folder of all runs.
        console: where progress is shown.
        quick: the numbers mean nothing.

    Returns:
        The workdirs of runs that failed.
    """
    if args.only_table:
        return []
    if args.engine == SLURM:
        slurm.submit(
            tasks,
            arguments,
            at_a_time=args.jobs or 0,
            options=args.sbatch,
            root=root,
            console=console,
            program=program[-1],
        )
        return []
    if (args.jobs or 1) > 1:
        return side_by_side.run(tasks, arguments, args.jobs, root, console, program)
    compilation_cache.enable()
    return in_turn.run(tasks, console, quick)
