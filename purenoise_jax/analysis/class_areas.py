"""Area of each class on planes through three test images; see `plane_areas` for the method."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from purenoise_jax.analysis.classes import by_frequency, class_axis
from purenoise_jax.analysis.figure_style import COLORS, Drawing, Options, literal, styled
from purenoise_jax.analysis.gradients import MOST_CLASSES, class_sets
from purenoise_jax.analysis.plane_areas import areas_of, summarize
from purenoise_jax.inference.runs import Run
from purenoise_jax.runtime.errors import ConfigError

PANELS = {"area": "all {planes} planes", "own_area": "planes through an image of the class"}


def draw(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws the mean areas of the classes with standard errors over the planes, a bar for each run.

    Classes are in order of their training images, most first; more than 20 are in five groups.

    Args:
        runs: at least one, all with the same classes.
        options: see `areas_of`.

    Raises:
        CheckpointError: there is no such checkpoint.
        ConfigError: a run's test images span no plane, or the classes differ.
        DataError: the data cannot be read.
    """
    for run in runs[1:]:
        if run.class_names != runs[0].class_names:
            raise ConfigError(
                f"{runs[0].path} and {run.path} have other classes, so their areas cannot be "
                "compared"
            )
    numbers = {run.label: _numbers(run, options) for run in runs}
    return Drawing(_figure(runs, numbers), numbers)


def _numbers(run: Run, options: Options) -> dict[str, Any]:
    areas = areas_of(run, options)
    counts = run.experiment.training.stats.class_counts
    sets = class_sets(counts)
    return {
        "step": areas.step,
        "planes": len(areas.triples),
        "class_names": run.class_names,
        "class_counts": counts.tolist(),
        "classes": [labels.tolist() for labels in sets],
        **summarize(areas, sets),
    }


def _figure(runs: Sequence[Run], numbers: dict[str, Any]) -> Figure:
    with styled():
        figure = Figure(figsize=(10, 3.6))
        for axes, name in zip(figure.subplots(1, 2), PANELS, strict=True):
            _panel(axes, runs, numbers, name)
            axes.set_title(PANELS[name].format(planes=numbers[runs[0].label]["planes"]))
        axes.figure.axes[0].set_ylabel("area (% of the window)")
        if len(runs) > 1:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _panel(axes: Axes, runs: Sequence[Run], numbers: dict[str, Any], name: str) -> None:
    counts = runs[0].experiment.training.stats.class_counts
    grouped = len(counts) > MOST_CLASSES
    sets = numbers[runs[0].label]["classes"]
    order = np.arange(len(sets))[::-1] if grouped else by_frequency(counts)
    width = 0.84 / len(runs)
    for i, run in enumerate(runs):
        places = np.arange(len(order)) + (i - (len(runs) - 1) / 2) * width
        mean, error = (
            100 * np.array(numbers[run.label][f"{name}{end}"], float)[order]
            for end in ("", "_error")
        )
        axes.bar(
            places,
            np.nan_to_num(mean),
            width * 0.94,
            yerr=np.nan_to_num(error),
            error_kw={"lw": 0.9},
            color=COLORS[i % len(COLORS)],
            label=literal(run.label),
        )
    if name == "area":
        shares = [100 * len(sets[k]) / len(counts) for k in order]
        left, right = (np.arange(len(order)) + end for end in (-0.5, 0.5))
        axes.hlines(shares, left, right, color="#555555", lw=1, ls=":")
    axes.set_ylim(bottom=0)
    axes.grid(axis="x", visible=False)
    if grouped:
        axes.set_xticks(range(len(order)), [f"#{g + 1}" for g in order])
        axes.set_xlabel("group of classes, rarest = #1")
    else:
        class_axis(axes, runs[0], order)
