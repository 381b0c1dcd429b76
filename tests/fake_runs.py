"""Writes workdirs by hand, so that a test knows the numbers of the figures."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from purenoise_jax.config.fields import default_config
from purenoise_jax.config.run_record import CONFIG_FILE, saved_config
from purenoise_jax.runtime.files import write_json
from purenoise_jax.training.confusion import FILES, Confusion, save
from purenoise_jax.training.metrics import TRAINING_SET, summarize
from purenoise_jax.training.records import LISTED

# Name in metrics.jsonl -> name in summary.json.
MARKS = {"accuracy": "test_accuracy", "nll": "test_nll", "ece": "test_ece"}


def diagonal(shares: list[float], images: int = 10) -> np.ndarray:
    """A confusion matrix with these recalls, whose errors all go to the next class."""
    confusion = np.zeros((len(shares), len(shares)), int)
    for k, share in enumerate(shares):
        right = round(share * images)
        confusion[k, k] = right
        confusion[k, (k + 1) % len(shares)] += images - right
    return confusion


def numbers_of(confusion: Confusion, counts: list[int]) -> dict[str, Any]:
    """The numbers that an evaluation records."""
    results = confusion.results(top5_of(confusion))
    images = results.images.sum()
    bins = np.array([[images, 0.5 * images, results.correct.sum()]])
    numbers = summarize(results, 1.25 * images, bins, np.array(counts))
    if len(counts) <= LISTED:
        numbers["confusion_matrix"] = confusion.dense().tolist()
    return {name: value for name, value in numbers.items() if value is not None}


def top5_of(confusion: Confusion) -> np.ndarray:
    """Images of each class that is among five: the right ones, and half of the others."""
    return (confusion.by_true() + confusion.correct()) // 2


def training_numbers(matrix: np.ndarray, counts: list[int]) -> dict[str, Any]:
    """The numbers that an evaluation of the training images records, from int[K, K]."""
    found = numbers_of(Confusion.from_dense(matrix), counts)
    del found["confusion_matrix"]
    return {**found, "predicted_images": matrix.sum(axis=0).tolist()}


def write_run(
    path: Path,
    *,
    counts: list[int],
    evaluations: dict[int, np.ndarray | Confusion],
    training: dict[int, np.ndarray] | None = None,
    names: list[str] | None = None,
    epochs: int = 4,
    finished: bool = True,
    summary: dict[str, Any] | None = None,
    **overrides: Any,
) -> Path:
    """Writes a workdir.

    Args:
        path: path of the workdir.
        counts: training images per class.
        evaluations: confusion matrix by epoch; the last is the summary's.
        training: confusion matrix of the training images by epoch; None = not evaluated.
        names: class names.
        epochs: number of epochs.
        finished: True to write summary.json.
        summary: entries to add, or with None to leave out.
        overrides: config fields by dotted path.
    """
    path.mkdir(parents=True)
    matrices = {
        epoch: each if isinstance(each, Confusion) else Confusion.from_dense(each)
        for epoch, each in evaluations.items()
    }
    config = default_config()
    fields = {"num_epochs": epochs, "data.source": "npz", "data.path": "/nowhere.npz"}
    config.update_from_flattened_dict({**fields, **overrides})
    write_json(path / CONFIG_FILE, saved_config(config))
    last = max(evaluations, default=0) if not finished else epochs
    lines = []
    for epoch in range(1, last + 1):
        record = {"step": 3 * epoch, "epoch": epoch, "train/loss": 2 / epoch,
                  "train/learning_rate": 0.1}  # fmt: skip
        if epoch in evaluations:
            found = numbers_of(matrices[epoch], counts)
            record |= {f"test/{name}": value for name, value in found.items()}
        if epoch in (training or {}):
            found = training_numbers(training[epoch], counts)
            record |= {f"{TRAINING_SET}/{name}": value for name, value in found.items()}
        lines.append(record)
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if finished:
        found = numbers_of(matrices[epochs], counts)
        last_matrix = matrices[epochs]
        save(path / FILES["test"], last_matrix, top5_of(last_matrix), 3 * epochs)
        entries = {MARKS.get(name, name): value for name, value in found.items()}
        entries |= {
            "class_counts": counts,
            "class_names": names or [f"class {k}" for k in range(len(counts))],
            "num_classes": len(counts),
            "image_shape": [8, 8, 3],
            "dataset_fingerprint": "f" * 64,
            "dataset_content": "c" * 64,
            "normalize_mean": [0.5, 0.5, 0.5],
            "normalize_std": [0.25, 0.25, 0.25],
            "epochs": epochs,
            "steps": 3 * epochs,
            "seed": config.seed,
            "config_hash": "a" * 64,
            "state_digest": "d" * 64,
            "devices": 1,
            "init_from": None,
            "images_per_second": 1234.5,
            "seconds": 3700.0,
            "versions": {"python": "3.11.7", "commit": "0123abc", "device": "cpu cpu"},
        }
        if epochs in (training or {}):
            entries[TRAINING_SET] = training_numbers(training[epochs], counts)
        entries |= summary or {}
        write_json(path / "summary.json", {k: v for k, v in entries.items() if v is not None})
    return path
