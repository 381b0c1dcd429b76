"""Training curves: loss, accuracy and learning rate by epoch."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from purenoise_jax.analysis.figure_style import Drawing, Options, literal, styled
from purenoise_jax.inference.runs import Run
from purenoise_jax.runtime.console import SPLITS
from purenoise_jax.training.metrics import TRAINING_SET

ACCURACY = "accuracy"
PANELS = (
    ("train/loss", "training loss (nats)"),
    (ACCURACY, "accuracy (%)"),
    ("train/learning_rate", "learning rate"),
)
# Drawn beside the accuracy on the test set: style of the line, and its words in the title. Held-out
# images are as imbalanced as the others.
VALIDATION, TRAINING = "val/balanced_accuracy", f"{TRAINING_SET}/accuracy"
BESIDE = {
    VALIDATION: ("--", "dashed: validation, balanced"),
    TRAINING: ("-.", "dash-dotted: training"),
}


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
                for other, (style, _) in BESIDE.items() if name == ACCURACY else ():
                    if other in numbers[run.label]:
                        epochs, values = numbers[run.label][other]
                        color = axes.get_lines()[-1].get_color()
                        axes.plot(epochs, [100 * v for v in values], color=color, lw=1, ls=style)
            recorded = [
                epoch for run in runs for epoch in numbers[run.label][_recorded(run, name)][0]
            ]
            for start in starts:
                if recorded and min(recorded) <= start < max(recorded):
                    axes.axvline(start, color="#888888", lw=1, ls=":", zorder=0)
            axes.set_xlabel("completed epochs")
            axes.set_title(_title(runs, numbers) if name == ACCURACY else title)
            if not recorded:
                text = "none" if all(run.summary for run in runs) else "none yet"
                axes.text(0.5, 0.5, text, ha="center", transform=axes.transAxes)
                axes.set(xticks=[], yticks=[], xlabel="")
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
    """The series of a run by panel, and those of `BESIDE` that it has beside its own accuracy."""
    names = [_recorded(run, name) for name, _ in PANELS]
    numbers = {name: _series(run, name) for name in names}
    for name in BESIDE:
        beside = name == TRAINING or run.shown == "test"
        if beside and any(name in record for record in run.metrics):
            numbers[name] = _series(run, name)
    return numbers


def _recorded(run: Run, name: str) -> str:
    """The name in metrics.jsonl of what a panel shows."""
    return f"{run.shown}/accuracy" if name == ACCURACY else name


def _title(runs: Sequence[Run], numbers: dict[str, Any]) -> str:
    shown = [text for name, (_, text) in BESIDE.items() if any(name in s for s in numbers.values())]
    return "\n".join([f"{SPLITS[runs[0].shown]} accuracy (%)", *shown])


def _series(run: Run, name: str) -> list[list[float]]:
    found = [(record["epoch"], record[name]) for record in run.metrics if name in record]
    return [[epoch for epoch, _ in found], [value for _, value in found]]
