"""t-SNE of the features of training and test images of two classes.

Source: Ye et al. 2021 (Procrustean training), supplement, section D.3 and figure 9: the most
frequent and the rarest class, circles for training images and crosses for test images. If
the features of a class deviate, its crosses lie apart from its circles.

READING: the number of images is not published. Here they are at most 100 of each kind, drawn
without replacement; a rare class has fewer.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from purenoise_jax.analysis.classes import by_frequency
from purenoise_jax.analysis.figure_style import COLORS, Drawing, Options, literal, styled
from purenoise_jax.analysis.tsne import COLUMNS, embed
from purenoise_jax.data.host_images import Images, subset
from purenoise_jax.inference.network import Network
from purenoise_jax.inference.runs import Run

IMAGES = 100
# Marker of each kind of image.
KINDS = {"training": "o", "test": "x"}


def pick_of_class(labels: np.ndarray, k: int, count: int, seed: int) -> np.ndarray:
    """Draws images of a class without replacement.

    Args:
        labels: int[N].
        k: the class.
        count: the most images.
        seed: of the draw.

    Returns:
        Sorted int[n], places of the images.
    """
    places = np.flatnonzero(np.asarray(labels) == k)
    return np.sort(np.random.default_rng(seed).permutation(places)[:count])


def points(run: Run, options: Options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns one run's points, f32[N, 2], their classes, int[N], and bool[N], True for training.

    Args:
        run: whose newest checkpoint is taken, or that of `options.epoch`.
        options: `images` = the most images of each kind of a class, 0 = 100.
    """
    network, experiment = Network(run, options.epoch), run.experiment
    order = by_frequency(experiment.training.stats.class_counts)
    parts: list[tuple[Images, np.ndarray, bool]] = [
        (experiment.training.images, experiment.training.labels, True),
        (*experiment.dataset.shown_images, False),
    ]
    features, classes, trained = [], list[int](), list[bool]()
    for k in dict.fromkeys((int(order[0]), int(order[-1]))):
        for images, labels, is_training in parts:
            chosen = pick_of_class(labels, k, options.images or IMAGES, options.seed)
            features.append(network.features(subset(images, chosen)))
            classes += [k] * len(chosen)
            trained += [is_training] * len(chosen)
    placed = embed(np.concatenate(features), options.seed)
    return placed, np.array(classes), np.array(trained)


def draw(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws a panel for each run; axes have no unit, so they have no ticks.

    Args:
        runs: at least one, possibly of different data.
        options: see `points`.
    """
    numbers, rows = {}, -(-len(runs) // COLUMNS)
    columns = min(len(runs), COLUMNS)
    with styled():
        figure = Figure(figsize=(4.4 * columns, 4.6 * rows))
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, run in zip(panels, runs, strict=False):
            placed, classes, trained = points(run, options)
            numbers[run.label] = {
                "class_names": run.class_names,
                "classes": classes.tolist(),
                "training": trained.tolist(),
                "points": placed.astype(float).tolist(),
            }
            counts = run.experiment.training.stats.class_counts
            for k, color in zip(dict.fromkeys(classes.tolist()), COLORS, strict=False):
                for (kind, marker), shown in zip(KINDS.items(), (trained, ~trained), strict=True):
                    x, y = placed[(classes == k) & shown].T
                    name = literal(f"{run.class_names[k]} ({counts[k]:,}), {kind}")
                    axes.scatter(x, y, s=16, marker=marker, color=color, lw=0.9, label=name)
            axes.set_title(literal(run.label))
            axes.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
            axes.spines[["top", "right"]].set_visible(True)
            axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=2)
        for axes in panels[len(runs) :]:
            axes.set_axis_off()
    return Drawing(figure, numbers)
