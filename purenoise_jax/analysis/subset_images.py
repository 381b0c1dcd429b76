"""Images that only one of several long-tailed subsets has; see `subsets` for their overlap."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure

from purenoise_jax.analysis.figure_style import Drawing, Options, styled
from purenoise_jax.analysis.images import show_image
from purenoise_jax.analysis.subsets import SOURCES, only, subsets_of
from purenoise_jax.inference.runs import Run

COLUMNS, IMAGES = 10, 20
LISTS = 6  # largest number of lists, so that the sheet stays readable


def draw(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws a block for each subset: images that it has and no other, drawn at random.

    Args:
        runs: exactly one; its data set, imbalance ratio and profile are used.
        options: `indices` names at most six lists of indices, in the order of the data set;
            `images` is the largest number of images of a block (0 = 20).

    Raises:
        ConfigError: there are several runs or too many lists, or the run keeps every image.
        DataError: the data or a list cannot be read.
    """
    (run,) = only(runs, "subset_images")
    sets = subsets_of(run, options, most=LISTS)
    alone = images_of_one(sets)
    rng, count = np.random.default_rng(options.seed), options.images or IMAGES
    shown = {name: np.sort(rng.permutation(rows)[:count]) for name, rows in alone.items()}
    rows = [max(1, -(-len(places) // COLUMNS)) for places in shown.values()]
    with styled():
        figure = Figure(figsize=(0.82 * COLUMNS, sum(0.98 * n + 0.35 for n in rows)))
        ratios = [0.98 * n + 0.35 for n in rows]
        parts = figure.subfigures(len(sets), 1, squeeze=False, height_ratios=ratios).ravel()
        for part, name, places, height in zip(parts, sets, shown.values(), rows, strict=True):
            title = (
                f"only in {SOURCES.get(name, name)}: {len(alone[name]):,} of {len(sets[name]):,}"
            )
            _block(part, run, places, height, title)
    numbers = {
        name: {
            "images": len(sets[name]),
            "only": len(alone[name]),
            "only_by_class": _by_class(run, alone[name]),
            "shown": shown[name].tolist(),
        }
        for name in sets
    }
    return Drawing(figure, {run.label: numbers})


def images_of_one(sets: dict[str, set[int]]) -> dict[str, np.ndarray]:
    """Returns the images of each set that no other set has, by name: int[M], ascending."""
    return {
        name: np.array(
            sorted(found - set().union(*(s for n, s in sets.items() if n != name))), np.int64
        )
        for name, found in sets.items()
    }


def _by_class(run: Run, rows: np.ndarray) -> list[int]:
    dataset = run.experiment.dataset
    found: list[int] = np.bincount(
        dataset.train_labels[rows], minlength=dataset.num_classes
    ).tolist()
    return found


def _block(part: SubFigure, run: Run, places: np.ndarray, rows: int, title: str) -> None:
    part.suptitle(title, fontsize=9, parse_math=False)
    grid: Any = part.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    if not len(places):
        grid[0].text(0, 0.5, "none", fontsize=8, transform=grid[0].transAxes)
        return
    dataset = run.experiment.dataset
    for axes, image, label in zip(
        grid, dataset.train_images[places], dataset.train_labels[places], strict=False
    ):
        show_image(axes, image / 255)
        name = run.class_names[label]
        text = name if len(name) <= 10 else name[:9] + "…"
        axes.set_title(text, fontsize=7, pad=2, parse_math=False)
