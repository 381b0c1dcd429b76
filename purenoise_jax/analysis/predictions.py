"""Classes that a network predicts for pure noise and for out-of-distribution images.

Source: Lee and Lee 2023, section 5.1, figures 8 and 9: 1,000 noise images and 1,000 test images of
all classes of the other CIFAR, in evaluation, where noise is normalised like any image.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from purenoise_jax.analysis.classes import by_frequency, class_axis
from purenoise_jax.analysis.features import noise_inputs
from purenoise_jax.analysis.figure_style import COLORS, Drawing, Options, literal, styled
from purenoise_jax.analysis.ood import ood_images
from purenoise_jax.inference.network import Network
from purenoise_jax.inference.runs import Run

IMAGES = 1000
TITLES = {"noise": "pure noise", "ood": "out-of-distribution images"}


def count_predictions(logits: np.ndarray) -> np.ndarray:
    """Counts the predictions by class: logits f32[N, K] -> int[K]."""
    return np.bincount(logits.argmax(axis=1), minlength=logits.shape[1])


def rare_share(predicted: np.ndarray, class_counts: np.ndarray) -> float | None:
    """Returns the share of predictions that fall on the rarer half of the classes.

    Args:
        predicted: int[K], images by predicted class.
        class_counts: int[K], training images; for an odd K the middle class is not in that half.

    Returns:
        In [0, 1]; None without images.
    """
    rare = by_frequency(class_counts)[(len(class_counts) + 1) // 2 :]
    return float(predicted[rare].sum() / predicted.sum()) if predicted.sum() else None


def draw(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws a row for each run: predicted classes of noise images, and of OOD images unless "none".

    Classes are in order of their training images, most first.

    Args:
        runs: at least one.
        options: `images` of each kind (0 = 1,000; fewer OOD images if there are fewer).
    """
    count = options.images or IMAGES
    numbers: dict[str, Any] = {}
    for run in runs:
        network, other = Network(run, options.epoch), ood_images(run, options)
        drawn = np.random.default_rng(options.seed).permutation(len(other))[:count]
        inputs = {"noise": noise_inputs(network, count, options.seed)}
        if len(drawn):
            inputs["ood"] = network.images(other[drawn])
        counts = run.experiment.training.stats.class_counts
        predicted = {k: count_predictions(network.evaluate(x).logits) for k, x in inputs.items()}
        numbers[run.label] = {
            "class_names": run.class_names,
            "class_counts": counts.tolist(),
            **{kind: row.tolist() for kind, row in predicted.items()},
            **{f"{kind}_rare_share": rare_share(row, counts) for kind, row in predicted.items()},
        }
    return Drawing(_figure(runs, numbers), numbers)


def _figure(runs: Sequence[Run], numbers: dict[str, Any]) -> Figure:
    kinds = [kind for kind in TITLES if kind in numbers[runs[0].label]]
    with styled():
        figure = Figure(figsize=(4.8 * len(kinds), 2.6 * len(runs) + 0.4))
        panels = figure.subplots(len(runs), len(kinds), squeeze=False, sharey=True)
        for row, run in zip(panels, runs, strict=True):
            order = by_frequency(run.experiment.training.stats.class_counts)
            for axes, kind in zip(row, kinds, strict=True):
                shares = np.array(numbers[run.label][kind])[order]
                axes.bar(
                    range(len(order)), 100 * shares / shares.sum(), width=0.85, color=COLORS[0]
                )
                axes.grid(axis="x", visible=False)
                class_axis(axes, run, order)
                axes.set_title(
                    f"{literal(run.label)}: {TITLES[kind]}" if len(runs) > 1 else TITLES[kind]
                )
            row[0].set_ylabel("predicted (% of images)")
    return figure
