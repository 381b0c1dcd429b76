"""Collects measurements and the reasons for missing ones, and prints tables."""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
from rich.table import Table

from benchmarks.timing import Program, interleave
from purenoise_jax.runtime.console import SafeConsole

Row = dict[str, Any]


class Bench:
    """Collects rows; a measurement that fails is skipped.

    Args:
        options: the parsed command line.
        console: console for the tables.
    """

    def __init__(self, options: argparse.Namespace, console: SafeConsole) -> None:
        self.options = options
        self.console = console
        self.device = jax.devices()[0]
        self.on_cpu = self.device.platform == "cpu"
        self.rows: list[Row] = []
        self.skipped: list[dict[str, str]] = []
        self.steps_per_call = 1 if self.on_cpu else options.steps_per_call
        self._end = time.monotonic() + 60 * options.minutes

    def left(self) -> float:
        """Seconds until no new group of measurements may begin."""
        return self._end - time.monotonic()

    def skip(self, what: str, why: str) -> None:
        """Reports a measurement that is skipped."""
        self.skipped.append({"name": what, "why": why})
        text = f"not measured: {what}: {why}"
        self.console.print(text, style="yellow")

    def attempt(self, what: str, make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The result of a call; None, with the reason reported, if it fails or time is up."""
        if self.left() <= 0:
            return self.skip(what, f"--minutes={self.options.minutes:g} are over")
        try:
            return make(*args, **kwargs)
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            return self.skip(what, f"{type(error).__name__}: {lines[0][:200]}")

    def prepare(self, makers: dict[str, Callable[[], Program]], group: str) -> dict[str, Program]:
        """Makes the programs and runs each once; those that fail are left out."""

        def ready(make: Callable[[], Program]) -> Program:
            program = make()
            program.run()
            return program

        made = {n: self.attempt(f"{group}: {n}", ready, make) for n, make in makers.items()}
        return {name: program for name, program in made.items() if program is not None}

    def time(self, suite: str, group: str, programs: dict[str, Program]) -> list[Row]:
        """Times a group in turn, adds its rows and returns them."""
        if not programs:
            return []
        times = interleave(
            programs,
            rounds=self.options.rounds,
            seconds=min(max(self.left(), 1), 60 * self.options.minutes / 4),
        )
        rows = [
            {"suite": suite, "group": group, "name": name} | times[name] | dict(program.facts)
            for name, program in programs.items()
        ]
        for row in rows:
            if row.get("batch_size") and suite != "overhead":
                row["images_per_second"] = row["batch_size"] / row["ms"] * 1000
        self.rows += rows
        return rows

    def add(self, suite: str, group: str, rows: list[Row] | None) -> list[Row]:
        """Adds rows that were measured elsewhere."""
        added = [{"suite": suite, "group": group} | row for row in rows or []]
        self.rows += added
        return added

    def table(self, title: str, rows: list[Row], columns: dict[str, Callable[[Row], str]]) -> None:
        """Prints rows, if there are any; a function of the row makes each column."""
        if not rows:
            return
        table = Table(title=title, title_justify="left")
        for i, name in enumerate(columns):
            table.add_column(name, justify="right" if i else "left", no_wrap=True)
        for row in rows:
            table.add_row(*(column(row) for column in columns.values()))
        self.console.print(table)


def number(key: str, form: str = "{:,.1f}", scale: float = 1.0) -> Callable[[Row], str]:
    """A column that shows one number of a row, or nothing."""

    def show(row: Row) -> str:
        value = row.get(key)
        if value is None:
            return ""
        return form.format(value if scale == 1 else value * scale)

    return show


def name_of(row: Row) -> str:
    """The first column."""
    return str(row["name"])


TIME: dict[str, Callable[[Row], str]] = {
    "": name_of,
    "ms": number("ms"),
    "quartiles": lambda row: f"{row['ms_low']:,.1f} .. {row['ms_high']:,.1f}",
}
