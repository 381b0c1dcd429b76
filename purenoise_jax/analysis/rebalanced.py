"""The training images that an epoch shows of each class: as they are, oversampled, and with noise.

Source: Zada, Benou and Irani 2022, figure 1, shows the idea on made-up counts. Here the draws of an
epoch are counted: those of plain training, of class-balanced sampling, and of the run's method with
noise (OPeN's, for a run without noise).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from purenoise_jax.analysis.classes import by_frequency, class_axis
from purenoise_jax.analysis.features import draw_batches, noise_methods
from purenoise_jax.analysis.figure_style import COLORS, Drawing, Options, styled
from purenoise_jax.analysis.images import show_image
from purenoise_jax.inference.runs import Run

COLUMNS, EXAMPLES = 6, 12
PARTS = {
    "distinct": "natural images, each counted once",
    "repeats": "the same images again",
    "noise": "noise",
}
SHADES = (COLORS[0], COLORS[5], COLORS[1])


class Epoch(NamedTuple):
    """The rows of an epoch.

    Attributes:
        distinct: int[K], natural images of each class, each counted once.
        repeats: int[K], rows that show one of these once more.
        noise: int[K], noise rows with the label of each class.
        examples: f32[M, H, W, C], augmented, the first rows with the label of the rarest class.
        is_noise: bool[M].
    """

    distinct: np.ndarray
    repeats: np.ndarray
    noise: np.ndarray
    examples: np.ndarray
    is_noise: np.ndarray


def epoch_of(run: Run, methods: Sequence[str], seed: int, examples: int) -> Epoch:
    """Draws an epoch as a phase with these methods does, and counts its rows.

    Args:
        run: source of data, augmentation, batch size and `method` arguments.
        methods: keys of `METHODS`.
        seed: seed of the draws.
        examples: largest number of rows that are kept.
    """
    training = run.experiment.training
    classes = training.stats.num_classes
    rarest = by_frequency(training.stats.class_counts)[-1]
    times = np.zeros(len(training.labels), int)
    noise_rows = np.zeros(classes, int)
    kept: list[np.ndarray] = []
    is_noise: list[bool] = []
    for index, batch in draw_batches(run, methods, run.experiment.sampler.steps, seed):
        valid, noise = np.asarray(batch["valid"]), np.asarray(batch["noise_mask"])
        labels = np.asarray(batch["label"])
        noise_rows += np.bincount(labels[valid & noise], minlength=classes)
        # Appended rows come after those of the index.
        np.add.at(times, index[(valid & ~noise)[: len(index)]], 1)
        wanted = np.flatnonzero(valid & (labels == rarest))[: examples - len(kept)]
        if len(wanted):
            kept += list(np.asarray(batch["image"])[wanted])
            is_noise += noise[wanted].tolist()
    distinct = np.bincount(training.labels[times > 0], minlength=classes)
    natural = np.bincount(training.labels, weights=times, minlength=classes).astype(int)
    shape = training.stats.image_shape
    return Epoch(
        distinct,
        natural - distinct,
        noise_rows,
        np.array(kept).reshape(-1, *shape),
        np.array(is_noise, bool),
    )


def draw(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws three rows for each run: the rows of an epoch by class, and some of the rarest class.

    Args:
        runs: at least one.
        options: `seed`; `images` is the number of examples (0 = 12).

    Raises:
        DataError: the data cannot be read.
    """
    numbers: dict[str, Any] = {}
    count = options.images or EXAMPLES
    rows = -(-count // COLUMNS)
    with styled():
        figure = Figure(figsize=(10, (max(1.9, 0.85 * rows) * 3 + 1.2) * len(runs)))
        parts = figure.subfigures(len(runs), 1, squeeze=False).ravel()
        for part, run in zip(parts, runs, strict=True):
            epochs = {
                name: epoch_of(run, methods, options.seed, count)
                for name, methods in rows_of(run).items()
            }
            _sheet(part, run, epochs, rows, named=len(runs) > 1)
            numbers[run.label] = {
                "class_names": run.class_names,
                "class_counts": run.experiment.training.stats.class_counts.tolist(),
                "rows": {
                    name: {kind: getattr(epoch, kind).tolist() for kind in PARTS}
                    for name, epoch in epochs.items()
                },
            }
    return Drawing(figure, numbers)


def rows_of(run: Run) -> dict[str, tuple[str, ...]]:
    """Returns the methods of each row of the figure by its title."""
    methods = noise_methods(run)
    return {
        "original": ("erm",),
        "oversampled": ("rs",),
        f"noise ({methods.name})": methods.with_noise,
    }


def _sheet(part: SubFigure, run: Run, epochs: dict[str, Epoch], rows: int, *, named: bool) -> None:
    order = by_frequency(run.experiment.training.stats.class_counts)
    rarest = run.class_names[order[-1]]
    title = "rows of an epoch by class, and the first of the rarest class"
    title += f" ({rarest if len(rarest) <= 24 else rarest[:23] + '…'})"
    part.suptitle(f"{run.label}: {title}" if named else title, fontsize=10, parse_math=False)
    grid = part.add_gridspec(len(epochs), 2, width_ratios=[1, 0.95])
    first: Axes | None = None
    for row, (name, epoch) in enumerate(epochs.items()):
        axes = part.add_subplot(grid[row, 0], sharey=first)
        first = first or axes
        bottom = np.zeros(len(order), int)
        for color, (kind, text) in zip(SHADES, PARTS.items(), strict=True):
            heights = getattr(epoch, kind)[order]
            axes.bar(range(len(order)), heights, 0.85, bottom, color=color, label=text)
            bottom += heights
        axes.set_title(name, fontsize=10, loc="left")
        axes.set_ylabel("images")
        axes.grid(axis="x", visible=False)
        if row == len(epochs) - 1:
            class_axis(axes, run, order)
        else:
            axes.set_xticks([])
        cells = grid[row, 1].subgridspec(rows, COLUMNS)
        for i, cell in enumerate(cells[r, c] for r in range(rows) for c in range(COLUMNS)):
            place = part.add_subplot(cell)
            place.set_axis_off()
            if i < len(epoch.examples):
                show_image(place, epoch.examples[i], noise=bool(epoch.is_noise[i]))
    assert first is not None, "there are three rows"
    part.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
