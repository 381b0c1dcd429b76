"""Collects a table's numbers from the workdirs of its runs, shows them and writes them."""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from rich import box
from rich.table import Table as Grid

from purenoise_jax.runtime.console import SafeConsole
from purenoise_jax.runtime.files import write_atomically
from purenoise_jax.training.metrics import standard_error
from purenoise_jax.training.selection import LAST

from .data_sets import hints
from .earlier_lines import Lines, key_of
from .plan import Cell, Plan, Table
from .planning import tasks_of_cell

MISSING = "missing"
SHOTS = ("few", "medium", "many")
CAVEAT = "caveat"
BEST = "best on test"
BEST_NOTE = "Best on test: the best of the evaluated epochs; how many there were is in brackets."
TITLES = {
    LAST: "",
    "val": "best epochs on validation images",
    "test_best": "best epochs on the test set, too high because they were chosen there",
}
# Fields of a summary that belong to the last epoch.
OF_LAST = {
    "test_accuracy", "balanced_accuracy", "group_accuracy", "few_accuracy", "medium_accuracy",
    "many_accuracy", "geometric_mean", "test_nll", "test_ece", "per_class_accuracy",
    "top5_accuracy", "state_digest",
}  # fmt: skip
# Fields of each run's summary that are written to NAME.jsonl.
RECORDED = (
    "test_accuracy", "balanced_accuracy", "group_accuracy", "few_accuracy", "medium_accuracy",
    "many_accuracy", "geometric_mean", "test_nll", "test_ece", "per_class_accuracy", "epochs",
    "steps", "seed", "config_hash", "dataset_fingerprint", "state_digest", "init_from",
    "images_per_second", "seconds", "devices", "versions", "selected", "shown", "val_accuracy",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Row:
    """A cell and its finished runs.

    Attributes:
        cell: the cell.
        wanted: number of runs.
        summaries: of the finished runs, in the order of their seeds.
        workdirs: of those that have one here, in the same order.
    """

    cell: Cell
    wanted: int
    summaries: tuple[dict[str, Any], ...]
    workdirs: tuple[Path, ...] = ()

    def number(self, name: str, index: int | None = None) -> str:
        """Mean and standard error in percent over the finished runs, and the number missing."""
        if self.cell.needs:
            return f"{MISSING}: needs {self.cell.needs}"
        if not self.summaries:
            return MISSING
        values = [s.get(name) for s in self.summaries]
        if index is not None:
            values = [v[index] if v else None for v in values]
        present = [v for v in values if v is not None]
        if not present:
            return "-"
        return self._counted(mean_and_error(present), len(present))

    def best_on_test(self) -> str:
        """Mean and standard error of the best epochs on the test set; "-" if not all are known.

        Behind them is the number of epochs that were evaluated, of the run with the fewest.
        """
        found = [s.get("selected", {}).get("test_best", {}) for s in self.summaries]
        known = [each for each in found if each.get("evaluations", 0) > 1]
        if not known or len(known) < len(found):
            return "-"
        number = mean_and_error([each["test_accuracy"] for each in known])
        return f"{number} (of {min(each['evaluations'] for each in known)})"

    def by_shots(self) -> str:
        """Mean and standard error for classes with few, medium and many training images."""
        if not self.summaries:
            return MISSING
        values = [[s.get(f"{name}_accuracy") for s in self.summaries] for name in SHOTS]
        present = [[v for v in of_shot if v is not None] for of_shot in values]
        return " / ".join(mean_and_error(found) if found else "-" for found in present)

    def difference(self, other: "Row") -> str:
        """Mean and standard error of the difference to another row, paired by seed."""
        there, here = (
            {s["seed"]: s["test_accuracy"] for s in row.summaries if s["test_accuracy"] is not None}
            for row in (other, self)
        )
        pairs = [here[seed] - there[seed] for seed in here if seed in there]
        if other.cell is self.cell or not pairs:
            return "-"
        text = mean_and_error(pairs)
        return text if text.startswith("-") else f"+{text}"

    def _counted(self, text: str, count: int) -> str:
        less = f", {self.wanted - count} {MISSING}" if count < self.wanted else ""
        return f"{text} (n={count}{less})"


def mean_and_error(values: Sequence[float]) -> str:
    """Formats fractions in [0, 1] as "84.6 ± 0.2", mean and standard error in percent.

    A single value has no error.
    """
    mean = 100 * float(np.mean(values))
    if len(values) == 1:
        return f"{mean:.1f}"
    error = 100 * standard_error(values)
    return f"{mean:.1f} ± {error:.1f}"


def collect(
    table: Table,
    seeds: int,
    root: Path,
    select: str = LAST,
    lines: Lines = MappingProxyType({}),
) -> list[Row]:
    """Reads the summaries of all finished runs of a table.

    Args:
        table: whose runs.
        seeds: runs of a cell.
        root: folder of all runs.
        select: the epoch that is reported, one of `SELECT`.
        lines: of runs that ended elsewhere, which count if these are not finished here.
    """
    rows = []
    for cell in table.cells:
        known = range(0 if cell.config is None else seeds)
        last = [tasks_of_cell(cell, seed, root)[-1] for seed in known]
        ended = {task.workdir: task.summary for task in last}
        found = [
            of_epoch(dict(summary), select)
            for task in last
            if (summary := ended[task.workdir] or lines.get(key_of(cell, task)))
        ]
        there = tuple(workdir for workdir, summary in ended.items() if summary)
        rows.append(Row(cell, seeds, tuple(found), there))
    return rows


def of_epoch(summary: dict[str, Any], select: str) -> dict[str, Any]:
    """Returns a summary with the accuracy of the epoch that a rule chooses.

    Of other epochs than the last only the accuracy is known, and all else is left out. Where there
    was no choice, as in a second stage of one epoch and in a run that trains nothing, the accuracy
    is left out, too.

    Args:
        summary: of a finished run.
        select: one of `SELECT`.
    """
    if select == LAST:
        return summary
    chosen = summary.get("selected", {}).get(select, {})
    accuracy = chosen["test_accuracy"] if chosen.get("evaluations", 0) > 1 else None
    kept = {name: value for name, value in summary.items() if name not in OF_LAST}
    return {**kept, "test_accuracy": accuracy}


def columns(table: Table, plan: Plan, rows: Sequence[Row] = ()) -> list[str]:
    """Headings of a table; the best epochs on the test set have a column if any are known."""
    extra = ["rarest fifth"] if table.groups else []
    extra += [" / ".join(SHOTS)] if table.shots else []
    extra += [f"to {name}" for name in table.baselines]
    note = [CAVEAT] if plan.caveat and not plan.mini else []
    best = [BEST] if any(row.best_on_test() != "-" for row in rows) else []
    return ["", *table.published, "here", *best, *extra, *note]


def entries(row: Row, table: Table, plan: Plan, rows: Sequence[Row] = ()) -> list[str]:
    """The entries of one row, in the order of `columns`.

    Args:
        row: the row.
        table: that it belongs to.
        plan: of the runs.
        rows: all rows, among which are those of `table.baselines`.
    """
    cell = row.cell
    can_run = not cell.needs
    extra = [row.number("group_accuracy", 0) if can_run else "-"] if table.groups else []
    extra += [row.by_shots() if can_run else "-"] if table.shots else []
    for name in table.baselines:
        found = [r for r in rows if (r.cell.method, r.cell.setting) == (name, cell.setting)]
        extra.append(row.difference(found[0]) if found else "-")
    note = [plan.caveat] if plan.caveat and not plan.mini else []
    numbers = itertools.zip_longest(table.published, cell.published)
    published = [number or "-" for _, number in numbers]
    best = [row.best_on_test()] if BEST in columns(table, plan, rows) else []
    return [cell.method, *published, row.number("test_accuracy"), *best, *extra, *note]


def show(
    table: Table, rows: Sequence[Row], plan: Plan, console: SafeConsole, select: str = LAST
) -> None:
    """Prints a table: a grid for each setting, aligned."""
    console.print(f"\n{_title(table, plan, select)}", style="bold")
    heads = columns(table, plan, rows)
    lines = {id(row): entries(row, table, plan, rows) for row in rows}
    widths = [max(map(len, column)) for column in zip(heads, *lines.values(), strict=True)]
    settings = list(dict.fromkeys(row.cell.setting for row in rows))
    for setting in settings:
        grid = Grid(title=setting, title_style="italic", title_justify="left", box=box.SIMPLE_HEAD)
        for i, name in enumerate(heads):
            justify: Any = "left" if i == 0 or name == CAVEAT else "right"
            grid.add_column(name, justify=justify, no_wrap=True, min_width=widths[i])
        for row in rows:
            if row.cell.setting == setting:
                grid.add_row(*lines[id(row)])
        console.print(grid)
    console.print(_legend(table, heads))
    for hint in hints(table.cells):
        console.print(hint)


def write(
    table: Table,
    rows: Sequence[Row],
    plan: Plan,
    folder: Path,
    name: str,
    select: str = LAST,
) -> list[Path]:
    """Writes NAME.md, and NAME.jsonl with a line for every run behind the table.

    The files of tables with other epochs than the last are named after the rule, too.

    Returns:
        The paths written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    heads = columns(table, plan, rows)
    lines = [f"# {_title(table, plan, select)}", ""]
    setting = None
    for row in rows:
        if row.cell.setting != setting:
            setting = row.cell.setting
            lines += [
                "",
                f"| {setting} | " + " | ".join(heads[1:]) + " |",
                "|---" * len(heads) + "|",
            ]
        lines.append("| " + " | ".join(entries(row, table, plan, rows)) + " |")
    lines += [
        "",
        " ".join([_legend(table, heads), *hints(table.cells)]),
        "",
    ]
    records = []
    for row in rows:
        for summary in row.summaries:
            head = {"table": name, "setting": row.cell.setting, "method": row.cell.method}
            caveat = plan.caveat_of(row.cell.config) if row.cell.config else ""
            note = {"caveat": caveat} if caveat else {}
            note |= {"select": select} if select != LAST else {}
            record = {**head, **note, **record_of(summary)}
            records.append(json.dumps(record, allow_nan=False) + "\n")
    stem = name if select == LAST else f"{name}-{select}"
    paths = [folder / f"{stem}.md", folder / f"{stem}.jsonl"]
    write_atomically(paths[0], "\n".join(lines))
    write_atomically(paths[1], "".join(records))
    return paths


def record_of(summary: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of a summary that are written beside a table."""
    record = {key: summary[key] for key in RECORDED if key in summary}
    origin = record.get("init_from")
    if origin:
        # Only the last two parts, because the path of this machine means nothing elsewhere.
        run = Path(origin["workdir"])
        record["init_from"] = {**origin, "workdir": f"{run.parent.name}/{run.name}"}
    return record


def _title(table: Table, plan: Plan, select: str) -> str:
    parts = [table.title, f"preset {plan.preset}", plan.caveat, TITLES[select]]
    return "; ".join(filter(None, parts))


def _legend(table: Table, heads: Sequence[str]) -> str:
    shown = table.published and table.source != "new"
    published = f" Published: {table.source}." if shown else ""
    best = BEST_NOTE if BEST in heads else ""
    parts = f"Test accuracy in percent, mean ± standard error over seeds.{published}", best
    return " ".join(filter(None, (*parts, table.note)))
