"""Decision regions on planes through three test images; see `plane_areas` for the method."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.patches import Patch

from purenoise_jax.analysis.classes import NAMED, by_frequency, class_colors
from purenoise_jax.analysis.figure_style import Drawing, Options, literal, styled
from purenoise_jax.analysis.images import show_image
from purenoise_jax.analysis.plane_areas import (
    DRAWN_SIDE,
    MEASURED_SIDE,
    Areas,
    Drawn,
    areas_of,
    shares_of,
    summarize,
)
from purenoise_jax.analysis.planes import MARGIN
from purenoise_jax.inference.runs import Run

WIDTH, STRIP, TITLE = 2.7, 0.85, 0.3  # inches: of a plane, its images, and the run's name


def draw(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws a row of three planes for each run, with the images that they go through above them.

    They are those whose classes differ most in frequency, among the planes of `class_areas`.
    Runs on the same test images have the same planes.

    Args:
        runs: at least one.
        options: see `areas_of`.

    Raises:
        CheckpointError: there is no such checkpoint.
        ConfigError: a run's test images span no plane.
        DataError: the data cannot be read.
    """
    found = [areas_of(run, options) for run in runs]
    numbers = {run.label: _numbers(run, each) for run, each in zip(runs, found, strict=True)}
    return Drawing(_figure(runs, found), numbers)


def _numbers(run: Run, areas: Areas) -> dict[str, Any]:
    counts = run.experiment.training.stats.class_counts
    drawn = [
        {
            "images": each.places.tolist(),
            "classes": [run.class_names[k] for k in each.labels],
            "corners": each.plane.corners.tolist(),
            "window": list(each.window),
            "area": shares_of(each.predicted, len(counts)).tolist(),
        }
        for each in areas.drawn
    ]
    return {
        "step": areas.step,
        "planes": len(areas.triples),
        "cells": MEASURED_SIDE**2,
        "margin": MARGIN,
        "class_names": run.class_names,
        "class_counts": counts.tolist(),
        **summarize(areas, [np.array([k]) for k in range(len(counts))]),
        "triples": areas.triples.tolist(),
        "drawn_cells": DRAWN_SIDE**2,
        "drawn": drawn,
    }


def _figure(runs: Sequence[Run], found: Sequence[Areas]) -> Figure:
    # Below the first run its images are shown again only where they are others.
    strips = [i == 0 or not _alike(found[0], each) for i, each in enumerate(found)]
    plane = WIDTH + (TITLE if len(runs) > 1 else 0)
    heights = [height for strip in strips for height in ([STRIP] if strip else []) + [plane]]
    columns = max(len(each.drawn) for each in found)
    with styled():
        figure = Figure(figsize=(WIDTH * max(columns, 2) + 0.3, sum(heights) + 0.7))
        grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
        row = 0
        for run, areas, strip in zip(runs, found, strips, strict=True):
            for column, drawn in enumerate(areas.drawn):
                if strip:
                    _images(figure, grid[row, column], run, drawn)
                axes = figure.add_subplot(grid[row + strip, column])
                _plane(axes, run, drawn)
                if len(runs) > 1 and not column:
                    # As wide as the row, so it takes no part in the layout.
                    title = axes.set_title(run.label, loc="left", fontsize=9, parse_math=False)
                    title.set_in_layout(False)
            row += 1 + strip
        _legend(figure, runs[0])
    return figure


def _alike(one: Areas, other: Areas) -> bool:
    return len(one.drawn) == len(other.drawn) and all(
        np.array_equal(a.images, b.images) for a, b in zip(one.drawn, other.drawn, strict=True)
    )


def _images(figure: Figure, place: SubplotSpec, run: Run, drawn: Drawn) -> None:
    parts = place.subgridspec(1, 3)
    for i, (image, label) in enumerate(zip(drawn.images, drawn.labels, strict=True)):
        axes = figure.add_subplot(parts[i])
        show_image(axes, image / 255)
        axes.set_axis_off()
        name = run.class_names[label]
        text = f"{i + 1}: {name if len(name) <= 10 else name[:9] + '…'}"
        axes.set_title(text, fontsize=7.5, parse_math=False)


def _plane(axes: Axes, run: Run, drawn: Drawn) -> None:
    counts = run.experiment.training.stats.class_counts
    order = by_frequency(counts)
    rank = np.empty(len(order), int)
    rank[order] = np.arange(len(order))
    window = drawn.window
    axes.imshow(
        rank[drawn.predicted],
        origin="lower",
        extent=(
            window.left,
            window.left + window.width,
            window.bottom,
            window.bottom + window.width,
        ),
        cmap=ListedColormap(class_colors(len(order))),
        vmin=-0.5,
        vmax=len(order) - 0.5,
        interpolation="nearest",
    )
    box = {"boxstyle": "circle,pad=0.2", "facecolor": "white", "linewidth": 0.8}
    for i, (x, y) in enumerate(drawn.plane.corners):
        axes.text(x, y, str(i + 1), ha="center", va="center", fontsize=8, bbox=box)
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([])


def _legend(figure: Figure, run: Run) -> None:
    counts = run.experiment.training.stats.class_counts
    order, colors = by_frequency(counts), class_colors(len(counts))
    if len(order) <= NAMED:
        patches = [
            Patch(color=color, label=literal(f"{run.class_names[k][:14]} ({counts[k]:,})"))
            for color, k in zip(colors, order, strict=True)
        ]
        title = "predicted class (training images)"
    else:
        patches = [
            Patch(color=colors[0], label="most frequent"),
            Patch(color=colors[-1], label="rarest"),
        ]
        title = f"predicted class, of {len(order)} by frequency"
    figure.legend(
        handles=patches,
        loc="outside lower center",
        ncols=min(5, len(patches)),
        fontsize=8,
        title=title,
        title_fontsize=8,
    )
