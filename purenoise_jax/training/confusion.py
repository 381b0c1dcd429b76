"""Confusion matrices by their non-zero entries, and the file that has one at the end of a run."""

import dataclasses
import io
import zipfile
import zlib
from pathlib import Path

import numpy as np

from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.runtime.files import read_bytes, write_atomically
from purenoise_jax.training.metrics import TRAINING_SET, ClassResults

# By split. Their size grows with the images, not with the square of the classes.
FILES = {split: f"confusion_{split}.npz" for split in ("test", "val", TRAINING_SET)}


@dataclasses.dataclass(frozen=True)
class Confusion:
    """The non-zero entries of a confusion matrix, by true class and then by predicted class.

    Attributes:
        true: i32[M], the row of each entry.
        predicted: i32[M], its column.
        count: i64[M], the number of images.
        classes: K.
    """

    true: np.ndarray
    predicted: np.ndarray
    count: np.ndarray
    classes: int

    @classmethod
    def of(cls, labels: np.ndarray, predicted: np.ndarray, classes: int) -> "Confusion":
        """Counts pairs of classes.

        Args:
            labels: int[N] in [0, K), the true class of every image.
            predicted: int[N] in [0, K), or -1 of an image that was left out and is not counted.
            classes: K.
        """
        labels, predicted = np.asarray(labels), np.asarray(predicted)
        labels, predicted = labels[predicted >= 0], predicted[predicted >= 0]
        # 64 bits, because K * K exceeds 32 from 46,341 classes on.
        pairs = np.asarray(labels, np.int64) * classes + np.asarray(predicted, np.int64)
        found, count = np.unique(pairs, return_counts=True)
        rows, columns = np.divmod(found, classes)
        return cls(rows.astype(np.int32), columns.astype(np.int32), count, classes)

    @classmethod
    def from_dense(cls, matrix: np.ndarray) -> "Confusion":
        """Reads a matrix int[K, K], rows = true class, columns = predicted class."""
        rows, columns = np.nonzero(matrix)
        count = np.asarray(matrix, np.int64)[rows, columns]
        return cls(rows.astype(np.int32), columns.astype(np.int32), count, len(matrix))

    def dense(self) -> np.ndarray:
        """The whole matrix, i64[K, K]."""
        matrix = np.zeros((self.classes, self.classes), np.int64)
        matrix[self.true, self.predicted] = self.count
        return matrix

    def by_true(self) -> np.ndarray:
        """Images of each true class, i64[K]: the sums of the rows."""
        return _sums(self.true, self.count, self.classes)

    def by_predicted(self) -> np.ndarray:
        """Images of each predicted class, i64[K]: the sums of the columns."""
        return _sums(self.predicted, self.count, self.classes)

    def correct(self) -> np.ndarray:
        """Images of each class that are classified correctly, i64[K]: the diagonal."""
        right = self.true == self.predicted
        return _sums(self.true[right], self.count[right], self.classes)

    def results(self, top5: np.ndarray | None = None) -> ClassResults:
        """The results by class, with `top5` int[K] if it was counted."""
        return ClassResults(self.by_true(), self.correct(), top5)


def _sums(keys: np.ndarray, count: np.ndarray, classes: int) -> np.ndarray:
    sums = np.zeros(classes, np.int64)
    np.add.at(sums, keys, count)
    return sums


def save(path: Path, confusion: Confusion, top5: np.ndarray, step: int) -> None:
    """Writes a confusion matrix and the counts by class to an .npz file.

    Its arrays are true, predicted and count (see `Confusion`); images, correct, predicted_images
    and top5, each by class; and step.

    Args:
        path: of the file; it is written completely or not at all.
        confusion: the matrix.
        top5: int[K], images of each class that is among their five classes with largest logits.
        step: completed steps.

    Raises:
        OSError: it could not be written.
    """
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        true=confusion.true,
        predicted=confusion.predicted,
        count=confusion.count,
        images=confusion.by_true(),
        correct=confusion.correct(),
        predicted_images=confusion.by_predicted(),
        top5=np.asarray(top5, np.int64),
        step=np.int64(step),
    )
    write_atomically(path, buffer.getvalue())


def load(path: Path, step: int) -> Confusion:
    """Reads the confusion matrix after a number of completed steps.

    Args:
        path: of a file that `save` has written.
        step: completed steps.

    Raises:
        ConfigError: it is missing, damaged, or that of another step.
        OSError: it cannot be read.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is missing: it has the confusion matrix of many classes, which "
                          "is written at the end of a run")  # fmt: skip
    try:
        with np.load(io.BytesIO(read_bytes(path)), allow_pickle=False) as arrays:
            confusion = Confusion(
                arrays["true"], arrays["predicted"], arrays["count"], len(arrays["images"])
            )
            found = int(arrays["step"])
            same = np.array_equal(confusion.by_true(), arrays["images"])
    except (ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigError(f"{path} is damaged ({error})") from None
    if not same:
        raise ConfigError(f"{path} is damaged (its rows have other sums than its classes)")
    if found != step:
        raise ConfigError(f"{path} is that of step {found:,}, and the newest evaluation that of "
                          f"step {step:,}")  # fmt: skip
    return confusion
