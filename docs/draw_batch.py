"""Draws docs/images/batch.png: a training batch of OPeN, sorted by class.

    python -m docs.draw_batch runs/digits

RUN is the workdir of a finished run of configs/digits_lt.py. Only digits are drawn, whose images
come with scikit-learn.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from purenoise_jax.analysis.figure_style import COLORS
from purenoise_jax.analysis.images import Shown, batch_of
from purenoise_jax.inference.runs import load_runs

COLUMNS = 16


def draw(shown: Shown) -> Figure:
    """One tile for each image: its label above it, and an orange frame around noise."""
    order = np.lexsort((shown.noise, shown.labels))
    rows = -(-len(order) // COLUMNS)
    figure = Figure(figsize=(COLUMNS * 0.72, rows * 0.92 + 0.15))
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.88, bottom=0.03, wspace=0.14, hspace=0.28)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, row in zip(grid.flat, order, strict=False):
        image, label, noise = shown.images[row, ..., 0], shown.labels[row], shown.noise[row]
        axes.imshow(np.clip(image, 0, 1), cmap="gray", vmin=0, vmax=1)
        axes.set_title(str(label), fontsize=12, color=COLORS[1] if noise else "#444444", pad=4)
        if noise:
            axes.set_axis_on()
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(color=COLORS[1], linewidth=3)
    return figure


def main() -> None:
    """Writes the picture."""
    run = load_runs(sys.argv[1:2])[0]
    shown = batch_of(run)
    figure = draw(shown)
    figure.savefig(Path(__file__).parent / "images" / "batch.png", dpi=120)
    print(f"{len(shown.labels)} images, {shown.noise.sum()} of them noise")


if __name__ == "__main__":
    main()
