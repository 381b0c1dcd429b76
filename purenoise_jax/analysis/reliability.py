"""Reliability diagram: the share of right predictions by their probability (Guo et al. 2017)."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from purenoise_jax.analysis.figure_style import COLORS, Drawing, Options, styled
from purenoise_jax.analysis.latest_evaluation import latest_evaluation
from purenoise_jax.inference.calibration_file import read_scaled
from purenoise_jax.inference.reliability import Reliability, reliability
from purenoise_jax.inference.runs import Run
from purenoise_jax.inference.split_outputs import VAL, has_split, split_outputs
from purenoise_jax.inference.temperature import fit_temperature
from purenoise_jax.runtime.console import SPLITS
from purenoise_jax.training.metrics import calibration_error


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
    return Drawing(_figure(columns, f"{SPLITS[runs[0].shown]} accuracy (%)"), numbers)


def draw_recorded(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws the same of the last evaluation of a run from its files, without its network.

    A run that was calibrated is drawn a second time after temperature scaling.

    Args:
        runs: exactly one.
        options: not used.

    Raises:
        ConfigError: the run has no evaluation yet, or no file with the bins of the newest.
    """
    del options
    return _recorded(runs, stacked=False)


def draw_stacked(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws the columns of `draw_recorded` below each other, for a narrow screen.

    Args:
        runs: exactly one.
        options: not used.
    """
    del options
    return _recorded(runs, stacked=True)


def _recorded(runs: Sequence[Run], stacked: bool) -> Drawing:
    (run,) = runs
    evaluation = latest_evaluation(run)
    bins = evaluation.probabilities().bins
    nll = evaluation.number("nll")
    found = Reliability(bins, math.nan if nll is None else nll, calibration_error(bins))
    fitted = read_scaled(evaluation.workdir, evaluation.step)
    columns = [(f"{evaluation.title} images" if fitted else "", found)]
    numbers = {"step": evaluation.step, **_numbers(found)}
    if fitted is not None:
        title = f"at temperature {fitted.temperature:.3g}"
        if fitted.split != evaluation.split:
            columns.append((fitted.title, fitted.before))
            title = f"the same {title}"
        columns.append((title, fitted.after))
        numbers["scaled"] = {"images": fitted.title, **_numbers(fitted.after)}
    return Drawing(_figure(columns, "accuracy (%)", stacked), {run.label: numbers})


def _figure(
    columns: Sequence[tuple[str, Reliability]], label: str, stacked: bool = False
) -> Figure:
    across = 1 if stacked else len(columns)
    down = len(columns) // across
    with styled():
        figure = Figure(figsize=(0.6 + 3.9 * across, 5.0 * down))
        grid = figure.subplots(2 * down, across, squeeze=False, height_ratios=(3, 1) * down)
        for i, (title, found) in enumerate(columns):
            row, column = divmod(i, across)
            upper, lower = grid[2 * row : 2 * row + 2, column]
            _draw_accuracy(upper, found)
            _draw_images(lower, found)
            upper.set_title(title, parse_math=False, fontsize=10)
            if not column:
                upper.set_ylabel(label)
                lower.set_ylabel("images (%)")
        handles, texts = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside upper center", ncols=2, fontsize=9)
    return figure


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
    axes.tick_params(labelbottom=False)
    text = f"ECE {100 * found.ece:.1f} %"
    text += f"\nNLL {found.nll:.3f}" if math.isfinite(found.nll) else ""
    axes.text(0.04, 0.96, text, transform=axes.transAxes, va="top", fontsize=9)


def _draw_images(axes: Axes, found: Reliability) -> None:
    images = found.bins[:, 0]
    width = 100 / len(images)
    places = (np.arange(len(images)) + 0.5) * width
    axes.bar(places, 100 * images / images.sum(), 0.94 * width, color="#999999")
    axes.set_xlim(0, 100)
    axes.set_xlabel("probability of the predicted class (%)")
