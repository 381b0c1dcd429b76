"""Runs a table of the papers and prints our numbers beside the published ones.

    python -m launch.reproduce TABLE [--seeds 4] [--quick] [--dry-run]
    python -m launch.reproduce STUDY ...

Finished runs are skipped, interrupted ones continue, and a plain run is trained only once for all
runs that start from it. Each run has a folder under --out; the table is made from these folders.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from purenoise_jax.analysis.figure_style import save
from purenoise_jax.config.fields import FIELDS
from purenoise_jax.config.validation_images import VALIDATION_RULES
from purenoise_jax.runtime.console import SafeConsole, duration
from purenoise_jax.runtime.errors import ConfigError, counted, unknown
from purenoise_jax.runtime.exit_codes import Parser, run_command
from purenoise_jax.runtime.paths import expand
from purenoise_jax.runtime.threads import exit_process
from purenoise_jax.training.selection import LAST, SELECT
from purenoise_jax.training.setup import is_local

from . import cells, data_sets, earlier_lines
from .engines import engine, slurm
from .engines.one_run import train_one
from .plan import EPOCHS, MINI_MODEL, SEEDS, Plan
from .planning import Task, tasks_of_table, training_pflop
from .run_states import DONE, ELSEWHERE, TO_DO, show_states
from .studies import tabular
from .tables import TABLES, make_table

FAILED = 1
# In an installed package, `launch` lies within it.
COMMAND = (sys.executable, "-m", f"{__package__}.reproduce")
QUICK_EPOCHS = 5
SWITCHES = {"true": True, "1": True, "false": False, "0": False}
# Published numbers are for the data of their rows: settings that would train on others are refused.
DATA_OF_TABLES: dict[str, tuple[tuple[Any, ...], str]] = {
    # "tfds" is missing: its folder may hold any data set; "auto" finds a prepared CIFAR by itself.
    "data.source": (("auto", "cifar_dir"), "the table is about CIFAR"),
    "data.image_size": ((0, 32), "the table is about images of 32 x 32"),
    "data.profile": (("auto", "exp"), "the table is about exponential profiles"),
    "data.limit": ((0,), "the table is about whole subsets"),
}

# Studies that train none of our networks: each takes the rest of the command line.
STUDIES: dict[str, Callable[[Sequence[str]], int]] = {tabular.NAME: tabular.main}


def parser() -> argparse.ArgumentParser:
    """Builds the parser of the command line."""
    listing = "\n".join(
        f"  {name:<20}{(entry.make.__doc__ or '').partition(chr(10))[0]}"
        for name, entry in TABLES.items()
    )
    studies = "\n".join(
        f"  {name:<20}{(sys.modules[study.__module__].__doc__ or '').partition(chr(10))[0]}"
        for name, study in STUDIES.items()
    )
    parse = Parser(
        prog="python -m launch.reproduce",
        description="Runs a table of the papers, skipping finished runs, and prints our "
        "numbers beside the published ones.",
        epilog=f"tables:\n{listing}\n\nstudies with arguments of their own, see STUDY --help:\n"
        f"{studies}\n\nexample:\n"
        "  python -m launch.reproduce resnet32 --seeds 4 --data data --out runs/reproduce",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parse.add_argument("table", metavar="TABLE", help="name of a table below")
    parse.add_argument(
        "--seeds",
        type=int,
        help=f"runs of every cell; default {SEEDS}, with --quick 1, "
        "with --tier mini the table's own",
    )
    parse.add_argument("--out", default="runs/reproduce", help="folder of the runs and tables")
    parse.add_argument(
        "--data", default="", help="folder of the CIFAR files; default: download them"
    )
    parse.add_argument(
        data_sets.OPTION,
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="folder of another data set, whose rows are then trained too; with the published "
        f"lists in it or beside it; NAME: {', '.join(data_sets.DATA_SETS)}",
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
    engine.add_options(parse)
    parse.add_argument(
        "--status", action="store_true", help="only list the runs that are done, running, failed"
    )
    parse.add_argument(
        "--select",
        choices=SELECT,
        default=LAST,
        help="the epoch whose accuracy is reported: the last, the best on validation images, or "
        "the best on the test set, as most of the field has it",
    )
    parse.add_argument(
        earlier_lines.OPTION,
        action="append",
        default=[],
        metavar="FILE",
        help="tables/TABLE.jsonl of the same table from elsewhere: its runs take part in the "
        "table, and are not trained again, unless others start from them",
    )
    parse.add_argument("--run", metavar="WORKDIR", help="only the run with this workdir; no table")
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
    usual = QUICK_EPOCHS if args.quick else TABLES[args.table].mini_epochs if mini else EPOCHS
    epochs = usual if args.epochs is None else args.epochs
    model = args.model or (MINI_MODEL if mini else "")
    places = data_sets.places(args.data_set)
    return Plan(args.preset, epochs, model, args.quick, overrides, mini, places)


def show_plan(
    tasks: Sequence[Task], console: SafeConsole, elsewhere: Collection[Path] = ()
) -> None:
    """Lists every run with its cost.

    Args:
        tasks: of the table.
        console: where they are listed.
        elsewhere: workdirs of runs that are not needed here, see `earlier_lines`.
    """
    left, undone = 0.0, 0
    for task in tasks:
        cost, config = training_pflop(task), task.config
        epochs = f"epochs {task.first_epoch} .. {config.num_epochs}"
        state = DONE if task.summary else ELSEWHERE if task.workdir in elsewhere else TO_DO
        if state == TO_DO:
            left, undone = left + cost, undone + 1
        console.print(f"{state:>9}  {cost:9.3g} PFLOP  {epochs:<18} {task.name}")
    console.print(
        f"{counted(len(tasks), 'run')}, {undone} to do, {left:,.5g} PFLOP of training steps left"
    )
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


def main(argv: Sequence[str]) -> int:
    """Runs one command line, without the program's name, and returns its exit code."""
    if argv and argv[0] in STUDIES:
        return STUDIES[argv[0]](argv[1:])
    return run_command(
        partial(_reproduce, argv),
        debug="--debug" in argv,
        interrupted="interrupted; the same command continues where it stopped",
    )


