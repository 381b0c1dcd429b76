"""Training curves: loss, accuracy and learning rate by epoch."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from purenoise_jax.analysis.drawing import Drawing, Options, styled
from purenoise_jax.analysis.load import Run

PANELS = (
    ("train/loss", "training loss (nats)"),
    ("test/accuracy", "test accuracy (%)"),
    ("train/learning_rate", "learning rate"),
)


def draw(runs: Sequence[Run], options: Options) -> Drawing:
    """Three panels over completed epochs, a line for each run.

    Args:
      runs: at least one.
      options: not used.
    """
    del options
    numbers = {run.label: {name: _series(run, name) for name, _ in PANELS} for run in runs}
    with styled():
        figure = Figure(figsize=(10, 3.2))
        for axes, (name, title) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
            scale = 100 if name == "test/accuracy" else 1
            for run in runs:
                epochs, values = numbers[run.label][name]
                marker = "o" if name.startswith("test/") else None
                axes.plot(epochs, [scale * v for v in values], marker=marker, ms=3, label=run.label)
            axes.set_xlabel("epoch")
            axes.set_title(title)
            if name == "train/learning_rate":
                axes.set_yscale("log")
        if len(runs) > 1:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return Drawing(figure, numbers)


def _series(run: Run, name: str) -> list[list[float]]:
    found = [(record["epoch"], record[name]) for record in run.metrics if name in record]
    return [[epoch for epoch, _ in found], [value for _, value in found]]
