"""Deviation of features: distance between mean training and mean test feature of each class.

Source: Ye et al. 2021 (Procrustean training), supplement, section A.2 and figure 9. Training means
are over sub-samples of the same number of images of every class, because the mean of fewer images
has a larger variance and therefore a larger deviation; the result is the mean over several rounds.

READING: the formula is not in the supplement. Here the distance is the Euclidean one, it is
averaged over the rounds (and not the means before it), a sub-sample is drawn without replacement
and has as many images as the smallest class (`--images`), and there are 100 rounds (`--rounds`)
with draws by `--seed`. The test mean is over all test images of the class. The features are those
before the last layer, of images that are not augmented.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from purenoise_jax.analysis.class_accuracy import MARKERS
from purenoise_jax.analysis.classes import by_frequency, class_axis
from purenoise_jax.analysis.figure_style import Drawing, Options, literal, styled
from purenoise_jax.inference.network import Network
from purenoise_jax.inference.runs import Run
from purenoise_jax.runtime.errors import ConfigError

ROUNDS = 100


def deviations(
    training: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    *,
    classes: int,
    size: int,
    rounds: int,
    seed: int,
) -> list[float | None]:
    """Returns the deviation of every class, at least 0; None without training or test images.

    Args:
        training: features f32[N, F] and labels int[N] in [0, K).
        test: features f32[M, F] and labels int[M].
        classes: K.
        size: training images of a class in a round, at most those of the smallest class.
        rounds: number of sub-samples, at least 1.
        seed: of the draws.
    """
    rng, found = np.random.default_rng(seed), list[float | None]()
    for k in range(classes):
        here, there = (
            features[labels == k].astype(np.float64) for features, labels in (training, test)
        )
        if not len(here) or not len(there):
            found.append(None)
            continue
        means = np.stack(
            [here[rng.choice(len(here), size, replace=False)].mean(axis=0) for _ in range(rounds)]
        )
        found.append(float(np.linalg.norm(means - there.mean(axis=0), axis=1).mean()))
    return found


def numbers_of(run: Run, options: Options) -> dict[str, Any]:
    """Returns the deviations of a run, and how they were computed.

    Args:
        run: whose newest checkpoint is taken, or that of `options.epoch`.
        options: `images` = images of a sub-sample, 0 = as many as the smallest class; `rounds`.

    Raises:
        ConfigError: a sub-sample would have more images than the smallest class.
    """
    training = run.experiment.training
    smallest = int(training.stats.class_counts.min())
    size, rounds = options.images or smallest, options.rounds or ROUNDS
    if size > smallest:
        raise ConfigError(
            f"--images={size}, but the smallest class of {run.path} has {smallest} training "
            f"images; legal: at most {smallest}"
        )
    network = Network(run, options.epoch)
    test_images, test_labels = run.experiment.dataset.shown_images
    found = deviations(
        (network.features(training.images), training.labels),
        (network.features(test_images), np.asarray(test_labels)),
        classes=training.stats.num_classes,
        size=size,
        rounds=rounds,
        seed=options.seed,
    )
    return {
        "class_names": run.class_names,
        "class_counts": training.stats.class_counts.tolist(),
        "step": int(network.state.step),
        "size": size,
        "rounds": rounds,
        "seed": options.seed,
        "deviation": found,
    }


def draw(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws the deviation of each class, the most frequent first, a marker for each run.

    Args:
        runs: at least one; the axis has the classes of the first.
        options: `epoch`, and see `numbers_of`.

    Raises:
        ConfigError: see `numbers_of`.
    """
    numbers = {run.label: numbers_of(run, options) for run in runs}
    with styled():
        figure = Figure(figsize=(6.4, 3.6))
        axes = figure.subplots()
        for i, (label, found) in enumerate(numbers.items()):
            order = by_frequency(found["class_counts"]).tolist()
            values = [np.nan if (v := found["deviation"][k]) is None else v for k in order]
            marker = MARKERS[i % len(MARKERS)]
            axes.plot(values, marker=marker, ms=5, lw=1, label=literal(label))
        class_axis(axes, runs[0], by_frequency(runs[0].experiment.training.stats.class_counts))
        axes.margins(y=0.1)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("distance of mean training\nand mean test feature")
        if len(runs) > 1:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return Drawing(figure, numbers)
