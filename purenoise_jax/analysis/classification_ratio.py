"""Classification ratio of classes by epoch: training images classified as a class over its own.

Source: Ye et al. 2021 (Procrustean training), supplement, section A.1, equation 13. Above 1 more
training images are classified as the class than belong to it. The images are as stored, neither
augmented nor mixed, so a run needs `eval.train`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from purenoise_jax.analysis.classes import NAMED, by_frequency, class_colors
from purenoise_jax.analysis.figure_style import Drawing, Options, literal, styled
from purenoise_jax.analysis.latest_evaluation import classes_of
from purenoise_jax.inference.runs import Run
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training.metrics import TRAINING_SET

PREDICTED = f"{TRAINING_SET}/predicted_images"
COLUMNS = 2


def fitted_records(path: Path, metrics: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns the records of epochs after which the training images were evaluated.

    Args:
        path: workdir of the run.
        metrics: records of its metrics.jsonl.

    Raises:
        ConfigError: there are none.
    """
    found = [record for record in metrics if PREDICTED in record]
    if not found:
        raise ConfigError(
            f"{path} has no evaluation of its training images; eval.train=True records them"
        )
    return found


def ratios(
    records: Sequence[Mapping[str, Any]], class_counts: Sequence[int] | np.ndarray
) -> np.ndarray:
    """Returns the classification ratio after each epoch of each class, f64[E, K], at least 0.

    Args:
        records: from `fitted_records`, of E epochs.
        class_counts: K training images per class.
    """
    predicted = np.array([record[PREDICTED] for record in records], np.float64)
    return predicted / np.asarray(class_counts)


def draw(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws a panel for each run, with a line for each class; of many classes, for ten of them.

    Args:
        runs: at least one, possibly of different data.
        options: not used.

    Raises:
        ConfigError: the training images of a run were not evaluated.
    """
    del options
    numbers: dict[str, Any] = {}
    for run in runs:
        records = fitted_records(run.path, run.metrics)
        counts, names = classes_of(run)
        numbers[run.label] = {
            "class_names": names,
            "class_counts": counts,
            "epochs": [record["epoch"] for record in records],
            "ratio": ratios(records, counts).tolist(),
        }
    columns = min(len(runs), COLUMNS)
    rows = -(-len(runs) // columns)
    with styled():
        figure = Figure(figsize=(6.2 * columns, 3.2 * rows))
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (label, found) in zip(panels, numbers.items(), strict=False):
            order = by_frequency(found["class_counts"])
            # The most frequent and the rarest class are always among those that are drawn.
            count = min(len(order), NAMED)
            shown = order[np.linspace(0, len(order) - 1, count).round().astype(int)]
            values = 100 * np.array(found["ratio"])
            for k, color in zip(shown.tolist(), class_colors(count), strict=True):
                name = literal(f"{found['class_names'][k]} ({found['class_counts'][k]:,})")
                axes.plot(found["epochs"], values[:, k], color=color, lw=1.4, label=name)
            axes.axhline(100, color="#888888", lw=1, ls=":", zorder=0)
            axes.set(title=literal(label), xlabel="completed epochs", ylim=(0, None))
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
            # Beside the panel, because the lines of early epochs are everywhere in it.
            axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
        for axes in panels[: len(runs) : columns]:
            axes.set_ylabel("classification ratio (%)")
        for axes in panels[len(runs) :]:
            axes.set_axis_off()
    return Drawing(figure, numbers)
