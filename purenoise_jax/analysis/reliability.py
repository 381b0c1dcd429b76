"""Reliability diagram: the share of right predictions by their probability (Guo et al. 2017)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from purenoise_jax.analysis.figure_style import COLORS, Drawing, Options, styled
from purenoise_jax.analysis.probability_scores import Reliability, reliability
from purenoise_jax.inference.runs import Run
from purenoise_jax.inference.split_outputs import split_outputs


def draw(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws for each run the accuracy in 15 bins of confidence, and the images in each bin below.

    Args:
        runs: at least one.
        options: `epoch` chooses the checkpoints.

    Raises:
        CheckpointError: there is no such checkpoint.
        DataError: the data cannot be read.
    """
    numbers: dict[str, Any] = {}
    with styled():
        figure = Figure(figsize=(0.6 + 3.9 * len(runs), 5.0))
        grid = figure.subplots(
            2, len(runs), squeeze=False, sharex=True, height_ratios=(3, 1)
        )  # fmt: skip
        for (upper, lower), run in zip(grid.T, runs, strict=True):
            outputs = split_outputs(run, epoch=options.epoch)
            found = reliability(outputs.logits, outputs.labels)
            numbers[run.label] = {"step": outputs.step, **_numbers(found)}
            _draw_accuracy(upper, found)
            _draw_images(lower, found)
            if len(runs) > 1:
                upper.set_title(run.label, parse_math=False)
        grid[0, 0].set_ylabel("accuracy (%)")
        grid[1, 0].set_ylabel("images (%)")
    return Drawing(figure, numbers)


def _numbers(found: Reliability) -> dict[str, Any]:
    images, confidence, right = found.bins.T
    return {
        "images": images.astype(int).tolist(),
        "confidence": [c / n if n else None for c, n in zip(confidence, images, strict=True)],
        "accuracy": [r / n if n else None for r, n in zip(right, images, strict=True)],
        "nll": found.nll,
        "ece": found.ece,
    }


def _draw_accuracy(axes: Axes, found: Reliability) -> None:
    images, confidence, right = found.bins.T
    there = images > 0
    width = 100 / len(images)
    places = (np.arange(len(images)) + 0.5) * width
    accuracy = 100 * right[there] / images[there]
    axes.bar(places[there], accuracy, 0.94 * width, color=COLORS[5], label="accuracy")
    axes.plot([0, 100], [0, 100], color="#666666", lw=1, ls="--", label="as probable as said")
    mean = 100 * confidence[there] / images[there]
    axes.plot(mean, accuracy, "o", ms=4, color=COLORS[0], label="at the mean probability")
    axes.set(xlim=(0, 100), ylim=(0, 102))
    text = f"ECE {100 * found.ece:.1f} %\nNLL {found.nll:.3f}"
    axes.text(0.04, 0.96, text, transform=axes.transAxes, va="top", fontsize=9)


def _draw_images(axes: Axes, found: Reliability) -> None:
    images = found.bins[:, 0]
    width = 100 / len(images)
    places = (np.arange(len(images)) + 0.5) * width
    axes.bar(places, 100 * images / images.sum(), 0.94 * width, color="#999999")
    axes.set_xlabel("probability of the predicted class (%)")
