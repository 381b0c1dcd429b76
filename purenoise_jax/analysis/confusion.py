"""Row-normalised confusion matrices on the test set; of many classes, what is in their errors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from purenoise_jax.analysis import confused_classes
from purenoise_jax.analysis.figure_style import Drawing, Options, styled
from purenoise_jax.analysis.latest_evaluation import Evaluation, latest_evaluation
from purenoise_jax.inference.runs import Run

# Largest numbers of classes with a matrix, with names, and with numbers in the cells.
CELLS, NAMED, WRITTEN = 200, 20, 20
ROOMY = 10  # with more classes than this, a matrix with numbers is drawn larger
COLUMNS = 3


def draw(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws a matrix for each run; rows are true classes, the most frequent in training on top.

    If one has more than CELLS classes, `confused_classes` draws all of them.

    Args:
        runs: at least one.
        options: not used.

    Raises:
        ConfigError: a run has no evaluation yet, or no file with the matrix of many classes.
    """
    del options
    evaluations = {run.label: latest_evaluation(run) for run in runs}
    if any(len(evaluation.class_counts) > CELLS for evaluation in evaluations.values()):
        return confused_classes.draw(evaluations)
    numbers = {label: _numbers(evaluation) for label, evaluation in evaluations.items()}
    columns = min(len(runs), COLUMNS)
    rows = -(-len(runs) // columns)
    with styled():
        most = max(len(shown["classes"]) for shown in numbers.values())
        size = 1.5 if ROOMY < most <= WRITTEN else 1.0
        figure = Figure(figsize=(5.2 * size * columns + 0.6, 4.9 * size * rows))
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (label, shown) in zip(panels, numbers.items(), strict=False):
            _draw_matrix(axes, shown, evaluations[label].title)
            if len(runs) > 1:
                axes.set_title(label, parse_math=False)
        for axes in panels[len(runs) :]:
            axes.set_axis_off()
        figure.colorbar(
            panels[0].images[0], ax=panels.tolist(), label="share of the true class (%)", shrink=0.8
        )
    return Drawing(figure, numbers)


def _numbers(evaluation: Evaluation) -> dict[str, Any]:
    order = evaluation.order
    matrix = evaluation.confusion().dense()[np.ix_(order, order)]
    totals = matrix.sum(axis=1)
    shares = [(row / n).tolist() if n else None for row, n in zip(matrix, totals, strict=True)]
    return {
        "classes": order,
        "class_names": [evaluation.class_names[k] for k in order],
        "class_counts": [evaluation.class_counts[k] for k in order],
        "images": totals.tolist(),
        "counts": matrix.tolist(),
        "shares": shares,
    }


def _draw_matrix(axes: Axes, shown: dict[str, Any], split: str) -> None:
    count = len(shown["classes"])
    absent = [np.nan] * count
    values = 100 * np.array([row or absent for row in shown["shares"]], float)
    axes.set_facecolor("#dddddd")  # visible in the row of a class without test images
    axes.imshow(values, cmap="Blues", vmin=0, vmax=100)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted class")
    images = f" and its {split} images" if count <= NAMED else ""
    # In one line it would be longer than the axis of few classes.
    axes.set_ylabel(f"true class{images}\n(rarest in training at the bottom)")
    if count <= NAMED:
        names = shown["class_names"]
        small: dict[str, Any] = {"fontsize": 8, "parse_math": False}
        tested = [f"{name} ({n:,})" for name, n in zip(names, shown["images"], strict=True)]
        axes.set_yticks(range(count), tested, **small)
        turned: dict[str, Any] = (
            {} if max(map(len, names)) <= 3 else {"rotation": 45, "ha": "right"}
        )
        axes.set_xticks(range(count), names, **small, **turned, rotation_mode="anchor")
        axes.tick_params(length=0)
    if count <= WRITTEN:
        size = 7 if count <= ROOMY else 6.5
        for (row, column), value in np.ndenumerate(values):
            # Zeros are left out, because they would hide the other numbers.
            if value > 0:
                color = "white" if value > 60 else "black"
                text = f"{value:.0f}" if value >= 0.5 else "<1"
                axes.text(column, row, text, ha="center", va="center", fontsize=size, color=color)
