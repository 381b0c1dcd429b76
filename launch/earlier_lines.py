"""Lines of runs that ended elsewhere, so that a table can be continued where their folders are not.

A line is what `cells.write` wrote beside a table. It stands for the run of the same row and config,
seed included, so that run is not trained again, unless one that is still to do starts from it.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from purenoise_jax.config.identity import config_hash
from purenoise_jax.runtime.console import SafeConsole
from purenoise_jax.runtime.errors import ConfigError, counted
from purenoise_jax.runtime.files import read_bytes
from purenoise_jax.runtime.paths import expand

from .plan import Cell, Table
from .planning import Task, tasks_of_cell

OPTION = "--lines"
# What a line must have to take part in a table.
NEEDED = ("setting", "method", "config_hash", "seed", "test_accuracy")
# Fields that change the result of a run, but are neither in its config hash nor in its row.
UNSAID = {"init_aux_bn", "model.pretrained", "data.train_list", "data.val_list", "data.test_list"}


class Key(NamedTuple):
    """The run that a line is of.

    Attributes:
        setting: of the row, see `Cell`. Rows may differ in a file that the hash does not contain.
        method: of the row.
        config_hash: of the run, which contains its seed.
    """

    setting: str
    method: str
    config_hash: str


Lines = Mapping[Key, Mapping[str, Any]]


def key_of(cell: Cell, task: Task) -> Key:
    """The key of the last run of a cell."""
    return Key(cell.setting, cell.method, config_hash(task.config))


def read_lines(paths: Iterable[str]) -> dict[str, dict[Key, dict[str, Any]]]:
    """Reads files that were written beside tables.

    Args:
        paths: of JSON lines, such as tables/methods.jsonl.

    Returns:
        Path -> `Lines`. If a run has several lines in a file, the last one counts.

    Raises:
        ConfigError: a file is missing, or a line is not that of a run's last epoch.
    """
    return {path: _of_file(expand(path, OPTION)) for path in paths}


def check_fields(given: Collection[str]) -> None:
    """Checks the fields that a plan sets.

    Args:
        given: names of `Plan.overrides`.

    Raises:
        ConfigError: lines do not say the value of one, so they may be of other runs.
    """
    for name in sorted(UNSAID & {*given}):
        raise ConfigError(f"{OPTION} with --set {name}: lines do not say it; use only one of them")


def final_runs(table: Table, seeds: Iterable[int], root: Path) -> dict[Key, Task]:
    """The runs whose numbers a table shows: the last one of each cell and seed."""
    cells = [cell for cell in table.cells if cell.config is not None]
    last = [(cell, tasks_of_cell(cell, seed, root)[-1]) for seed in seeds for cell in cells]
    return {key_of(cell, task): task for cell, task in last}


def not_needed(tasks: Sequence[Task], final: Mapping[Key, Task], lines: Lines) -> set[Path]:
    """The workdirs of runs that have a line, and of those that only such runs start from.

    Args:
        tasks: of a table, each after those that it starts from.
        final: of the same table, see `final_runs`.
        lines: of all files.
    """
    needed = {task.workdir for key, task in final.items() if key not in lines}
    for task in reversed(tasks):
        if task.workdir in needed:
            needed.update(task.starts_from)
    return {task.workdir for task in tasks} - needed


def show_use(
    files: Mapping[str, Lines],
    final: Mapping[Key, Task],
    elsewhere: Collection[Path],
    console: SafeConsole,
) -> None:
    """Says how many lines of each file belong to a table, and which of their runs are trained.

    Args:
        files: from `read_lines`.
        final: of the table, see `final_runs`.
        elsewhere: see `not_needed`.
        console: where it is said.

    Raises:
        ConfigError: a file has none.
    """
    for path, lines in files.items():
        used = [task for key, task in final.items() if key in lines]
        if not used:
            raise ConfigError(
                f"{OPTION} {path}: {counted(len(lines), 'line')}, none of a run of this table; "
                "legal: lines of the same table, data, --tier, --epochs and --set"
            )
        again = sum(task.workdir not in elsewhere for task in used)
        note = f"; needed here all the same, because others start from them: {again}"
        console.print(
            f"{path}: uses {len(used)} of {counted(len(lines), 'line')}{note if again else ''}"
        )


def _of_file(path: Path) -> dict[Key, dict[str, Any]]:
    try:
        text = read_bytes(path).decode()
    except OSError as error:
        raise ConfigError(f"{OPTION} {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{OPTION} {path}: not a text") from None
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
        key = Key(record["setting"], record["method"], record["config_hash"])
        found[key] = record
    return found
