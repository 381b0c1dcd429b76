"""Every figure by name."""

from typing import NamedTuple

from purenoise_jax.analysis import (
    activations,
    curves,
    gradients,
    noise_features,
    predictions,
    tsne,
)
from purenoise_jax.analysis.drawing import Draw


class Entry(NamedTuple):
    """How a figure is drawn, and what it shows, in a line."""

    draw: Draw
    help: str


FIGURES: dict[str, Entry] = {
    "curves": Entry(curves.draw, "loss, test accuracy and learning rate by epoch"),
    "tsne": Entry(tsne.draw, "t-SNE of features: test images by class, OOD images, noise"),
    "predictions": Entry(predictions.draw, "predicted classes of noise and of OOD images"),
    "noise_features": Entry(
        noise_features.draw, "how near noise features are to natural ones, and their spread"
    ),
    "activations": Entry(
        activations.draw, "activations of natural and noise images around BN and DAR-BN"
    ),
    "gradients": Entry(
        gradients.draw, "size and direction variance of class gradients, with and without noise"
    ),
}
