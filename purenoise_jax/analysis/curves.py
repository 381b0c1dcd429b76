"""Training curves: loss, accuracy and learning rate by epoch."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from purenoise_jax.analysis.figure_style import Drawing, Options, literal, styled
from purenoise_jax.inference.runs import Run

PANELS = (
    ("train/loss", "training loss (nats)"),
    ("test/accuracy", "test accuracy (%)"),
    ("train/learning_rate", "learning rate"),
)


def draw(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws three panels over completed epochs, a line per run; dotted lines mark new phases.

    Args:
        runs: at least one.
        options: not used.
    """
    del options
    numbers = {run.label: {name: _series(run, name) for name, _ in PANELS} for run in runs}
    starts = sorted({p.start_epoch for run in runs for p in run.config.phases.values()} - {0})
    with styled():
        figure = Figure(figsize=(10, 3.2))
        for axes, (name, title) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
            scale = 100 if name == "test/accuracy" else 1
            for i, run in enumerate(runs):
                epochs, values = numbers[run.label][name]
                axes.plot(
                    epochs,
                    [scale * v for v in values],
                    marker="o" if name.startswith("test/") else None,
                    ms=3,
                    # Runs often share their first epochs: earlier runs get wider lines, which stay
                    # visible below the later ones.
                    lw=3 - 1.5 * (i + 1) / len(runs),
                    # A learning rate is constant within its epoch, a loss is the mean over it.
                    drawstyle="steps-pre" if name == "train/learning_rate" else "default",
                    label=literal(run.label),
                )
            recorded = [epoch for run in runs for epoch in numbers[run.label][name][0]]
            for start in starts:
                if recorded and min(recorded) <= start < max(recorded):
                    axes.axvline(start, color="#888888", lw=1, ls=":", zorder=0)
            axes.set_xlabel("completed epochs")
            axes.set_title(title)
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
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return Drawing(figure, numbers)


def _series(run: Run, name: str) -> list[list[float]]:
    found = [(record["epoch"], record[name]) for record in run.metrics if name in record]
    return [[epoch for epoch, _ in found], [value for _, value in found]]
