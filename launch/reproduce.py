"""Runs a table of the papers and prints our numbers beside the published ones.

    python -m launch.reproduce TABLE [--seeds 4] [--quick] [--dry-run]

Finished runs are skipped, interrupted ones continue, and a plain run is trained only once for all
runs that start from it. Each run has a folder under --out; the table is made from these folders.
"""

import argparse
import gc
import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax

from launch import cells
from launch.plan import EPOCHS, MINI_EPOCHS, MINI_MODEL, Plan
from launch.planning import Task, tasks_of_table, training_pflop
from launch.tables import TABLES, make_table
from purenoise_jax.config.fields import FIELDS
from purenoise_jax.config.validation import validate
from purenoise_jax.main import write_report
from purenoise_jax.runtime import compilation_cache
from purenoise_jax.runtime.console import Display, SafeConsole, duration, percent
from purenoise_jax.runtime.errors import CheckpointError, ConfigError, NonFiniteError, unknown
from purenoise_jax.runtime.exit_codes import Parser, run_command
from purenoise_jax.runtime.paths import expand
from purenoise_jax.runtime.threads import exit_process
from purenoise_jax.training.loop import train_and_evaluate

FAILED = 1
QUICK_EPOCHS = 5
SWITCHES = {"true": True, "1": True, "false": False, "0": False}
# The published numbers are for CIFAR: settings that would train on other data are refused.
DATA_OF_TABLES: dict[str, tuple[tuple[Any, ...], str]] = {
    # "tfds" is missing: its folder may hold any data set; "auto" finds a prepared CIFAR by itself.
    "data.source": (("auto", "cifar_dir"), "the table is about CIFAR"),
    "data.image_size": ((0, 32), "the table is about images of 32 x 32"),
    "data.profile": (("auto", "exp"), "the table is about exponential profiles"),
    "data.limit": ((0,), "the table is about whole subsets"),
}
MEANS_NOTHING = "quick: this number means nothing"


def parser() -> argparse.ArgumentParser:
    """Builds the parser of the command line."""
    listing = "\n".join(
        f"  {name:<15}{(make.__doc__ or '').partition(chr(10))[0]}" for name, make in TABLES.items()
    )
    parse = Parser(
        prog="python -m launch.reproduce",
        description="Runs a table of the papers, skipping finished runs, and prints our "
        "numbers beside the published ones.",
        epilog=f"tables:\n{listing}\n\nexample:\n"
        "  python -m launch.reproduce resnet32 --seeds 4 --data data --out runs/reproduce",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parse.add_argument("table", metavar="TABLE", help="name of a table below")
    parse.add_argument("--seeds", type=int, help="runs of every cell; default 4, with --quick 1")
    parse.add_argument("--out", default="runs/reproduce", help="folder of the runs and tables")
    parse.add_argument(
        "--data", default="", help="folder of the CIFAR files; default: download them"
    )
    parse.add_argument(
        "--preset", default="paper", choices=("paper", "rescience"), help="reading of the papers"
    )
    parse.add_argument(
        "--epochs", type=int, help="shorter runs: the schedule is scaled, and drops are 0.1"
    )
    parse.add_argument("--model", default="", help="replaces every network of the table")
    parse.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="as --config.FIELD=VALUE"
    )
    parse.add_argument(
        "--quick",
        action="store_true",
        help="smoke test in minutes with tiny networks and data; the numbers mean nothing",
    )
    parse.add_argument(
        "--tier",
        choices=("full", "mini"),
        default="full",
        help="mini: a small network on images of 16 x 16, which two CPU cores can train; tells "
        "whether a method does what it is for, not how good it is",
    )
    parse.add_argument("--dry-run", action="store_true", help="only list the runs and their cost")
    parse.add_argument("--only-table", action="store_true", help="only make the table, run nothing")
    parse.add_argument("--debug", action="store_true", help="show tracebacks")
    return parse


def make_plan(args: argparse.Namespace) -> Plan:
    """Builds the plan of all runs from the command line.

    Raises:
        ConfigError: a field is unknown or its value is illegal.
    """
    overrides: dict[str, Any] = {}
    for text in args.set:
        name, equals, value = text.partition("=")
        if name not in FIELDS or not equals:
            raise ConfigError(f"--set {text}: not FIELD=VALUE with a config field")
        kind = type(FIELDS[name].default)
        if kind is tuple:
            raise ConfigError(f"--set {name}: a tuple cannot be set here")
        try:
            overrides[name] = SWITCHES[value.lower()] if kind is bool else kind(value)
        except (ValueError, KeyError):
            raise ConfigError(f"{name}={value} is not legal; legal: {FIELDS[name].legal}") from None
    for name, (legal, reason) in DATA_OF_TABLES.items():
        value = overrides.get(name, FIELDS[name].default)
        if value not in legal and not (args.quick and name == "data.limit"):
            raise ConfigError(
                f"--set {name}={value}: {reason}; legal: {' | '.join(map(str, legal))}; other data "
                "are trained with python -m purenoise_jax.main"
            )
    if args.data:
        overrides["data.path"] = args.data
    mini = args.tier == "mini"
    if mini and args.quick:
        raise ConfigError("--tier mini and --quick are two ways to make runs small; use one")
    usual = QUICK_EPOCHS if args.quick else MINI_EPOCHS if mini else EPOCHS
    epochs = usual if args.epochs is None else args.epochs
    model = args.model or (MINI_MODEL if mini else "")
    return Plan(args.preset, epochs, model, args.quick, overrides, mini)


