"""Logits of the test or validation images of a run, computed once for all that need them."""

from typing import NamedTuple

import numpy as np

from purenoise_jax.data.host_images import HostImages, Images
from purenoise_jax.inference.network import BATCH_SIZE, Network
from purenoise_jax.inference.runs import Run
from purenoise_jax.runtime.errors import CheckpointError, ConfigError, DataError

TEST, VAL = "test", "val"


class SplitOutputs(NamedTuple):
    """Logits of the images of a split.

    Attributes:
        logits: f32[N, K], after the recipe's `postprocess`.
        labels: int[N] in [0, K).
        rows: int[N], places of the images in the split; those that cannot be read are left out.
        step: completed steps of the checkpoint.
    """

    logits: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    step: int


def has_split(run: Run, split: str) -> bool:
    """Returns whether a run has images of a split, "test" or "val"."""
    labels = _images_of(run, split)[1]
    return labels is not None and len(labels) > 0


def split_outputs(run: Run, split: str = TEST, epoch: int | None = None) -> SplitOutputs:
    """Evaluates the network of a run on a split; a second call returns the same arrays.

    Args:
        run: from `load_runs`.
        split: "test" or "val".
        epoch: completed epochs of the checkpoint; None = the newest.

    Raises:
        CheckpointError: there is no such checkpoint, or its logits are not finite.
        ConfigError: the run has no such images.
        DataError: the data are missing, or an image cannot be read and `data.on_bad` is "stop".
    """
    name = f"outputs {split} {epoch}"
    if name not in run.kept:
        run.kept[name] = _compute(run, split, epoch)
    found: SplitOutputs = run.kept[name]
    return found


def images_of(run: Run, split: str, rows: np.ndarray) -> np.ndarray:
    """Reads images of a split, uint8[M, H, W, C]; rows int[M] are places in it."""
    images, _ = _images_of(run, split)
    assert images is not None, "the split has outputs"
    found: np.ndarray = images[rows]
    return found


def _images_of(run: Run, split: str) -> tuple[Images | None, np.ndarray | None]:
    dataset = run.experiment.dataset
    if split == TEST:
        return dataset.test_images, dataset.test_labels
    return dataset.val_images, dataset.val_labels


def _compute(run: Run, split: str, epoch: int | None) -> SplitOutputs:
    images, labels = _images_of(run, split)
    if images is None or labels is None or not len(labels):
        raise ConfigError(f"{run.path} has no {'test' if split == TEST else 'validation'} images")
    network = Network(run, epoch)
    kept, parts = [], []
    for first in range(0, len(labels), BATCH_SIZE):
        rows, pixels = _read(
            images, np.arange(first, min(first + BATCH_SIZE, len(labels))), run.experiment.skips_bad
        )
        parts.append(network.evaluate(network.images(pixels)).logits)
        kept.append(rows)
    logits, rows = np.concatenate(parts), np.concatenate(kept)
    if not np.isfinite(logits).all():
        raise CheckpointError(f"{run.path}: its network computes logits that are not finite")
    return SplitOutputs(logits, np.asarray(labels)[rows], rows, int(network.state.step))


def _read(images: Images, rows: np.ndarray, skips_bad: bool) -> tuple[np.ndarray, np.ndarray]:
    """Reads images; returns the places of those that can be read, and their pixels."""
    if not isinstance(images, HostImages):
        return rows, images[rows]
    pixels = np.zeros((len(rows), *images.shape[1:]), np.uint8)
    faults = images.read(rows, pixels)
    if faults and not skips_bad:
        raise DataError(faults[0][1])
    readable = np.ones(len(rows), bool)
    readable[[place for place, _ in faults]] = False
    return rows[readable], pixels[readable]
