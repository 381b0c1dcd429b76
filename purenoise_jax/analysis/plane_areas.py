"""Areas of the predicted classes on planes through three test images.

Source: Somepalli et al. 2022, section 3, for the planes; Shwartz-Ziv et al. 2023, appendix A.11,
for their use under imbalance.

READING: neither source says how the three images are chosen, and both judge areas from pictures. A
triple is an image of each of three classes, all drawn uniformly, so that every class is a corner
equally often. The area is that of the square window around the three images. Points of a plane may
lie outside the range of pixels; they are not clipped, because clipped points do not lie on the
plane.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from purenoise_jax.analysis.classes import by_frequency
from purenoise_jax.analysis.figure_style import Options
from purenoise_jax.analysis.planes import (
    Plane,
    Window,
    cell_centres,
    class_triples,
    plane_through,
    window_of,
)
from purenoise_jax.inference.network import Network
from purenoise_jax.inference.runs import Run
from purenoise_jax.runtime.console import SPLITS
from purenoise_jax.runtime.errors import CheckpointError, ConfigError
from purenoise_jax.training.metrics import standard_error

TRIPLES = 100
SHOWN = 3  # triples whose planes are drawn
# Cells along each side of a window: to measure areas on many planes, and to draw a few of them.
MEASURED_SIDE, DRAWN_SIDE = 16, 50
AT_ONCE = 10  # planes per call of the network
ATTEMPTS = 20  # triples tried for each that is wanted


class Drawn(NamedTuple):
    """A plane with the classes that a network predicts on it.

    Attributes:
        places: int[3], of the images in the split.
        plane: through the three images.
        window: its part that is drawn.
        predicted: int[DRAWN_SIDE, DRAWN_SIDE], rows from the bottom up.
        images: uint8[3, H, W, C].
        labels: int[3].
    """

    places: np.ndarray
    plane: Plane
    window: Window
    predicted: np.ndarray
    images: np.ndarray
    labels: np.ndarray


class Areas(NamedTuple):
    """The measured areas of a run.

    Attributes:
        step: completed steps of the checkpoint.
        triples: int[N, 3], places of the images in the split.
        labels: int[N, 3], their classes.
        area: f64[N, K], share of the window in which each class is predicted; rows sum to 1.
        drawn: the SHOWN planes whose classes differ most in frequency.
    """

    step: int
    triples: np.ndarray
    labels: np.ndarray
    area: np.ndarray
    drawn: tuple[Drawn, ...]


def areas_of(run: Run, options: Options) -> Areas:
    """Measures areas on the planes of a run; a second call returns the same.

    Args:
        run: from `load_runs`.
        options: `images` is the number of triples (0 = TRIPLES); `epoch` and `seed`.

    Raises:
        CheckpointError: there is no such checkpoint, or its logits are not finite.
        ConfigError: the run has fewer than three test images, or they span no plane.
        DataError: the data cannot be read.
    """
    count = options.images or TRIPLES
    name = f"areas {options.epoch} {options.seed} {count}"
    if name not in run.kept:
        run.kept[name] = _measure(run, options, count)
    found: Areas = run.kept[name]
    return found


def _measure(run: Run, options: Options, count: int) -> Areas:
    images, labels = run.experiment.dataset.shown_images
    chosen = _triples(run, images, labels, count, options.seed)
    network = Network(run, options.epoch)
    classes = run.experiment.training.stats.num_classes
    area = []
    for first in range(0, count, AT_ONCE):
        part = chosen[first : first + AT_ONCE]
        for predicted in _predict(network, [plane for _, plane in part], MEASURED_SIDE):
            area.append(shares_of(predicted, classes))
    drawn = []
    triples = np.array([places for places, _ in chosen])
    ranks = np.argsort(by_frequency(run.experiment.training.stats.class_counts))[labels[triples]]
    for i in np.argsort(-np.ptp(ranks, axis=1), kind="stable")[:SHOWN]:
        places, plane = chosen[i]
        (predicted,) = _predict(network, [plane], DRAWN_SIDE)
        square = predicted.reshape(DRAWN_SIDE, DRAWN_SIDE)
        drawn.append(Drawn(places, plane, window_of(plane), square, images[places], labels[places]))
    return Areas(int(network.state.step), triples, labels[triples], np.array(area), tuple(drawn))


def _triples(
    run: Run, images: Any, labels: np.ndarray, count: int, seed: int
) -> list[tuple[np.ndarray, Plane]]:
    if len(labels) < 3:
        raise ConfigError(
            f"{run.path} has {len(labels)} {SPLITS[run.experiment.dataset.shown]} images, and a "
            "plane goes through three"
        )
    found: list[tuple[np.ndarray, Plane]] = []
    drawn = class_triples(labels, seed)
    for _ in range(ATTEMPTS * count):
        places = next(drawn)
        plane = plane_through(images[places] / 255)
        if plane is not None:
            found.append((places, plane))
        if len(found) == count:
            return found
    raise ConfigError(
        f"{run.path}: {ATTEMPTS * count} draws of three test images gave {len(found)} planes and "
        f"not {count}; in the others the images are equal or lie on a line"
    )


def _predict(network: Network, planes: Sequence[Plane], side: int) -> list[np.ndarray]:
    """Predicts the classes at the cells of each plane's window: int[side * side] each."""
    shape = network.experiment.training.stats.image_shape
    points = [plane.points(cell_centres(window_of(plane), side)) for plane in planes]
    pixels = np.concatenate(points).astype(np.float32).reshape(-1, *shape)
    inputs = np.asarray(network.experiment.batch_builder.normalize(jnp.asarray(pixels)))
    logits = network.evaluate(inputs).logits
    if not np.isfinite(logits).all():
        raise CheckpointError(
            f"{network.run.path}: its network computes logits that are not finite"
        )
    return list(logits.argmax(axis=1).reshape(len(planes), -1))


def shares_of(predicted: np.ndarray, classes: int) -> np.ndarray:
    """Returns the share of predictions int[...] that each of K classes has: f64[K], sum 1."""
    found: np.ndarray = np.bincount(predicted.ravel(), minlength=classes) / predicted.size
    return found


def summarize(areas: Areas, sets: Sequence[np.ndarray]) -> dict[str, list[float | None]]:
    """Computes the mean area of sets of classes, and its standard error over the triples.

    Args:
        areas: from `areas_of`.
        sets: of class indices.

    Returns:
        By set: "area" and "area_error", over all planes; "own_area" and "own_area_error", over the
        planes through an image of the set; "own_planes", their number. An area is None without a
        plane, an error with fewer than two.
    """
    found: dict[str, list[float | None]] = {
        f"{name}{end}": [] for name in ("area", "own_area") for end in ("", "_error")
    }
    planes: list[float | None] = []
    for classes in sets:
        share = areas.area[:, classes].sum(axis=1)
        own = np.isin(areas.labels, classes).any(axis=1)
        planes.append(int(own.sum()))
        for name, values in (("area", share), ("own_area", share[own])):
            found[name].append(float(values.mean()) if len(values) else None)
            found[f"{name}_error"].append(standard_error(values) if len(values) > 1 else None)
    return {**found, "own_planes": planes}
