"""Writes an export, its description and its model card, once the export agrees with the run."""

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from purenoise_jax.inference.classifier import Classifier
from purenoise_jax.inference.exports import onnx, stablehlo, weights
from purenoise_jax.inference.exports.agreement import largest_difference
from purenoise_jax.inference.exports.card import card
from purenoise_jax.inference.exports.describe import beside, described
from purenoise_jax.runtime.files import check_output, folders_above, replacing

Reader = Callable[[np.ndarray], np.ndarray]


class Kind(NamedTuple):
    """A kind of export.

    Attributes:
        suffix: of its file.
        serialized: (classifier) -> the content of the file.
        reader: (content, description) -> the file as a function of images, see `agreement`.
        more: (classifier) -> what only this kind has in its description.
        help: one line.
    """

    suffix: str
    serialized: Callable[[Classifier], bytes]
    reader: Callable[[bytes, Mapping[str, Any]], Reader]
    more: Callable[[Classifier], dict[str, Any]]
    help: str


KINDS = {
    "stablehlo": Kind(
        stablehlo.SUFFIX,
        stablehlo.serialized,
        lambda content, _: stablehlo.reader(content),
        lambda _: {"platforms": list(stablehlo.PLATFORMS), "read_with": "jax.export.deserialize"},
        "a program for JAX without this package: images in, probabilities out",
    ),
    "onnx": Kind(
        onnx.SUFFIX,
        onnx.serialized,
        lambda content, _: onnx.reader(content),
        onnx.description,
        "a model for ONNX Runtime and others: images in, probabilities out",
    ),
    "safetensors": Kind(
        weights.SUFFIX,
        weights.serialized,
        lambda content, description: weights.reader(content, description["weights"]),
        lambda classifier: {"weights": weights.description(classifier)},
        "the weights alone; the steps around the network are in the JSON file beside them",
    ),
}


class Written(NamedTuple):
    """The files of an export.

    Attributes:
        files: the export, its description and its card.
        difference: largest difference of probabilities between the export and the run.
    """

    files: tuple[Path, ...]
    difference: float


def export(classifier: Classifier, kind: str, path: Path) -> Written:
    """Writes an export, after it was read back and compared with the run.

    Args:
        classifier: to export.
        kind: one of `KINDS`.
        path: of the file.

    Raises:
        ConfigError: a package is missing, the kind cannot hold what the method does, or a folder
            has the name of one of the files.
        StorageError: the export does not agree with the run.
        OSError: a file cannot be written.
    """
    check_paths(path)
    made = KINDS[kind]
    content = made.serialized(classifier)
    description = described(classifier, kind, content) | made.more(classifier)
    text = json.dumps(description, indent=2, allow_nan=False) + "\n"
    difference = largest_difference(classifier, made.reader(content, json.loads(text)))
    texts = text, card(classifier, description, difference)
    # Files get their names from the last to the first. The export is the last one that does,
    # because its presence says that the others are there.
    contents = [content, *(part.encode("utf-8", "backslashreplace") for part in texts)]
    files = _files(path)
    with folders_above(path), contextlib.ExitStack() as opened:
        for file, part in zip(files, contents, strict=True):
            opened.enter_context(replacing(file)).write(part)
    return Written(files, difference)


def check_paths(path: Path, field: str = "path") -> None:
    """Refuses a path that an export or a file beside it cannot be written to.

    Args:
        path: of the export.
        field: name of the option, in messages.

    Raises:
        ConfigError: see `files.check_output`.
        StorageError: nothing can be written there.
    """
    for file in _files(path):
        check_output(file, field)


def _files(path: Path) -> tuple[Path, Path, Path]:
    """The export, its description and its card."""
    return path, beside(path, ".json"), beside(path, ".md")
