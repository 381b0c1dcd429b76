"""Reliability diagram: the share of right predictions by their probability (Guo et al. 2017)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from purenoise_jax.analysis.figure_style import COLORS, Drawing, Options, styled
from purenoise_jax.inference.reliability import Reliability, reliability
from purenoise_jax.inference.runs import Run
from purenoise_jax.inference.split_outputs import VAL, has_split, split_outputs
from purenoise_jax.inference.temperature import fit_temperature
from purenoise_jax.runtime.console import SPLITS


def draw(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws for each run the accuracy in 15 bins of probability, and the images of each bin below.

    Runs with validation images are drawn a second time after temperature scaling, with the
    temperature that is fitted on these images.

    Args:
        runs: at least one.
        options: `epoch` chooses the checkpoints.

    Raises:
        CheckpointError: there is no such checkpoint.
        DataError: the data cannot be read.
    """
    numbers: dict[str, Any] = {}
    columns: list[tuple[str, Reliability]] = []
    for run in runs:
        outputs = split_outputs(run, run.shown, options.epoch)
        found = reliability(outputs.logits, outputs.labels)
        numbers[run.label] = {"step": outputs.step, **_numbers(found)}
        title = run.label if len(runs) > 1 else ""
        columns.append((title, found))
        if run.shown != VAL and has_split(run, VAL):
            held_out = split_outputs(run, VAL, options.epoch)
            fitted = fit_temperature(held_out.logits, held_out.labels)
            scaled = reliability(outputs.logits / fitted.temperature, outputs.labels)
            numbers[run.label]["scaled"] = {"val": fitted._asdict(), **_numbers(scaled)}
            columns.append((f"{title} temperature {fitted.temperature:.3g}".strip(), scaled))
    with styled():
        figure = Figure(figsize=(0.6 + 3.9 * len(columns), 5.0))
        grid = figure.subplots(2, len(columns), squeeze=False, sharex=True, height_ratios=(3, 1))
        for (upper, lower), (title, found) in zip(grid.T, columns, strict=True):
            _draw_accuracy(upper, found)
            _draw_images(lower, found)
            upper.set_title(title, parse_math=False, fontsize=10)
        grid[0, 0].set_ylabel(f"{SPLITS[runs[0].shown]} accuracy (%)")
        grid[1, 0].set_ylabel("images (%)")
        handles, texts = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside upper center", ncols=2, fontsize=9)
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
    axes.plot([0, 100], [0, 100], color="#666666", lw=1, ls="--", label="accuracy = probability")
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
