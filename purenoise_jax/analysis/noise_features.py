"""Cosine between the mean features of pure noise and natural images, and the spread of each.

These numbers show how much the last layer can learn from noise. Under DAR-BN, noise rows leave
every norm with the channel means and deviations of natural rows, so their pooled features may
nearly equal the mean natural feature; noise would then train little more than the classes' priors.
Neither paper reports these numbers; the definitions are this project's:

- cosine: between the mean feature of noise and the mean feature of natural images;
- spread of a kind: root mean square distance of its features to their mean, over the norm of the
  mean.

Evaluation: test images and noise, both normalised by running statistics. Training: batches as in
the deferred phase of OPeN (class-balanced, augmented, some rows replaced by noise), with the
moments of the batch and dropout; DAR-BN and the auxiliary layer normalise noise rows separately.
Rows of all batches have the same weight.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from purenoise_jax.analysis.features import noise_inputs, noisy_batches
from purenoise_jax.analysis.figure_style import COLORS, Drawing, Options, literal, styled
from purenoise_jax.inference.network import Network
from purenoise_jax.inference.runs import Run

IMAGES = 1000
BATCHES = 8
MODES = ("evaluation", "training")
PANELS = {
    "cosine": "cosine of the mean features\nof noise and of natural images",
    "natural_spread": "relative spread,\nnatural images",
    "noise_spread": "relative spread,\nnoise images",
}


def cosine(a: np.ndarray, b: np.ndarray) -> float | None:
    """Returns the cosine between two vectors [F], in [-1, 1]; None if one is zero."""
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(np.clip(a @ b / norms, -1, 1)) if norms > 0 else None


def relative_spread(features: np.ndarray) -> float | None:
    """Returns the root mean square distance to the mean, over the norm of the mean.

    Args:
        features: f[N, F], N at least 1.

    Returns:
        At least 0, without a unit; None if the mean is zero.
    """
    mean = features.mean(axis=0)
    size = np.linalg.norm(mean)
    distance = np.sqrt(np.square(features - mean).sum(axis=1).mean())
    return float(distance / size) if size > 0 else None


def compare(natural: np.ndarray, noise: np.ndarray) -> dict[str, Any]:
    """Computes the numbers of one mode from features f32[N, F] and f32[M, F]."""
    both: dict[str, float | None]
    if not len(natural) or not len(noise):
        both = {"cosine": None, "natural_spread": None, "noise_spread": None}
    else:
        wide = natural.astype(np.float64), noise.astype(np.float64)
        both = {
            "cosine": cosine(*(features.mean(axis=0) for features in wide)),
            "natural_spread": relative_spread(wide[0]),
            "noise_spread": relative_spread(wide[1]),
        }
    return {**both, "natural_images": len(natural), "noise_images": len(noise)}


def training_features(network: Network, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns features of natural and noise rows of training batches, f32[N, F] and f32[M, F]."""
    natural, noise = [], []
    for i, batch in enumerate(noisy_batches(network.run, BATCHES, seed)):
        features = network.train(batch, i).features
        valid, mask = np.asarray(batch["valid"]), np.asarray(batch["noise_mask"])
        natural.append(features[valid & ~mask])
        noise.append(features[valid & mask])
    return np.concatenate(natural), np.concatenate(noise)


def measure(run: Run, options: Options) -> dict[str, Any]:
    """Returns the numbers of one run, by mode; see `compare`."""
    network, count = Network(run, options.epoch), options.images or IMAGES
    images = run.experiment.dataset.shown_images[0]
    chosen = np.random.default_rng(options.seed).permutation(len(images))[:count]
    natural = network.evaluate(network.images(images[chosen])).features
    noise = network.evaluate(noise_inputs(network, count, options.seed)).features
    return {
        "evaluation": compare(natural, noise),
        "training": compare(*training_features(network, options.seed)),
    }


def draw(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws three panels with two bars for each run, evaluation and training.

    Args:
        runs: at least one.
        options: `images` test and noise images in evaluation (0 = 1,000); training has 8 batches.
    """
    numbers = {run.label: measure(run, options) for run in runs}
    with styled():
        figure = Figure(figsize=(10, 1.7 + 0.75 * len(runs)))
        panels = figure.subplots(1, len(PANELS), sharey=True)
        for axes, (name, title) in zip(panels, PANELS.items(), strict=True):
            for i, mode in enumerate(MODES):
                values = [numbers[run.label][mode][name] for run in runs]
                shown = [0.0 if value is None else value for value in values]
                places = np.arange(len(runs)) + 0.4 * (i - 0.5)
                bars = axes.barh(places, shown, height=0.36, color=COLORS[i], label=mode)
                texts = ["none" if value is None else f"{value:.4f}" for value in values]
                axes.bar_label(bars, texts, padding=3)
            axes.set_title(title, fontsize=10)
            axes.grid(axis="y", visible=False)
            axes.margins(x=0.25)
        panels[0].set_yticks(range(len(runs)), [literal(run.label) for run in runs])
        panels[0].invert_yaxis()
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return Drawing(figure, numbers)
