"""Planes through three images, as pure functions of arrays.

Source: Somepalli et al. 2022, "Can Neural Nets Learn the Same Model Twice?", section 3: decision
regions of a network on the plane that three images span.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

# Beside the images, the window extends by this share of its width without the margin.
# READING: the source does not give the size of its windows.
MARGIN = 0.1


class Plane(NamedTuple):
    """The plane of three images of D values each.

    Attributes:
        origin: f64[D], the first image.
        basis: f64[2, D], orthonormal; the first vector points from the first image to the second.
        corners: f64[3, 2], coordinates of the images in the basis, in units of the values.
    """

    origin: np.ndarray
    basis: np.ndarray
    corners: np.ndarray

    def points(self, coordinates: np.ndarray) -> np.ndarray:
        """Returns the images f64[N, D] at coordinates f64[N, 2]."""
        found: np.ndarray = self.origin + coordinates @ self.basis
        return found


class Window(NamedTuple):
    """A square part of a plane: coordinates of its lower left corner, and its width."""

    left: float
    bottom: float
    width: float


def plane_through(images: Sequence[np.ndarray]) -> Plane | None:
    """Finds the plane of three images by orthogonalisation.

    Args:
        images: three arrays of D finite values, of any one shape.

    Returns:
        None if the images lie on a line, up to rounding.
    """
    first, second, third = (np.asarray(image, np.float64).ravel() for image in images)
    across, up = second - first, third - first
    width = np.linalg.norm(across)
    if not width:
        return None
    across = across / width
    along = up @ across
    # A second time, because the first rest may still lean along `across` by rounding.
    rest = up - along * across
    rest -= (rest @ across) * across
    height = np.linalg.norm(rest)
    if height <= 1e-9 * max(width, np.linalg.norm(up)):
        return None
    corners = np.array([[0, 0], [width, 0], [along, height]])
    return Plane(first, np.stack([across, rest / height]), corners)


def window_of(plane: Plane) -> Window:
    """Returns the square around the three images, with MARGIN on the sides of the longer extent."""
    low, high = plane.corners.min(axis=0), plane.corners.max(axis=0)
    width = float((high - low).max()) * (1 + 2 * MARGIN)
    left, bottom = (low + high) / 2 - width / 2
    return Window(float(left), float(bottom), width)


def cell_centres(window: Window, side: int) -> np.ndarray:
    """Returns the centres of side x side cells of a window, f64[side * side, 2].

    Rows follow each other from the bottom up, each from left to right, so that the share of the
    points with a property is the share of the window's area, by the midpoint rule.
    """
    steps = (np.arange(side) + 0.5) * (window.width / side)
    y, x = np.meshgrid(window.bottom + steps, window.left + steps, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1)


def class_triples(labels: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Draws triples of images without end: three classes at random, and an image of each.

    With fewer than three classes, a class has several of the images.

    Args:
        labels: int[N], of at least three images.
        seed: the same seed and labels give the same triples.

    Yields:
        int[3], three different places in `labels`.
    """
    rng = np.random.default_rng(seed)
    present = np.unique(labels)
    by_class = {int(k): np.flatnonzero(labels == k) for k in present}
    while True:
        classes = np.resize(rng.permutation(present), 3)
        places = np.array([rng.choice(by_class[int(k)]) for k in classes])
        if len(set(places.tolist())) == 3:
            yield places
