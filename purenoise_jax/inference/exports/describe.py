"""Describes an exported network: its input and output, its classes, and the run it came from."""

import hashlib
from pathlib import Path
from typing import Any

from purenoise_jax.data.sources.resize import CROP, PAD, SQUASH
from purenoise_jax.data.view import CROPS
from purenoise_jax.inference.classifier import Classifier
from purenoise_jax.training.provenance import versions

FORMAT = 1


def described(classifier: Classifier, kind: str, content: bytes) -> dict[str, Any]:
    """Returns the content of the JSON file beside an export.

    Args:
        classifier: that was exported.
        kind: of the export.
        content: of its file.
    """
    trained, deployment = classifier.trained, classifier.deployment
    height, width, channels = trained.image_shape
    record = trained.record
    return {
        "format": FORMAT,
        "kind": kind,
        "sha256": hashlib.sha256(content).hexdigest(),
        "input": {
            "dtype": "uint8",
            "shape": ["any number", height, width, channels],
            "values": "0..255, " + ("RGB" if channels == 3 else "grey"),
            "resize": _resize(classifier),
        },
        "output": {
            "dtype": "float32",
            "shape": ["as many", len(trained.class_names)],
            "values": "probability of each class, in the order of class_names",
        },
        "class_names": list(trained.class_names),
        "class_counts": trained.class_counts.tolist(),
        "prior": None if deployment.prior is None else deployment.prior.tolist(),
        "temperature": deployment.temperature,
        "costs": None if deployment.costs is None else deployment.costs.tolist(),
        "decision": (
            "the most probable class"
            if deployment.costs is None
            else "the class k with the least sum over classes j of probability[j] * costs[j][k]"
        ),
        "run": {
            "name": trained.run.label,
            "config_hash": _config_hash(classifier),
            "epoch": trained.epoch,
            "step": trained.step,
            "phases": [
                {"start_epoch": start, "methods": list(methods)}
                for start, methods in trained.phases
            ],
            **{name: record.get(name) for name in ("dataset_fingerprint", "dataset_content")},
        },
        "versions": {
            name: text for name, text in versions().items() if name not in ("device", "commit")
        },
    }


def _resize(classifier: Classifier) -> str:
    height, width, _ = classifier.image_shape
    if height != width:
        return f"images must be {height} x {width} already"
    view = classifier.trained.view
    text = {
        SQUASH: f"to {height} x {width} with Pillow's BILINEAR filter, without keeping the "
        "proportions",
        CROP: f"the largest square in the middle to {height} x {width} with Pillow's BILINEAR "
        "filter",
        PAD: f"the longer side to {height} with Pillow's BILINEAR filter, the shorter one in "
        "proportion, rounded, and black on both sides of it",
    }[view.how]
    if shorter := view.shorter:
        text = (
            f"the shorter side to {shorter} with Pillow's BILINEAR filter, the longer one in "
            f"proportion, rounded down; of that the central {height} x {width}"
        )
    if {*CROPS} & {*classifier.trained.run.config.data.augment}:
        return f"{text}; in training, images were crops of the originals"
    return text


def _config_hash(classifier: Classifier) -> str | None:
    summary = classifier.trained.run.summary or {}
    return summary.get("config_hash")


def beside(path: Path, ending: str) -> Path:
    """Returns the path of a file that belongs to an export, such as `classifier.onnx.json`."""
    return path.with_name(path.name + ending)
