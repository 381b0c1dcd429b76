"""Compares methods by the summaries of their runs: a table, its files, and a figure."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from rich import box
from rich.table import Table as Grid

from purenoise_jax.analysis.figure_style import COLORS, Drawing, literal, save, styled
from purenoise_jax.runtime.console import SafeConsole
from purenoise_jax.runtime.files import write_atomically
from purenoise_jax.training.metrics import standard_error

from .cells import MISSING, Row, mean_and_error, record_of
from .summaries import TEST, VALIDATION, accuracy, balanced_accuracy, rarest, split_of

# Beside the first method, the one that others are compared with if it is there.
REFERENCE = "drs"
NAME = "comparison"
MARKERS = "osD^vPX*"


class Measure(NamedTuple):
    """A number of a run.

    Attributes:
        title: heading of its column.
        of: summary -> share in [0, 1], or None.
    """

    title: str
    of: Callable[[Mapping[str, Any]], float | None]


BALANCED = Measure("balanced accuracy", balanced_accuracy)
MEASURES = (BALANCED, Measure("accuracy", accuracy), Measure("rarest classes", rarest))
# Shown beside the numbers of the test images, if it is known.
ON_VALIDATION = Measure(
    "validation, balanced accuracy", lambda summary: summary.get("val_balanced_accuracy")
)


def values(row: Row, measure: Measure) -> dict[int, float]:
    """Returns a measure of each finished run of a method, by seed."""
    found = {summary["seed"]: measure.of(summary) for summary in row.summaries}
    return {seed: value for seed, value in found.items() if value is not None}


def paired(row: Row, other: Row, measure: Measure = BALANCED) -> list[float]:
    """Returns the differences of a method to another one, a seed each that both have."""
    here, there = values(row, measure), values(other, measure)
    return [here[seed] - there[seed] for seed in here if seed in there]


def baselines(rows: Sequence[Row]) -> list[Row]:
    """Returns the methods that all others are compared with: the first, and DRS."""
    return [rows[0], *(row for row in rows[1:] if row.cell.method == REFERENCE)]


def measures(rows: Sequence[Row]) -> tuple[Measure, ...]:
    """Returns the measures of the table."""
    summaries = [summary for row in rows for summary in row.summaries]
    both = any(
        split_of(summary) == TEST and ON_VALIDATION.of(summary) is not None for summary in summaries
    )
    return (*MEASURES, ON_VALIDATION) if both else MEASURES


def columns(rows: Sequence[Row]) -> list[str]:
    """Returns the headings of the table."""
    compared = [f"to {row.cell.method}" for row in baselines(rows)] if len(rows) > 1 else []
    return ["method", "runs", *(measure.title for measure in measures(rows)), *compared]


def entries(row: Row, rows: Sequence[Row]) -> list[str]:
    """Returns the entries of a method, in the order of `columns`."""
    done, wanted = len(row.summaries), row.wanted
    runs = str(done) if done == wanted else f"{done} of {wanted}"
    found = [list(values(row, measure).values()) for measure in measures(rows)]
    none = "-" if row.summaries else MISSING
    numbers = [mean_and_error(each) if each else none for each in found]
    compared = baselines(rows) if len(rows) > 1 else []
    return [row.cell.method, runs, *numbers, *(_difference(row, other) for other in compared)]


def _difference(row: Row, other: Row) -> str:
    pairs = [] if other.cell is row.cell else paired(row, other)
    if not pairs:
        return "-"
    text = mean_and_error(pairs)
    return text if text.startswith("-") else f"+{text}"


def legend(rows: Sequence[Row]) -> str:
    """Returns the sentence below the table."""
    summaries = [summary for row in rows for summary in row.summaries]
    on_validation = any(split_of(summary) == VALIDATION for summary in summaries)
    images = "validation" if on_validation else "test"
    few = any(not summary.get("group_accuracy") for summary in summaries)
    rare = "the rarest class" if few else "the rarest fifth of the classes"
    note = " One seed: small differences may be due to chance." if rows[0].wanted == 1 else ""
    return (
        f"Percent of the {images} images, mean ± standard error over seeds; rarest classes: "
        f"{rare}. Differences are of balanced accuracy, paired by seed.{note}"
    )


def show(title: str, rows: Sequence[Row], console: SafeConsole) -> None:
    """Prints the table."""
    grid = Grid(title=title, title_style="bold", title_justify="left", box=box.SIMPLE_HEAD)
    heads, lines = columns(rows), [entries(row, rows) for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
    for number, name in enumerate(heads):
        # In a narrow terminal the lines wrap; nothing is cut off.
        grid.add_column(
            name,
            justify="right" if number else "left",
            no_wrap=True,
            min_width=widths[number],
        )
    for line in lines:
        grid.add_row(*line)
    console.print()
    console.print(grid)
    console.print(legend(rows))


def write(title: str, rows: Sequence[Row], folder: Path) -> list[Path]:
    """Writes the table as Markdown, its runs as JSON lines, and the figure.

    Args:
        title: heading.
        rows: a method each, with at least one finished run among them for the figure.
        folder: created if it does not exist.

    Returns:
        The paths written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    heads = columns(rows)
    lines = [f"# {title}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    lines += [f"| {' | '.join(entries(row, rows))} |" for row in rows]
    records = [
        {"method": row.cell.method, **record_of(summary)}
        for row in rows
        for summary in row.summaries
    ]
    paths = [folder / f"{NAME}.md", folder / f"{NAME}.jsonl"]
    write_atomically(paths[0], "\n".join([*lines, "", legend(rows), ""]))
    write_atomically(
        paths[1], "".join(json.dumps(record, allow_nan=False) + "\n" for record in records)
    )
    return [*paths, *(save(draw(rows), folder, NAME) if records else ())]


def draw(rows: Sequence[Row]) -> Drawing:
    """Draws the balanced accuracy of each method, and its accuracy by the frequency of classes.

    A method has one colour in both. Bars are standard errors, small points are seeds.

    Args:
        rows: a method each; those without a finished run are left out.
    """
    rows = [row for row in rows if values(row, BALANCED)]
    numbers: dict[str, Any] = {}
    with styled():
        figure = Figure(figsize=(9.6, max(2.8, 1.2 + 0.36 * len(rows))))
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        fifths = any(summary.get("group_accuracy") for row in rows for summary in row.summaries)
        for place, row in enumerate(rows):
            color = COLORS[place % len(COLORS)]
            marker = MARKERS[place // len(COLORS) % len(MARKERS)]
            name = row.cell.method
            by_seed = values(row, BALANCED)
            seeds = [100 * value for value in by_seed.values()]
            mean, error = _mean_and_error(seeds)
            left.plot(seeds, [place] * len(seeds), ".", color=color, alpha=0.45, markersize=5)
            left.errorbar(mean, place, xerr=error, fmt=marker, color=color, capsize=3)
            shares = _by_frequency(row)
            numbers[name] = {"balanced_accuracy": by_seed, "by_frequency": shares}
            known = [(x, *_mean_and_error(found)) for x, found in enumerate(shares) if found]
            if known:
                x, y, bars = zip(*known, strict=True)
                # Moved a little, so that the bars of several methods do not hide each other.
                moved = np.asarray(x) + 0.05 * (place - (len(rows) - 1) / 2)
                style = f"{marker}-" if fifths else marker
                right.errorbar(moved, y, yerr=bars, fmt=style, color=color, markersize=4)
        left.set_yticks(range(len(rows)), [literal(row.cell.method) for row in rows])
        for place, label in enumerate(left.get_yticklabels()):
            label.set_color(COLORS[place % len(COLORS)])
        left.invert_yaxis()
        left.set_xlabel("balanced accuracy (%)")
        groups = max((len(each["by_frequency"]) for each in numbers.values()), default=0)
        ends = {0: "rarest", groups - 1: "most\nfrequent"} if groups > 1 else {0: "rarest"}
        right.set_xticks(range(groups), [ends.get(x, "") for x in range(groups)])
        right.set_xlabel("fifths of the classes" if fifths else "classes")
        right.set_ylabel("accuracy (%)")
    return Drawing(figure, numbers)


def _by_frequency(row: Row) -> list[list[float]]:
    """Accuracy in percent of each fifth of the classes, or of each of few, by run."""
    found = []
    for summary in row.summaries:
        shares = summary.get("group_accuracy")
        counts, each = summary.get("class_counts"), summary.get("per_class_accuracy")
        if not shares and counts and each:
            order = np.lexsort((-np.arange(len(counts)), counts))
            shares = [each[k] for k in order]
        found.append(shares or [])
    length = max(map(len, found), default=0)
    return [
        [100 * shares[i] for shares in found if i < len(shares) and shares[i] is not None]
        for i in range(length)
    ]


def _mean_and_error(found: Sequence[float]) -> tuple[float, float]:
    if len(found) == 1:
        return found[0], 0.0
    return float(np.mean(found)), standard_error(found)
