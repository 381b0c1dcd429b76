"""The test images that are predicted wrong with the largest probability, as a sheet."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from purenoise_jax.analysis.figure_style import Drawing, Options, styled
from purenoise_jax.inference.reliability import log_probabilities
from purenoise_jax.inference.runs import Run
from purenoise_jax.inference.split_outputs import (
    SplitOutputs,
    images_of,
    split_outputs,
)
from purenoise_jax.runtime.console import SPLITS

COLUMNS, IMAGES = 6, 24
SHORT = 16  # longest name of a class above an image


def draw(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws a sheet for each run, the most probable error first.

    Args:
        runs: at least one.
        options: `epoch` chooses the checkpoints; `images` is the number of images, 0 = 24.

    Raises:
        CheckpointError: there is no such checkpoint.
        DataError: the data cannot be read.
    """
    numbers: dict[str, Any] = {}
    count = options.images or IMAGES
    outputs = [split_outputs(run, run.shown, options.epoch) for run in runs]
    found = [most_probable_errors(each, count) for each in outputs]
    rows = max(1, -(-max(map(len, found)) // COLUMNS))
    with styled():
        figure = Figure(figsize=(1.45 * COLUMNS, (1.75 * rows + 0.5) * len(runs)))
        parts = figure.subfigures(len(runs), 1, squeeze=False).ravel()
        for part, run, each, places in zip(parts, runs, outputs, found, strict=True):
            numbers[run.label] = _sheet(part, run, each, places, rows, named=len(runs) > 1)
    return Drawing(figure, numbers)


def most_probable_errors(outputs: SplitOutputs, count: int) -> np.ndarray:
    """Returns the places in `outputs` of wrong predictions, the most probable first.

    Args:
        outputs: of a split.
        count: largest number of them.

    Returns:
        int[M], M at most `count`; among equals the first image comes first.
    """
    predicted = outputs.logits.argmax(axis=1)
    wrong = np.flatnonzero(predicted != outputs.labels)
    log_shares = log_probabilities(outputs.logits[wrong]).max(axis=1, initial=-np.inf)
    return wrong[np.argsort(-log_shares, kind="stable")[:count]]


def _sheet(
    part: SubFigure, run: Run, outputs: SplitOutputs, places: np.ndarray, rows: int, *, named: bool
) -> dict[str, Any]:
    names = run.class_names
    logits, labels = outputs.logits[places], outputs.labels[places]
    predicted, shares = logits.argmax(axis=1), np.exp(log_probabilities(logits))
    pictures = images_of(run, run.shown, outputs.rows[places])
    grid = part.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    listed = []
    for row, axes in enumerate(grid[: len(places)]):
        guess, true = int(predicted[row]), int(labels[row])
        _show(axes, pictures[row])
        text = (
            f"{_short(names[guess])}, {100 * shares[row, guess]:.0f} %\ntrue: {_short(names[true])}"
        )
        axes.set_title(text, fontsize=7.5, parse_math=False)
        listed.append(
            {
                "row": int(outputs.rows[places[row]]),
                "label": names[true],
                "predicted": names[guess],
                "probability": float(shares[row, guess]),
                "label_probability": float(shares[row, true]),
            }
        )
    wrong = int((outputs.logits.argmax(axis=1) != outputs.labels).sum())
    title = (
        f"the {len(places)} most probable of {wrong:,} wrong predictions, "
        f"{len(outputs.labels):,} {SPLITS[run.shown]} images"
    )
    part.suptitle(f"{run.label}: {title}" if named else title, fontsize=9, parse_math=False)
    return {"step": outputs.step, "images": len(outputs.labels), "wrong": wrong, "errors": listed}


def _short(name: str) -> str:
    return name if len(name) <= SHORT else name[: SHORT - 1] + "…"


def _show(axes: Axes, image: np.ndarray) -> None:
    gray = image.shape[-1] == 1
    axes.imshow(image[..., 0] if gray else image, cmap="gray" if gray else None, vmin=0, vmax=255)
