"""Compares methods on any data: trains each with several seeds and prints one table.

    python -m launch.compare --config configs/digits_lt.py --methods erm,drs,open --seeds 5

The runs are planned as those of the papers' tables: finished runs are skipped, interrupted ones
continue, and plain training is done once for all methods that begin late. Each run has a folder
under --out; the table is made from these folders.
"""

import argparse
import dataclasses
import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from purenoise_jax.analysis import html_report
from purenoise_jax.config import packaged
from purenoise_jax.config.usual_phases import parse_methods
from purenoise_jax.config.validation_images import has_validation, holds_out
from purenoise_jax.inference.runs import load_runs
from purenoise_jax.inference.unmeasured import compared
from purenoise_jax.runtime import compilation_cache
from purenoise_jax.runtime.console import SafeConsole
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.runtime.exit_codes import Parser, run_command
from purenoise_jax.runtime.paths import expand
from purenoise_jax.runtime.program_names import as_called
from purenoise_jax.runtime.threads import exit_process

from . import choice, comparison
from .cells import Row
from .engines import engine, in_turn, slurm
from .engines.one_run import train_one
from .given_config import (
    OWN_IMAGES,
    config_of,
    fills_in_validation,
    refuse_other_data,
    title_of,
    with_data,
)
from .plan import Cell, Table
from .planning import tasks_of, tasks_of_table
from .run_states import show_states
from .summaries import accuracy

FAILED = 1
SEEDS = 5
COMMAND = (sys.executable, "-m", f"{__package__}.compare")


