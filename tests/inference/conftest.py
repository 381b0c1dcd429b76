"""One tiny run for all tests of this folder, and its test images as files in class folders."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

import purenoise_jax
from purenoise_jax.inference.classifier import Classifier
from purenoise_jax.inference.network import Network
from purenoise_jax.inference.runs import Run
from tests.tiny_run import train_tiny


class Finished(NamedTuple):
    """A run whose data have been moved away.

    Attributes:
        run: read from its workdir.
        images: uint8[40, 8, 8, 3], of its test set.
        labels: int[40].
        logits, features: of these images, computed with the data at hand.
        npz: the data.
        folder: the test images as `CLASS/NUMBER.png`.
    """

    run: Run
    images: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    features: np.ndarray
    npz: Path
    folder: Path


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Finished:
    root = tmp_path_factory.mktemp("finished")
    run = train_tiny(root)
    network, dataset = Network(run), run.experiment.dataset
    outputs = network.evaluate(network.images(dataset.test_images))
    npz = (root / "tiny.npz").rename(tmp_path_factory.mktemp("moved") / "tiny.npz")
    folder = tmp_path_factory.mktemp("photos") / "test"
    for row, (image, label) in enumerate(
        zip(dataset.test_images, dataset.test_labels, strict=True)
    ):
        path = folder / str(label) / f"{row:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return Finished(
        run, dataset.test_images, dataset.test_labels, outputs.logits, outputs.features, npz, folder
    )


@pytest.fixture(scope="session")
def classifier(finished) -> Classifier:
    return purenoise_jax.load(finished.run.path)