def show_plan(tasks: Sequence[Task], console: SafeConsole) -> None:
    """Lists every run with its cost."""
    left = 0.0
    for task in tasks:
        cost, config = training_pflop(task), task.config
        epochs = f"epochs {task.first_epoch} .. {config.num_epochs}"
        state = "done" if task.summary else "to do"
        left += 0 if task.summary else cost
        console.print(
            f"{state:>5}  {cost:9.3g} PFLOP  {epochs:<18} {task.workdir.parent.name}/"
            f"{task.workdir.name}"
        )
    undone = sum(not task.summary for task in tasks)
    console.print(f"{len(tasks)} runs, {undone} to do, {left:,.5g} PFLOP of training steps left")
    rate = _rate(tasks)
    if rate:
        console.print(f"at {rate:.3g} PFLOP/s, as in the finished runs: {duration(left / rate)}")


def _rate(tasks: Sequence[Task]) -> float | None:
    """PFLOP/s of the finished runs without compilation and evaluation; None if there are none."""
    cost = seconds = 0.0
    for task in tasks:
        summary = task.summary
        if summary and summary.get("images_per_second"):
            steps = summary["steps"] * (1 - task.first_epoch / task.config.num_epochs)
            seconds += steps * task.config.batch_size / summary["images_per_second"]
            cost += training_pflop(task)
    return cost / seconds if seconds else None


def run(tasks: Sequence[Task], console: SafeConsole, quick: bool) -> list[Path]:
    """Runs the tasks that are not finished.

    Returns:
        The workdirs of failed runs: a loss or gradient was not finite, or the checkpoint to
        continue from cannot be used.
    """
    broken: list[Path] = []
    note = f"  ({MEANS_NOTHING})" if quick else ""
    for number, task in enumerate(tasks, start=1):
        name = f"[{number}/{len(tasks)}] {task.workdir.parent.name}/{task.workdir.name}"
        if task.summary:
            before = percent(task.summary["test_accuracy"])
            console.print(f"{name}: already done, {before} %{note}")
            continue
        if Path(task.config.init_from) in broken:
            console.print(f"{name}: skipped, because the run that it starts from failed")
            continue
        console.print(name)
        try:
            display = Display(active=not quick)
            at_end = None
            if task.config.report:
                at_end = partial(write_report, task.workdir, display, False)
            train_and_evaluate(task.config, task.workdir, display, at_end)
        except (NonFiniteError, CheckpointError) as error:
            broken.append(task.workdir)
            console.print(f"{name}: failed: {error}")
            continue
        finally:
            # Frees compiled programs and their constants, which the next run does not use.
            jax.clear_caches()
            gc.collect()
        summary = task.summary or {}
        took = duration(summary["seconds"])
        console.print(f"{name}: {percent(summary['test_accuracy'])} %, {took}{note}")
    return broken


def main(argv: Sequence[str]) -> int:
    """Runs one command line, without the program's name, and returns its exit code."""
    return run_command(
        partial(_reproduce, argv),
        debug="--debug" in argv,
        interrupted="interrupted; the same command continues where it stopped",
    )


def _reproduce(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    console = SafeConsole(soft_wrap=True)
    if args.table not in TABLES:
        raise unknown("TABLE", args.table, TABLES)
    plan = make_plan(args)
    seeds = args.seeds if args.seeds is not None else (1 if args.quick else 4)
    if seeds < 1 or plan.epochs < 1:
        raise ConfigError("--seeds and --epochs must be at least 1")
    table = make_table(args.table, plan)
    root = expand(args.out, "--out").resolve()
    root /= "quick" if args.quick else "mini" if plan.mini else ""
    tasks = tasks_of_table(table, range(seeds), root)
    for task in tasks:
        validate(task.config)
    if args.dry_run:
        show_plan(tasks, console)
        return 0
    broken: list[Path] = []
    if not args.only_table:
        compilation_cache.enable()
        # Orbax logs every step of a save.
        logging.getLogger("absl").setLevel(logging.ERROR)
        broken = run(tasks, console, args.quick)
    rows = cells.collect(table, seeds, root)
    cells.show(table, rows, plan, console)
    for path in cells.write(table, rows, plan, root / "tables", args.table):
        console.print(str(path))
    return FAILED if broken else 0


if __name__ == "__main__":
    exit_process(main(sys.argv[1:]))
