"""Lines of runs that ended elsewhere, so that a table can be continued where their folders are not.

A line is what `cells.write` wrote beside a table. It stands for a run of the same config, seed
included, so that run is not trained again, unless one that is still to do starts from it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from purenoise_jax.config.identity import config_hash
from purenoise_jax.runtime.console import SafeConsole
from purenoise_jax.runtime.errors import ConfigError, counted
from purenoise_jax.runtime.files import read_bytes
from purenoise_jax.runtime.paths import expand

from .plan import Table
from .planning import Task, tasks_of_cell

OPTION = "--lines"
# What a line must have to take part in a table.
NEEDED = ("config_hash", "seed", "test_accuracy")

# Config hash -> the line of the run.
Lines = Mapping[str, Mapping[str, Any]]


def read_lines(paths: Iterable[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Reads files that were written beside tables.

    Args:
        paths: of JSON lines, such as tables/methods.jsonl.

    Returns:
        Path -> `Lines`. If a run has several lines in a file, the last one counts.

    Raises:
        ConfigError: a file is missing, or a line is not that of a run's last epoch.
    """
    return {path: _of_file(expand(path, OPTION)) for path in paths}


def final_tasks(table: Table, seeds: Iterable[int], root: Path) -> list[Task]:
    """The runs whose numbers a table shows: the last one of each cell and seed."""
    cells = [cell for cell in table.cells if cell.config is not None]
    return [tasks_of_cell(cell, seed, root)[-1] for seed in seeds for cell in cells]


def without_known(tasks: Sequence[Task], final: Sequence[Task], lines: Lines) -> list[Task]:
    """Leaves out the runs that have a line, and those that only such runs start from.

    Args:
        tasks: of a table, each after those that it starts from.
        final: of the same table, see `final_tasks`.
        lines: of all files.
    """
    needed = {task.workdir for task in final if config_hash(task.config) not in lines}
    kept: list[Task] = []
    for task in reversed(tasks):
        if task.workdir in needed:
            kept.append(task)
            needed.update(task.starts_from)
    return kept[::-1]


def show_use(files: Mapping[str, Lines], final: Sequence[Task], console: SafeConsole) -> None:
    """Says how many lines of each file belong to a table.

    Args:
        files: from `read_lines`.
        final: of the table, see `final_tasks`.
        console: where it is said.

    Raises:
        ConfigError: a file has none.
    """
    hashes = {config_hash(task.config) for task in final}
    for path, lines in files.items():
        used = len(hashes & {*lines})
        if not used:
            raise ConfigError(
                f"{OPTION} {path}: {counted(len(lines), 'run')}, none with the config of one of "
                "this table; legal: lines of the same table, data, --tier, --epochs and --set"
            )
        console.print(f"{path}: {counted(used, 'run')} of this table, not trained again")


def _of_file(path: Path) -> dict[str, dict[str, Any]]:
    try:
        text = read_bytes(path).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{OPTION} {path} cannot be read: {error}") from None
    found = {}
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            record = json.loads(line)
            missing = [name for name in NEEDED if name not in record]
        except (ValueError, TypeError):
            raise ConfigError(f"{OPTION} {path}, line {number}: not JSON of a run") from None
        if missing or "select" in record:
            why = "of another epoch than the last" if "select" in record else f"no {missing[0]}"
            raise ConfigError(
                f"{OPTION} {path}, line {number}: {why}; legal: lines of tables/TABLE.jsonl"
            )
        found[record["config_hash"]] = record
    return found