def parser() -> argparse.ArgumentParser:
    """Builds the parser of the command line, but for the config fields."""
    parse_arguments = Parser(
        prog="python -m launch.compare",
        description="Trains methods with several seeds, skipping finished runs, and prints one "
        "table: means, standard errors, and differences paired by seed.",
        epilog="example:\n  python -m launch.compare --config digits_lt:epochs=20 "
        "--methods erm,drs,open,ldam+drw --seeds 5",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parse_arguments.add_argument(
        "--config",
        default="",
        metavar="FILE[:ARGS]",
        help="as for a training, without method=; --config.FIELD=VALUE changes a field of "
        "all runs; default with --data: images, for your own",
    )
    parse_arguments.add_argument(
        "--methods",
        required=True,
        metavar="A,B+C,...",
        help="methods, each with those that it is joined with by +; all are compared with the "
        "first, and with drs if it is among them",
    )
    parse_arguments.add_argument(
        "--seeds", type=int, help="runs of every method; default 5, or as many as there are folds"
    )
    parse_arguments.add_argument(
        "--folds",
        type=int,
        help="parts of the training images, of which each seed has the next for validation; "
        "default with --pick 5, unless the data have validation images or you hold some out",
    )
    parse_arguments.add_argument(
        "--pick",
        choices=tuple(choice.METRICS),
        help="choose the method that is best on the validation images; the test images are not "
        "used for it",
    )
    parse_arguments.add_argument(
        "--refit",
        action="store_true",
        help="with --pick: train the chosen method on the training images and those held out, as a "
        "run for predict",
    )
    parse_arguments.add_argument(
        "--data",
        default="",
        metavar="PATH",
        help="the place of the data: --config.data.path, or path= of the config images",
    )
    parse_arguments.add_argument(
        "--out", default="runs/compare", help="folder of the runs and the table"
    )
    engine.add_options(parse_arguments)
    parse_arguments.add_argument(
        "--status", action="store_true", help="only list the runs that are done, running, failed"
    )
    parse_arguments.add_argument(
        "--only-table", action="store_true", help="only make the table, run nothing"
    )
    parse_arguments.add_argument(
        "--run", metavar="WORKDIR", help="only the run with this workdir; no table"
    )
    parse_arguments.add_argument("--debug", action="store_true", help="show tracebacks")
    return parse_arguments


def make_table(args: argparse.Namespace, fields: Sequence[str]) -> Table:
    """Makes the table of runs, a cell for each method.

    Args:
        args: from `parser`.
        fields: the rest of the command line, `--config.FIELD=VALUE`.

    Raises:
        ConfigError: a method, field or value is not legal.
    """
    methods = [name.strip() for name in args.methods.split(",")]
    for name in methods:
        parse_methods(name)
        if methods.count(name) > 1:
            raise ConfigError(f"--methods={args.methods} names {name} twice")
    config, fields = with_data(args.config, args.data, fields)
    made = tuple(
        Cell("", name, config_of(config, {"method": name}, fields, "--methods")) for name in methods
    )
    return Table(title_of(config), "new", made, published=())


def make_tables(args: argparse.Namespace, fields: Sequence[str]) -> list[Table]:
    """Makes the table of every seed; they are the same, unless each seed has another fold.

    Args:
        args: from `parser`; its `seeds` is set if it was not given.
        fields: see `make_table`.

    Raises:
        ConfigError: see `make_table`.
    """
    table = make_table(args, fields)
    usual = choice.FOLDS if args.pick and _wants_folds(args, fields, table) else 0
    folds = usual if args.folds is None else args.folds
    if args.seeds is None:
        args.seeds = folds or SEEDS
    if not folds:
        return [table] * args.seeds
    tables = []
    for seed in range(args.seeds):
        made = [
            dataclasses.replace(cell, config=choice.in_fold(cell.config, folds, seed % folds))
            for cell in table.cells
            if cell.config is not None
        ]
        tables.append(dataclasses.replace(table, cells=tuple(made)))
    return tables


def _wants_folds(args: argparse.Namespace, fields: Sequence[str], table: Table) -> bool:
    """True if neither the data have validation images nor somebody has asked for some."""
    # All methods train on the same data.
    if has_validation(table.configs[0].data):
        return False
    if fills_in_validation(*with_data(args.config, args.data, fields)):
        return True
    return not any(holds_out(config.data) for config in table.configs)


def main(argv: Sequence[str]) -> int:
    """Runs one command line, without the program's name, and returns its exit code."""
    return run_command(
        partial(_compare, argv),
        debug="--debug" in argv,
        interrupted="interrupted; the same command continues where it stopped",
    )


def _compare(argv: Sequence[str]) -> int:
    args, fields = parser().parse_known_args(argv)
    console = SafeConsole(soft_wrap=True)
    for name, least in (("seeds", 1), ("folds", 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise ConfigError(f"--{name}={value} must be at least {least}")
    if args.refit and not args.pick:
        raise ConfigError("--refit trains the method that --pick chooses; add --pick")
    if args.refit and engine.submits(args):
        raise ConfigError(
            "--refit trains here, so it has no part in --engine slurm; give the command again with "
            "it, and without --engine slurm, when all runs are done"
        )
    engine.prepare(args)
    tables = make_tables(args, fields)
    title = tables[0].title
    root = expand(args.out, "--out").resolve()
    tasks = [t for seed, table in enumerate(tables) for t in tasks_of_table(table, [seed], root)]
    for task in tasks:
        task.check()
        refuse_other_data(task)
    if args.status:
        show_states(tasks, console, slurm.queued(root))
        return 0
    # Orbax logs every step of a save.
    logging.getLogger("absl").setLevel(logging.ERROR)
    if args.run:
        return train_one(args.run, tasks, False, console)
    for line in packaged.told(["compare", "--config", args.config or OWN_IMAGES]):
        console.print(line)
    broken = engine.train(tasks, args, argv, program=COMMAND, root=root, console=console)
    if engine.submits(args):
        if args.pick:
            console.print("when all runs are done, --only-table chooses among them")
        return 0
    rows = collect(tables, root)
    comparison.show(title, rows, console)
    for path in comparison.write(title, rows, root / "tables"):
        console.print(str(path))
    if args.pick and broken:
        console.print(
            "--pick: no method is chosen, because runs have failed; leave their methods out of "
            "--methods"
        )
    elif args.pick:
        broken = _pick(args, rows, root, console)
    return FAILED if broken else 0


def collect(tables: Sequence[Table], root: Path) -> list[Row]:
    """Reads the summaries of all finished runs: a row for each method.

    Args:
        tables: from `make_tables`.
        root: folder of all runs.
    """
    rows = []
    for of_method in zip(*(table.cells for table in tables), strict=True):
        configs = [cell.config for cell in of_method if cell.config is not None]
        last = [tasks_of(config, seed, root)[-1] for seed, config in enumerate(configs)]
        found = tuple(summary for task in last if (summary := task.summary) is not None)
        rows.append(Row(of_method[0], len(tables), found))
    return rows


def _pick(
    args: argparse.Namespace, rows: Sequence[Row], root: Path, console: SafeConsole
) -> list[Path]:
    """Shows the method that is best on validation, and trains it on all images if asked to."""
    measure = choice.METRICS[args.pick]
    winner = choice.choose(rows, measure)
    lines = choice.lead_lines(winner, rows, measure)
    broken: list[Path] = []
    if args.refit:
        tasks, note = choice.refit_tasks(winner, root / "refit")
        for task in tasks:
            task.check()
            refuse_other_data(task)
        if not args.only_table:
            compilation_cache.enable()
            broken = in_turn.run(tasks, console, quick=False)
        workdir, summary = tasks[-1].workdir, tasks[-1].summary
        if summary:
            found = choice.record(workdir, winner, measure)
            if accuracy(summary) is None:
                note = (
                    "trained on all images, so it has no accuracy of its own; in the comparison: "
                    f"{compared(found)}"
                )
                if (workdir / html_report.NAME).is_file():
                    # That of the end of the run does not know the comparison.
                    html_report.write_report(load_runs([workdir]))
            lines.append(f"{note}: {workdir}")
            lines.append(as_called(f"use it: python -m purenoise_jax.predict {workdir} IMAGES"))
    for line in lines:
        console.print(line)
    return broken


if __name__ == "__main__":
    exit_process(main(sys.argv[1:]))
