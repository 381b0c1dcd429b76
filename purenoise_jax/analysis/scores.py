"""Precision, recall, F1 and average precision of every class on the test images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from purenoise_jax.analysis.class_scores import class_scores
from purenoise_jax.analysis.classes import by_frequency
from purenoise_jax.analysis.figure_style import COLORS, Drawing, Options, styled
from purenoise_jax.analysis.probability_scores import probability_scores
from purenoise_jax.inference.runs import Run
from purenoise_jax.inference.split_outputs import split_outputs
from purenoise_jax.training.confusion import Confusion
from purenoise_jax.training.intervals import accuracy_intervals

NAMED = 40  # with more classes, they have no names
MARKS = {
    "recall": ("accuracy (recall), 95 % interval", "o", COLORS[0]),
    "precision": ("precision", "D", COLORS[1]),
    "f1": ("F1", "x", COLORS[6]),
    "average_precision": ("average precision", "^", COLORS[2]),
}


def draw(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws a panel for each run with a row for each class, the most frequent in training on top.

    Args:
        runs: at least one.
        options: `epoch` chooses the checkpoints.

    Raises:
        CheckpointError: there is no such checkpoint.
        DataError: the data cannot be read.
    """
    numbers = {run.label: numbers_of(run, options) for run in runs}
    classes = max(len(shown["classes"]) for shown in numbers.values())
    with styled():
        height = 1.4 + (0.26 * classes if classes <= NAMED else 8.0)
        figure = Figure(figsize=(0.8 + 5.2 * len(runs), height))
        panels = figure.subplots(1, len(runs), squeeze=False).ravel()
        for axes, (label, shown) in zip(panels, numbers.items(), strict=True):
            _panel(axes, shown)
            if len(runs) > 1:
                axes.set_title(label, parse_math=False)
        handles, texts = panels[0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside upper center", ncols=2, fontsize=9)
    return Drawing(figure, numbers)


def numbers_of(run: Run, options: Options) -> dict[str, Any]:
    """Returns all scores of a run on its test images as JSON values; lists are by class.

    Args:
        run: from `load_runs`.
        options: see `draw`.
    """
    outputs = split_outputs(run, run.shown, options.epoch)
    stats = run.experiment.training.stats
    predicted = outputs.logits.argmax(axis=1)
    confusion = Confusion.of(outputs.labels, predicted, stats.num_classes)
    scores, results = class_scores(confusion), confusion.results()
    spread = accuracy_intervals(results)
    return {
        "step": outputs.step,
        "classes": by_frequency(stats.class_counts).tolist(),
        "class_names": run.class_names,
        "class_counts": stats.class_counts.tolist(),
        "images": results.images.tolist(),
        "accuracy": float((predicted == outputs.labels).mean()),
        "accuracy_interval": list(spread.accuracy),
        "balanced_accuracy_interval": list(spread.balanced_accuracy),
        "recall": scores.recall,
        "recall_interval": [each and list(each) for each in spread.per_class],
        "precision": scores.precision,
        "f1": scores.f1,
        "macro_f1": scores.macro_f1,
        **probability_scores(outputs.logits, outputs.labels),
    }


def _panel(axes: Axes, shown: dict[str, Any]) -> None:
    order = shown["classes"]
    places = np.arange(len(order))
    ends = [shown["recall_interval"][k] or [np.nan, np.nan] for k in order]
    low, high = 100 * np.array(ends, float).T
    axes.hlines(places, low, high, color=COLORS[0], lw=2.5 if len(order) <= NAMED else 1, alpha=0.4)
    for name, (text, marker, color) in MARKS.items():
        values = [np.nan if shown[name][k] is None else 100 * shown[name][k] for k in order]
        axes.plot(values, places, marker, color=color, ms=4.5, ls="", label=text, alpha=0.9)
    axes.set_xlim(-2, 102)
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xlabel("%")
    if len(order) <= NAMED:
        names = [_short(shown["class_names"][k]) for k in order]
        axes.set_yticks(places, names, fontsize=8, parse_math=False)
    else:
        axes.set_ylabel("class, most training images first")


def _short(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"
