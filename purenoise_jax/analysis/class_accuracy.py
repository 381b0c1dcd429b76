"""Accuracy of every class against its number of training images."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from purenoise_jax.analysis.figure_style import Drawing, Options, literal, styled
from purenoise_jax.analysis.latest_evaluation import Evaluation, latest_evaluation
from purenoise_jax.inference.runs import Run

MARKERS = "osD^vP*X"
NAMED = 12  # with more classes, the axis does not show their names


def draw(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws one panel with logarithmic class sizes, a marker per class and a colour per run.

    Args:
        runs: at least one.
        options: not used.

    Raises:
        ConfigError: a run has no evaluation yet.
    """
    del options
    evaluations = {run.label: latest_evaluation(run) for run in runs}
    numbers = {
        label: {
            "class_names": evaluation.class_names,
            "class_counts": evaluation.class_counts,
            "accuracy": evaluation.numbers["per_class_accuracy"],
        }
        for label, evaluation in evaluations.items()
    }
    with styled():
        figure = Figure(figsize=(6.4, 3.6))
        axes = figure.subplots()
        for i, (label, evaluation) in enumerate(evaluations.items()):
            shares = evaluation.numbers["per_class_accuracy"]
            order = evaluation.order
            # A class without test images has no marker and interrupts the line.
            heights = [math.nan if shares[k] is None else 100 * shares[k] for k in order]
            sizes = [evaluation.class_counts[k] for k in order]
            few = len(sizes) <= NAMED
            axes.plot(
                sizes,
                heights,
                marker=MARKERS[i % len(MARKERS)],
                ms=5 if few else 4,
                ls="-" if few else "",
                alpha=1 if few else 0.8,
                lw=1,
                label=literal(label),
            )
        axes.set_xscale("log")
        axes.set_ylim(-4, 104)
        axes.set_ylabel("test accuracy (%)")
        _label_classes(axes, list(evaluations.values()))
        if len(runs) > 1:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return Drawing(figure, numbers)


def _label_classes(axes: Axes, evaluations: list[Evaluation]) -> None:
    """Names the classes below the axis if they are few, far enough apart, and alike in all runs."""
    first = evaluations[0]
    sizes = [first.class_counts[k] for k in first.order]
    far_apart = all(larger > 1.25 * smaller for larger, smaller in pairwise(sizes))
    alike = all(evaluation.class_counts == first.class_counts for evaluation in evaluations)
    if not (far_apart and alike and len(sizes) <= NAMED):
        axes.set_xlabel("training images of the class")
        return
    texts = [f"{first.class_names[k]}\n{first.class_counts[k]:,}" for k in first.order]
    long = max(len(first.class_names[k]) for k in first.order) > 8
    turned: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(sizes, texts, fontsize=8, parse_math=False, **(turned if long else {}))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("class and its training images")
