"""Collects a table's numbers from the workdirs of its runs, shows them and writes them."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table as Grid

from launch.plan import Cell, Plan, Table
from launch.planning import tasks_of
from purenoise_jax.runtime.console import SafeConsole
from purenoise_jax.runtime.files import write_atomically

MISSING = "missing"
SHOTS = ("few", "medium", "many")
CAVEAT = "caveat"
# Fields of each run's summary that are written to NAME.jsonl.
RECORDED = (
    "test_accuracy", "balanced_accuracy", "group_accuracy", "few_accuracy", "medium_accuracy",
    "many_accuracy", "geometric_mean", "test_nll", "test_ece", "per_class_accuracy", "epochs",
    "steps", "seed", "config_hash", "dataset_fingerprint", "state_digest", "init_from",
    "images_per_second", "seconds", "devices", "versions",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Row:
    """A cell and the summaries of its finished runs."""

    cell: Cell
    wanted: int
    summaries: tuple[dict[str, Any], ...]

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

    def by_shots(self) -> str:
        """Mean and standard error for classes with few, medium and many training images."""
        if not self.summaries:
            return MISSING
        values = [[s.get(f"{name}_accuracy") for s in self.summaries] for name in SHOTS]
        present = [[v for v in of_shot if v is not None] for of_shot in values]
        return " / ".join(mean_and_error(found) if found else "-" for found in present)

    def difference(self, other: "Row") -> str:
        """Mean and standard error of the difference to another row, paired by seed."""
        there = {s["seed"]: s["test_accuracy"] for s in other.summaries}
        pairs = [
            s["test_accuracy"] - there[s["seed"]] for s in self.summaries if s["seed"] in there
        ]
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
    error = 100 * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return f"{mean:.1f} ± {error:.1f}"


def collect(table: Table, seeds: int, root: Path) -> list[Row]:
    """Reads the summaries of all finished runs of a table."""
    rows = []
    for cell in table.cells:
        config = cell.config
        last = [] if config is None else [tasks_of(config, s, root)[-1] for s in range(seeds)]
        found = tuple(s for s in (task.summary for task in last) if s is not None)
        rows.append(Row(cell, seeds, found))
    return rows


def columns(table: Table, plan: Plan) -> list[str]:
    """Headings of a table."""
    extra = ["rarest fifth"] if table.groups else []
    extra += [" / ".join(SHOTS)] if table.shots else []
    extra += [f"to {name}" for name in table.baselines]
    note = [CAVEAT] if plan.caveat and not plan.mini else []
    return ["", *table.published, "here", *extra, *note]


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
    published = [n or "-" for n in (cell.paper, cell.reproduction)[: len(table.published)]]
    return [cell.method, *published, row.number("test_accuracy"), *extra, *note]


def show(table: Table, rows: Sequence[Row], plan: Plan, console: SafeConsole) -> None:
    """Prints a table: a grid for each setting, aligned."""
    console.print(f"\n{_title(table, plan)}", style="bold")
    heads = columns(table, plan)
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
    console.print(_legend(table))


def write(table: Table, rows: Sequence[Row], plan: Plan, folder: Path, name: str) -> list[Path]:
    """Writes NAME.md, and NAME.jsonl with a line for every run behind the table.

    Returns:
        The paths written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    heads = columns(table, plan)
    lines = [f"# {_title(table, plan)}", ""]
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
        f"Test accuracy in percent, mean ± standard error. Published: {table.source}.",
        "",
    ]
    records = []
    for row in rows:
        for summary in row.summaries:
            record = {key: summary[key] for key in RECORDED if key in summary}
            origin = record.get("init_from")
            if origin:
                # Only the last two parts, because the path of this machine means nothing elsewhere.
                run = Path(origin["workdir"])
                record["init_from"] = {**origin, "workdir": f"{run.parent.name}/{run.name}"}
            head = {"table": name, "setting": row.cell.setting, "method": row.cell.method}
            note = {"caveat": plan.caveat} if plan.caveat else {}
            records.append(json.dumps({**head, **note, **record}, allow_nan=False) + "\n")
    paths = [folder / f"{name}.md", folder / f"{name}.jsonl"]
    write_atomically(paths[0], "\n".join(lines))
    write_atomically(paths[1], "".join(records))
    return paths


def _title(table: Table, plan: Plan) -> str:
    parts = [table.title, f"preset {plan.preset}", plan.caveat]
    return "; ".join(filter(None, parts))


def _legend(table: Table) -> str:
    published = "" if table.source == "new" else f" Published: {table.source}."
    return f"Test accuracy in percent, mean ± standard error over seeds.{published}"