def _reproduce(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    console = SafeConsole(soft_wrap=True)
    if args.table not in TABLES:
        raise unknown("TABLE", args.table, [*TABLES, *STUDIES])
    plan = make_plan(args)
    usual = 1 if args.quick else TABLES[args.table].mini_seeds if plan.mini else SEEDS
    seeds = usual if args.seeds is None else args.seeds
    if seeds < 1 or plan.epochs < 1:
        raise ConfigError("--seeds and --epochs must be at least 1")
    every = plan.field("eval.every_epochs")
    if args.select != LAST and (every == 0 or plan.mini or plan.quick):
        raise ConfigError(
            f"--select {args.select} chooses among evaluations along the run, of which "
            f"--tier mini, --quick and eval.every_epochs=0 have none; legal: {LAST}"
        )
    if args.select == "val" and not any(plan.field(f"data.{rule}") for rule in VALIDATION_RULES):
        raise ConfigError(
            "--select val needs validation images: --set data.val_fraction=0.1 or "
            "--set data.val_per_class=3"
        )
    if args.lines:
        earlier_lines.check_fields(plan.overrides)
    engine.prepare(args)
    table = make_table(args.table, plan)
    root = expand(args.out, "--out").resolve()
    root /= "quick" if args.quick else "mini" if plan.mini else ""
    tasks = tasks_of_table(table, range(seeds), root)
    for task in tasks:
        task.check()
    files = earlier_lines.read_lines(args.lines)
    lines = {run: line for each in files.values() for run, line in each.items()}
    elsewhere: set[Path] = set()
    if files:
        final = earlier_lines.final_runs(table, range(seeds), root)
        elsewhere = earlier_lines.not_needed(tasks, final, lines)
        earlier_lines.show_use(files, final, elsewhere, console)
    if args.dry_run:
        show_plan(tasks, console, elsewhere)
        for hint in data_sets.hints(table.cells):
            console.print(hint)
        return 0
    if args.status:
        show_states(tasks, console, slurm.queued(root), elsewhere)
        return 0
    # Orbax logs every step of a save.
    logging.getLogger("absl").setLevel(logging.ERROR)
    if args.run:
        return train_one(args.run, tasks, args.quick, console)
    arguments = arguments_for_a_run(args, seeds)
    broken = engine.train(
        [task for task in tasks if task.workdir not in elsewhere],
        args,
        arguments,
        program=COMMAND,
        root=root,
        console=console,
        quick=args.quick,
    )
    if engine.submits(args):
        return 0
    rows = cells.collect(table, seeds, root, args.select, lines)
    cells.show(table, rows, plan, console, args.select)
    written = cells.write(table, rows, plan, root / "tables", args.table, args.select)
    # Of other epochs than the last only the accuracy is known.
    if table.figure and args.select == LAST and any(row.summaries for row in rows):
        if all(len(row.workdirs) == len(row.summaries) for row in rows):
            written += save(table.figure(rows, plan), root / "tables", args.table)
        else:
            option = earlier_lines.OPTION
            console.print(f"no figure: it needs the folders of all runs, and {option} has none")
    for path in written:
        console.print(str(path))
    return FAILED if broken else 0


def arguments_for_a_run(args: argparse.Namespace, seeds: int) -> list[str]:
    """The command line of a process that trains one run of the same table."""
    given: dict[str, Any] = {
        "--out": expand(args.out, "--out").resolve(),
        "--data": expand(args.data, "--data").resolve() if args.data else None,
        "--preset": args.preset,
        "--epochs": args.epochs,
        "--model": args.model or None,
        "--tier": args.tier,
        "--seeds": seeds,
    }
    parts = [args.table]
    parts += [f"{name}={value}" for name, value in given.items() if value is not None]
    parts += [
        f"{data_sets.OPTION}={name}={Path(path).resolve()}"
        for name, path in data_sets.places(args.data_set).items()
    ]
    # The paths among them would otherwise be looked for where a job starts.
    for text in args.set:
        name, _, value = text.partition("=")
        local = is_local(name) and value and isinstance(FIELDS[name].default, str)
        parts.append(f"--set={name}={expand(value, name).resolve() if local else value}")
    return parts + ["--quick"] * args.quick + ["--debug"] * args.debug


if __name__ == "__main__":
    exit_process(main(sys.argv[1:]))
