"""Channels of a natural and of a noise image in an early and in a late layer.

Zada, Benou and Irani 2022 (figure 5) show the first block of a VGG. Here the maps are those of the
run's own network, before a norm: the second that the network calls (see `activations`), and the
last whose maps have at least 4 x 4 values. The batch is drawn as in the run's phase with noise (as
in OPeN's, for a run without noise) and passes through the network in training mode.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure

from purenoise_jax.analysis.activations import KINDS, inputs_of_norms, layer_of
from purenoise_jax.analysis.features import noisy_batches
from purenoise_jax.analysis.figure_style import Drawing, Options, styled
from purenoise_jax.analysis.images import show_image
from purenoise_jax.inference.network import Network
from purenoise_jax.inference.runs import Run
from purenoise_jax.runtime.errors import ConfigError

CHANNELS = 8  # evenly spaced ones are shown if a layer has more
LEAST = 4  # rows and columns of a map


def layers_of(shapes: dict[str, tuple[int, ...]]) -> list[str]:
    """Returns the layers to show: an early and a late one, or one if they are the same.

    Args:
        shapes: shape [B, H, W, C] of the input of each norm, in the order of their calls; inputs
            without height and width are passed over.
    """
    maps = {path: shape for path, shape in shapes.items() if len(shape) == 4}
    wide = [path for path, shape in maps.items() if min(shape[1:3]) >= LEAST]
    chosen = [layer_of(list(maps)), *wide[-1:]] if maps else []
    return list(dict.fromkeys(chosen))


def draw(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws two rows for each layer and run: the natural image and the noise, and their channels.

    Both maps of a channel have the same scale of colours.

    Args:
        runs: at least one.
        options: `epoch` and `seed`.

    Raises:
        CheckpointError: there is no such checkpoint.
        ConfigError: the batch has no noise, for example because OPeN meets balanced data, or
            nothing else.
        DataError: the data cannot be read.
    """
    found = [_maps(run, options) for run in runs]
    numbers: dict[str, Any] = {}
    blocks = sum(len(maps) for _, maps, _ in found)
    with styled():
        figure = Figure(figsize=(1 + 0.95 * (CHANNELS + 1), 2.25 * blocks))
        parts = iter(figure.subfigures(blocks, 1, squeeze=False).ravel())
        for run, (images, maps, labels) in zip(runs, found, strict=True):
            numbers[run.label] = {
                "classes": dict(zip(KINDS, labels, strict=True)),
                "layers": {
                    path: _block(next(parts), images, x, path, run.label if len(runs) > 1 else "")
                    for path, x in maps.items()
                },
            }
    return Drawing(figure, numbers)


def _maps(run: Run, options: Options) -> tuple[np.ndarray, dict[str, np.ndarray], list[str]]:
    """The two images, their maps f32[2, H, W, C] by layer, and the names of their labels."""
    network = Network(run, options.epoch)
    (batch,) = noisy_batches(run, 1, options.seed)
    valid, noise = np.asarray(batch["valid"]), np.asarray(batch["noise_mask"])
    if not (valid & ~noise).any():
        raise ConfigError(f"{run.path}: the batch of the figure has no natural image")
    rows = [int(np.argmax(valid & (noise == of_noise))) for of_noise in (False, True)]
    seen = inputs_of_norms(network, batch, options.seed)
    layers = layers_of({path: x.shape for path, x in seen.items()})
    maps = {path: np.asarray(seen[path], np.float32)[rows] for path in layers}
    labels = [run.class_names[int(batch["label"][row])] for row in rows]
    return np.asarray(batch["image"])[rows], maps, labels


def _block(
    part: SubFigure, images: np.ndarray, maps: np.ndarray, path: str, label: str
) -> dict[str, Any]:
    height, width, channels = maps.shape[1:]
    chosen = np.unique(np.linspace(0, channels - 1, CHANNELS).round().astype(int))
    title = f"before {path}: {len(chosen)} of {channels} channels, {height} x {width}"
    part.suptitle(f"{label}: {title}" if label else title, fontsize=9, parse_math=False)
    grid = part.subplots(2, CHANNELS + 1, squeeze=False)
    for row, kind in enumerate(KINDS):
        for axes in grid[row]:
            axes.set_axis_off()
        show_image(grid[row, 0], images[row])
        grid[row, 0].set_title(kind, fontsize=8)
        for axes, channel in zip(grid[row, 1:], chosen, strict=False):
            both = maps[..., channel]
            axes.imshow(both[row], vmin=both.min(), vmax=both.max())
            if not row:
                axes.set_title(str(channel), fontsize=8)
    values = maps.astype(np.float64)
    return {
        "shape": [height, width, channels],
        "shown": chosen.tolist(),
        **{
            kind: {
                "mean": values[row].mean(axis=(0, 1)).tolist(),
                "std": values[row].std(axis=(0, 1)).tolist(),
            }
            for row, kind in enumerate(KINDS)
        },
    }
