"""t-SNE of the features of test images, out-of-distribution images and pure noise.

Source: Lee and Lee 2023, section 5.1, figures 1 and 7: 50 test images of each class, drawn with
replacement, 50 out-of-distribution (OOD) images and 50 noise images; features from the penultimate
layer in evaluation; scikit-learn's t-SNE with its defaults. They took OOD images from one random
class of the other CIFAR; here they come from all its classes, as in their histograms, because one
class does not represent the data set.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from purenoise_jax.analysis.classes import NAMED, by_frequency, class_colors
from purenoise_jax.analysis.features import noise_inputs
from purenoise_jax.analysis.figure_style import Drawing, Options, literal, styled
from purenoise_jax.analysis.ood import ood_images
from purenoise_jax.inference.network import Network
from purenoise_jax.inference.runs import Run

IMAGES = 50
PERPLEXITY = 30.0
COLUMNS = 2
# Numbers below 0 take the place of a label.
OOD, NOISE = -1, -2
KINDS = {OOD: ("OOD", "x", "#000000"), NOISE: ("noise", "+", "#D00000")}


def pick(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Draws images of every class with replacement.

    Args:
        labels: int[N]; a class without images is left out.
        per_class: images per class.
        seed: seed of the draws.

    Returns:
        int[K * per_class], indices by class.
    """
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [rng.choice(np.flatnonzero(labels == label), per_class) for label in np.unique(labels)]
    )


def embed(features: np.ndarray, seed: int, perplexity: float = PERPLEXITY) -> np.ndarray:
    """Places points in the plane by t-SNE.

    Args:
        features: f32[N, F], N at least 4.
        seed: the same seed gives the same picture.
        perplexity: lowered to (N - 1) / 3 for few points, because it must be below N.

    Returns:
        f32[N, 2], without a unit.
    """
    perplexity = min(perplexity, (len(features) - 1) / 3)
    # With one thread, sums have the same order on every machine. Several threads wait for each
    # other by spinning, which took fifty times as long on a busy machine.
    with threadpool_limits(1):
        return TSNE(perplexity=perplexity, random_state=seed).fit_transform(features)


def points(run: Run, options: Options) -> tuple[np.ndarray, np.ndarray]:
    """Returns one run's points, f32[N, 2], and their labels, int[N]: a class, `OOD` or `NOISE`."""
    network, dataset = Network(run, options.epoch), run.experiment.dataset
    count = options.images or IMAGES
    test_images, test_labels = dataset.shown_images
    chosen = pick(test_labels, count, options.seed)
    ood = ood_images(run, options)
    drawn = np.random.default_rng(options.seed).permutation(len(ood))[:count]
    inputs = np.concatenate(
        [
            network.images(test_images[chosen]),
            network.images(ood[drawn]),
            noise_inputs(network, count, options.seed),
        ]
    )
    labels = [test_labels[chosen], np.full(len(drawn), OOD), np.full(count, NOISE)]
    return embed(network.evaluate(inputs).features, options.seed), np.concatenate(labels)


def draw(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws a panel for each run; axes have no unit, so they have no ticks.

    Args:
        runs: at least one, possibly of different data.
        options: `images` test images of each class, OOD images and noise images (0 = 50 each).
    """
    numbers, rows = {}, -(-len(runs) // COLUMNS)
    columns = min(len(runs), COLUMNS)
    with styled():
        figure = Figure(figsize=(4.6 * columns + 1.8, 4.4 * rows))
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, run in zip(panels, runs, strict=False):
            placed, labels = points(run, options)
            numbers[run.label] = {
                "class_names": run.class_names,
                "labels": labels.tolist(),
                "points": placed.astype(float).tolist(),
            }
            _scatter(axes, run, placed, labels)
        for axes in panels[len(runs) :]:
            axes.set_axis_off()
        # The runs of a figure usually share their data set, so one legend serves all.
        figure.legend(handles=_legend(runs[0], labels), loc="outside right center")
    return Drawing(figure, numbers)


def _scatter(axes: Axes, run: Run, placed: np.ndarray, labels: np.ndarray) -> None:
    order = by_frequency(run.experiment.training.stats.class_counts)
    for color, label in zip(class_colors(len(order)), order, strict=True):
        x, y = placed[labels == label].T
        axes.scatter(x, y, s=9, color=color, linewidths=0, alpha=0.8)
    for kind, (_, marker, color) in KINDS.items():
        x, y = placed[labels == kind].T
        axes.scatter(x, y, s=28, color=color, marker=marker, linewidths=1.1, zorder=3)
    axes.set_title(literal(run.label))
    axes.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
    axes.spines[["top", "right"]].set_visible(True)


def _legend(run: Run, labels: np.ndarray) -> list[Line2D]:
    counts = run.experiment.training.stats.class_counts
    order, names = by_frequency(counts), run.class_names
    colors = class_colors(len(order))
    # The legend names at most `NAMED` classes, evenly spaced, with the first and the last.
    shown = np.unique(np.linspace(0, len(order) - 1, min(len(order), NAMED)).round().astype(int))

    def entry(label: str, marker: str, color: str) -> Line2D:
        return Line2D([], [], ls="", marker=marker, color=color, markersize=5, label=label)

    entries = [
        entry(literal(f"{names[order[i]]} ({counts[order[i]]})"), "o", colors[i]) for i in shown
    ]
    for kind, (label, marker, color) in KINDS.items():
        if (labels == kind).any():
            entries.append(entry(label, marker, color))
    return entries
