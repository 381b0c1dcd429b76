"""The images of a training step, augmented and partly replaced by noise.

They are shown in pixel space, before the normalisation at the network's input.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from purenoise_jax.analysis.figure_style import COLORS, Drawing, Options, styled
from purenoise_jax.inference.runs import Run
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training.train_step import Inputs, Rows

COLUMNS, ROWS = 10, 5


class Shown(NamedTuple):
    """The batch of one training step.

    Attributes:
        epoch, step: epochs and steps completed before it.
        methods: methods of its phase.
        images: f32[V, H, W, C], of the V valid rows; padding is left out.
        labels: int[V].
        noise: bool[V], True for noise.
        stored: int[V], indices into the training set.
    """

    epoch: int
    step: int
    methods: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    noise: np.ndarray
    stored: np.ndarray


def batch_of(run: Run, epoch: int | None = None) -> Shown:
    """Recreates the batch of the first step of an epoch.

    Args:
        run: source of data, seed and methods; no checkpoint is needed.
        epoch: completed epochs before that step; None = the start of the last phase.

    Raises:
        ConfigError: the run has no such epoch.
        DataError: the data cannot be read.
    """
    last = run.config.num_epochs - 1
    if epoch is not None and not 0 <= epoch <= last:
        raise ConfigError(
            f"--epoch={epoch} must be the number of epochs before the step shown; "
            f"legal: 0 .. {last}"
        )
    experiment = run.experiment
    epoch = experiment.phases[-1].start if epoch is None else epoch
    phase = experiment.phase_of(epoch)
    step = epoch * experiment.steps_per_epoch
    index, valid = (rows[0] for rows in experiment.sampler.epoch(epoch, phase.recipe.class_probs))
    training = experiment.training
    make = jax.jit(experiment.step_fn(phase).batch)
    # Only these rows go to the device, not the complete training set.
    inputs = Inputs(training.images[index], training.labels[index])
    made = make(np.int32(step), inputs, Rows(np.arange(len(index)), valid))
    batch = {name: np.asarray(array)[valid] for name, array in made.items()}
    noise = batch.get("noise_mask", np.zeros(len(batch["label"]), bool))
    return Shown(epoch, step, phase.methods, batch["image"], batch["label"], noise, index[valid])


def draw(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws a column for each class, or for ten of them: a stored image and images of the batch.

    Args:
        runs: at least one; each has a sheet of its own.
        options: `epoch` chooses the step, see `batch_of`; `images` is the largest number per class.

    Raises:
        ConfigError: a run has no such epoch.
        DataError: the data cannot be read.
    """
    batches = [batch_of(run, options.epoch) for run in runs]
    most = options.images or ROWS
    rows = max(min(int(np.bincount(shown.labels).max()), most) for shown in batches)
    columns = min(max(len(set(shown.labels.tolist())) for shown in batches), COLUMNS)
    numbers = {}
    with styled():
        size = max(columns * 0.86 + 0.9, 4.5), ((rows + 1) * 0.86 + 0.8) * len(runs)
        figure = Figure(figsize=size)
        parts = figure.subfigures(len(runs), 1, squeeze=False).ravel()
        for part, run, shown in zip(parts, runs, batches, strict=True):
            numbers[run.label] = _sheet(part, run, shown, rows, named=len(runs) > 1)
    return Drawing(figure, numbers)


def _sheet(part: SubFigure, run: Run, shown: Shown, rows: int, *, named: bool) -> dict[str, Any]:
    training, names = run.experiment.training, run.class_names
    counts = training.stats.class_counts
    present = sorted(set(shown.labels.tolist()), key=lambda k: (-counts[k], k))
    chosen = sorted(set(np.linspace(0, len(present) - 1, COLUMNS).round().astype(int)))
    classes = [present[i] for i in chosen]
    grid = part.subplots(rows + 1, len(classes), squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    columns = []
    for column, k in enumerate(classes):
        places = np.flatnonzero(shown.labels == k)[:rows]
        # The first rows of the class, natural or noise; the sort only puts natural ones on top.
        places = places[np.argsort(shown.noise[places], kind="stable")]
        show_image(grid[0, column], training.images[shown.stored[places[0]]] / np.float32(255))
        name = names[k] if len(names[k]) <= 12 else names[k][:11] + "…"
        grid[0, column].set_title(name, fontsize=8, parse_math=False)
        for row, place in enumerate(places, 1):
            show_image(grid[row, column], shown.images[place], noise=bool(shown.noise[place]))
        columns.append(
            {
                "class": int(k),
                "name": names[k],
                "rows": places.tolist(),
                "noise": shown.noise[places].tolist(),
                "stored": shown.stored[places].tolist(),
            }
        )
    grid[0, 0].text(-0.15, 0.5, "as stored", ha="right", va="center", **_beside(grid[0, 0]))
    grid[1, 0].text(-0.15, 0.5, "in batch", ha="right", va="center", **_beside(grid[1, 0]))
    noise = int(shown.noise.sum())
    title = (
        f"step {shown.step:,} (after epoch {shown.epoch}), {' + '.join(shown.methods)}: "
        f"{len(shown.noise)} images, {noise} of them noise"
    )
    if len(present) > len(classes):
        title += f"\n{len(classes)} of its {len(present)} classes, most frequent to rarest"
    part.suptitle(f"{run.label}\n{title}" if named else title, fontsize=9, parse_math=False)
    return {
        "epoch": shown.epoch,
        "step": shown.step,
        "methods": list(shown.methods),
        "natural": len(shown.noise) - noise,
        "noise": noise,
        "columns": columns,
    }


def _beside(axes: Axes) -> dict[str, Any]:
    return {"transform": axes.transAxes, "fontsize": 8}


def show_image(axes: Axes, image: np.ndarray, *, noise: bool = False) -> None:
    """Shows an image f32[H, W, C], clipped to [0, 1]; an image of noise is marked as such."""
    # Noise that enters the network raw may lie outside [0, 1] in pixel space.
    image = np.clip(image, 0, 1)
    gray = image.shape[-1] == 1
    axes.imshow(image[..., 0] if gray else image, cmap="gray" if gray else None, vmin=0, vmax=1)
    if noise:
        axes.set_axis_on()
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set(visible=True, color=COLORS[1], linewidth=2)
        box = {"boxstyle": "square,pad=0.15", "facecolor": COLORS[1], "linewidth": 0}
        place: dict[str, Any] = {"ha": "center", "va": "bottom", "transform": axes.transAxes}
        axes.text(0.5, 0, "noise", fontsize=6.5, color="white", bbox=box, **place)
