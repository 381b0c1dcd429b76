"""Writes predictions as a CSV table, and counts how many of them are right."""

import csv
import dataclasses
from collections.abc import Sequence
from typing import TextIO

import numpy as np

from purenoise_jax.inference.deployment import Deployment
from purenoise_jax.inference.listed_images import Listed
from purenoise_jax.training.metrics import ClassResults, mean_of, recalls


@dataclasses.dataclass
class Tally:
    """Counts of images that were classified.

    Attributes:
        images: all.
        known: those of them whose true class is known.
        correct: those of the latter that are predicted right.
        by_class: name of a class -> its images and those of them that are predicted right; of a
            table, in label order.
    """

    images: int = 0
    known: int = 0
    correct: int = 0
    by_class: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)

    def add(self, label: str, predicted: str) -> None:
        """Counts an image; `label` is "" if its true class is not known."""
        self.images += 1
        if label:
            right = label == predicted
            self.known, self.correct = self.known + 1, self.correct + right
            seen, hits = self.by_class.get(label, (0, 0))
            self.by_class[label] = seen + 1, hits + right

    @property
    def results(self) -> ClassResults:
        """The counts by class, in the order of `by_class`."""
        images, correct = np.array([*self.by_class.values()], np.int64).reshape(-1, 2).T
        return ClassResults(images, correct)

    @property
    def accuracy(self) -> float | None:
        """Share of the images of a known class that are predicted right; None without any."""
        return self.correct / self.known if self.known else None

    @property
    def balanced_accuracy(self) -> float | None:
        """The mean accuracy of the classes that occur; None without any."""
        return mean_of(recalls(self.results))


class PredictionTable:
    """A CSV table with a row for every image.

    The columns are `path`, `label` (empty if the true class is not known), `predicted`, its
    `probability`, with costs its `expected_cost`, and `p_CLASS` for every class. With `top`, the
    columns `class_1`, `p_1`, ... of the most probable classes take the place of those of all
    classes.

    Args:
        file: to write to, opened with `newline=""`.
        class_names: K names in label order.
        deployment: decides the class.
        top: number of classes with a column; 0 = all, in label order.
    """

    def __init__(
        self, file: TextIO, class_names: Sequence[str], deployment: Deployment, top: int = 0
    ) -> None:
        self.tally = Tally(by_class=dict.fromkeys(class_names, (0, 0)))
        self._writer = csv.writer(file, lineterminator="\n")
        self._names, self._deployment = class_names, deployment
        self._top = min(top, len(class_names))
        columns = ["path", "label", "predicted", "probability"]
        columns += [] if deployment.costs is None else ["expected_cost"]
        if top:
            places = range(1, self._top + 1)
            columns += [name for place in places for name in (f"class_{place}", f"p_{place}")]
        else:
            columns += [f"p_{name}" for name in class_names]
        self._writer.writerow(columns)

    def write(self, images: Sequence[Listed], probabilities: np.ndarray) -> None:
        """Writes the rows of images.

        Args:
            images: N images.
            probabilities: f32[N, K].
        """
        chosen, costs = self._deployment.decide(probabilities)
        for row, image in enumerate(images):
            name = self._names[chosen[row]]
            cost = [] if costs is None else [repr(float(costs[row]))]
            own = _text(probabilities[row, chosen[row]])
            more = self._classes(probabilities[row])
            self._writer.writerow([image.path, image.label, name, own, *cost, *more])
            self.tally.add(image.label, name)

    def _classes(self, probabilities: np.ndarray) -> list[str]:
        if not self._top:
            return list(map(_text, probabilities))
        order = np.argsort(-probabilities, kind="stable")[: self._top]
        return [text for k in order for text in (self._names[k], _text(probabilities[k]))]


def _text(probability: np.float32) -> str:
    """The shortest number that is read back as the same float32."""
    return str(probability)
