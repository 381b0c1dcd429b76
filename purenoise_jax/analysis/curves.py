"""Training curves: loss, accuracy and learning rate by epoch."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from purenoise_jax.analysis.figure_style import Drawing, Options, literal, styled
from purenoise_jax.inference.runs import Run
from purenoise_jax.runtime.console import SPLITS

ACCURACY = "accuracy"
PANELS = (
    ("train/loss", "training loss (nats)"),
    (ACCURACY, "accuracy (%)"),
    ("train/learning_rate", "learning rate"),
)
# Drawn beside the accuracy on the test set; held-out images are as imbalanced as the others.
VALIDATION = "val/balanced_accuracy"


def draw(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws three panels over completed epochs, a line per run; dotted lines mark new phases.

    Args:
        runs: at least one.
        options: not used.
    """
    del options
    return _drawing(runs, rows=1)


def draw_stacked(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws the panels of `draw` below each other, for a narrow screen.

    Args:
        runs: at least one.
        options: not used.
    """
    del options
    return _drawing(runs, rows=len(PANELS))


def _drawing(runs: Sequence[Run], rows: int) -> Drawing:
    numbers = {run.label: _numbers(run) for run in runs}
    starts = sorted({p.start_epoch for run in runs for p in run.config.phases.values()} - {0})
    columns = len(PANELS) // rows
    with styled():
        figure = Figure(figsize=(10 / 3 * columns + 0.6 * (rows > 1), 3.2 * rows))
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (name, title) in zip(panels, PANELS, strict=True):
            scale = 100 if name == ACCURACY else 1
            for i, run in enumerate(runs):
                epochs, values = numbers[run.label][_recorded(run, name)]
                axes.plot(
                    epochs,
                    [scale * v for v in values],
                    marker="o" if name == ACCURACY else None,
                    ms=3,
                    # Runs often share their first epochs: earlier runs get wider lines, which stay
                    # visible below the later ones.
                    lw=3 - 1.5 * (i + 1) / len(runs),
                    # A learning rate is constant within its epoch, a loss is the mean over it.
                    drawstyle="steps-pre" if name == "train/learning_rate" else "default",
                    label=literal(run.label),
                )
                beside = numbers[run.label].get(VALIDATION) if name == ACCURACY else None
                if beside:
                    color = axes.get_lines()[-1].get_color()
                    axes.plot(beside[0], [100 * v for v in beside[1]], color=color, lw=1, ls="--")
            recorded = [
                epoch for run in runs for epoch in numbers[run.label][_recorded(run, name)][0]
            ]
            for start in starts:
                if recorded and min(recorded) <= start < max(recorded):
                    axes.axvline(start, color="#888888", lw=1, ls=":", zorder=0)
            axes.set_xlabel("completed epochs")
            axes.set_title(_title(runs, numbers) if name == ACCURACY else title)
            if not recorded:
                axes.text(0.5, 0.5, "none yet", ha="center", transform=axes.transAxes)
                continue
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
            if min(recorded) == max(recorded):
                axes.set_xlim(recorded[0] - 1, recorded[0] + 1)
            if name == "train/learning_rate":
                axes.set_yscale("log")
            else:
                axes.set_ylim(bottom=0)
        if len(runs) > 1:
            figure.legend(
                *axes.get_legend_handles_labels(),
                loc="outside lower center",
                ncols=4 if rows == 1 else 2,
            )
    return Drawing(figure, numbers)


def _numbers(run: Run) -> dict[str, list[list[float]]]:
    """The series of a run by panel, and its validation results if it has a test set as well."""
    names = [_recorded(run, name) for name, _ in PANELS]
    numbers = {name: _series(run, name) for name in names}
    if run.shown == "test" and any(VALIDATION in record for record in run.metrics):
        numbers[VALIDATION] = _series(run, VALIDATION)
    return numbers


def _recorded(run: Run, name: str) -> str:
    """The name in metrics.jsonl of what a panel shows."""
    return f"{run.shown}/accuracy" if name == ACCURACY else name


def _title(runs: Sequence[Run], numbers: dict[str, Any]) -> str:
    title = f"{SPLITS[runs[0].shown]} accuracy (%)"
    if any(VALIDATION in series for series in numbers.values()):
        title += "\ndashed: validation, balanced"
    return title


def _series(run: Run, name: str) -> list[list[float]]:
    found = [(record["epoch"], record[name]) for record in run.metrics if name in record]
    return [[epoch for epoch, _ in found], [value for _, value in found]]
