"""The model card of an exported network, in Markdown.

Source of the headings: Mitchell et al. 2019, "Model cards for model reporting".
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from purenoise_jax.inference.classifier import Classifier
from purenoise_jax.inference.trained import Trained
from purenoise_jax.inference.unmeasured import unmeasured
from purenoise_jax.runtime.console import SPLITS
from purenoise_jax.runtime.errors import ConfigError, counted, harmless
from purenoise_jax.training.confusion import FILES, load
from purenoise_jax.training.intervals import Interval, accuracy_intervals
from purenoise_jax.training.metrics import FEW, ClassResults

NONE = "\N{EN DASH}"
NUMBERS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy, the mean over classes",
    "geometric_mean": "geometric mean of the accuracies by class",
    "nll": "negative log-likelihood, nats",
    "ece": "expected calibration error",
}


def card(classifier: Classifier, description: Mapping[str, Any], agreement: float) -> str:
    """Returns the model card of an export.

    Args:
        classifier: that was exported.
        description: from `describe.described`.
        agreement: largest difference of probabilities between the export and the run.
    """
    trained = classifier.trained
    parts = [
        f"# Image classifier of {len(trained.class_names):,} classes",
        _network(trained, description, agreement),
        "## Use",
        _use(description),
        "## Training data",
        _data(trained, description),
        "## Results",
        _results(trained, description),
        "## Limits",
        _limits(trained, description),
    ]
    return "\n\n".join(parts) + "\n"


def _network(trained: Trained, description: Mapping[str, Any], agreement: float) -> str:
    model, made = trained.run.config.model, description["versions"]
    phases = ", ".join(
        f"{' + '.join(methods)} from epoch {start}" for start, methods in trained.phases
    )
    return (
        f"{model.name} with {model.norm}, trained for {counted(trained.epoch, 'epoch')} ({phases}) "
        f"by purenoise_jax {made['purenoise-jax']} (JAX {made['jax']}). Exported as "
        f"{description['kind']}, sha256 `{description['sha256']}`. On random images its "
        f"probabilities differ by at most {agreement:.1e} from those of the run."
    )


def _use(description: Mapping[str, Any]) -> str:
    image, output = description["input"], description["output"]
    height, width, channels = image["shape"][1:]
    lines = [
        f"- Input: {image['dtype']} [N, {height}, {width}, {channels}], {image['values']}. "
        f"Resize: {image['resize']}.",
        f"- Output: {output['dtype']} [N, {output['shape'][1]}], {output['values']}.",
        f"- Prediction: {description['decision']}.",
    ]
    if "weights" in description:
        lines.append("- The JSON file beside it has the steps before and after the network.")
    return "\n".join(lines)


def _data(trained: Trained, description: Mapping[str, Any]) -> str:
    counts, run = trained.class_counts, description["run"]
    return (
        f"{counted(int(counts.sum()), 'image')} of {len(counts):,} classes, from {counts.max():,} "
        f"to {counts.min():,} a class. Fingerprint of the choice of images: "
        f"`{run['dataset_fingerprint']}`; of their content: `{run['dataset_content']}`."
    )


def _results(trained: Trained, description: Mapping[str, Any]) -> str:
    numbers = _evaluation(trained)
    results = spread = None
    if "confusion_matrix" in numbers:
        matrix = np.asarray(numbers["confusion_matrix"])
        results = ClassResults(matrix.sum(axis=1), np.diag(matrix))
    elif numbers:
        # The matrix of many classes has a file, of the last evaluation only.
        with contextlib.suppress(ConfigError):
            file = trained.run.path / FILES[trained.run.shown]
            results = load(file, trained.step).results()
    if results is not None:
        spread = accuracy_intervals(results)
    by_class = numbers.get("per_class_accuracy") or [None] * len(trained.class_names)
    parts, split = [], SPLITS[trained.run.shown]
    if not numbers:
        parts.append(
            unmeasured(trained.run) or f"There is no evaluation after epoch {trained.epoch:g}."
        )
    else:
        rows = [[words, _number(numbers.get(name))] for name, words in NUMBERS.items()]
        columns = ["", f"{split} set"]
        if spread is not None:
            columns.append("95 % interval")
            for row, name in zip(rows, NUMBERS, strict=True):
                ends = getattr(spread, name, None)
                row.append(_interval(ends) if ends else "")
        parts.append(f"On the {split} set of the run, after epoch {trained.epoch:g}:")
        parts.append(_table(columns, rows))
        if description["temperature"] != 1:
            parts.append(f"They are without the temperature {description['temperature']:.4g}.")
        if description["prior"] is not None or description["costs"] is not None:
            parts.append("They are without the prior and the costs below.")
    columns = ["class", "training images"]
    listed: list[Sequence[Any]] = [trained.class_names, trained.class_counts.tolist()]
    if numbers:
        columns, listed = [*columns, f"{split} accuracy"], [*listed, by_class]
    if results is not None and spread is not None:
        columns = [*columns, "95 % interval", f"{split} images"]
        ends_by_class = [*map(_interval, spread.per_class)]
        listed = [*listed, ends_by_class, results.images.tolist()]
    if description["prior"] is not None:
        columns, listed = [*columns, "prior"], [*listed, description["prior"]]
    rows = [
        [_cell(name), f"{count:,}", *map(_number, rest)]
        for name, count, *rest in zip(*listed, strict=True)
    ]
    parts.append(_table(columns, rows))
    if description["costs"] is not None:
        names = list(map(_cell, trained.class_names))
        parts.append("The cost of predicting a column's class for an image of a row's class:")
        costs = zip(names, description["costs"], strict=True)
        rows = [[name, *map(_number, row)] for name, row in costs]
        parts.append(_table(["", *names], rows))
    return "\n\n".join(parts)


def _limits(trained: Trained, description: Mapping[str, Any]) -> str:
    by_class = _evaluation(trained).get("per_class_accuracy") or []
    few, split = np.flatnonzero(trained.class_counts < FEW).tolist(), SPLITS[trained.run.shown]
    missed = [k for k, share in enumerate(by_class) if share == 0]
    unseen = [k for k, share in enumerate(by_class) if share is None]
    lines = [
        "- Every image gets one of these classes, also an image of something else.",
        f"- The results hold for images like those of the {split} set, and depend on how often "
        "each class occurs in it."
        if by_class
        else "- Its accuracy was not measured.",
    ]
    for what, classes in (
        (f"Fewer than {FEW} training images", few),
        (f"No {split} image is classified right", missed),
        (f"No {split} image, so the accuracy is not known", unseen),
    ):
        if classes:
            names = ", ".join(_cell(trained.class_names[k]) for k in classes[:20])
            more = f" and {len(classes) - 20:,} more" if len(classes) > 20 else ""
            lines.append(f"- {what}: {names}{more}.")
    if description["prior"] is None:
        lines.append(
            "- The probabilities are those of the run's own evaluation; where classes occur in "
            "other shares, export with a prior."
        )
    else:
        lines.append(
            "- The prior assumes that images of one class look as they did in training, and that "
            "only the shares of the classes differ."
        )
    lines.append("- The rights to the training images, and faults of their labels, are not known.")
    return "\n".join(lines)


def _evaluation(trained: Trained) -> dict[str, Any]:
    """The numbers of the test set after the epoch of the network, by their names in metrics.

    A run without a test set has validation images in its place.
    """
    split = f"{trained.run.shown}/"
    for record in trained.run.evaluations():
        if record["epoch"] == trained.epoch:
            return {
                name.removeprefix(split): value
                for name, value in record.items()
                if name.startswith(split)
            }
    return {}


def _interval(ends: Interval | None) -> str:
    return NONE if ends is None else f"{ends.low:.2f} to {ends.high:.2f}"


def _number(value: float | str | None) -> str:
    if isinstance(value, str):
        return value
    return NONE if value is None else f"{value:.4g}"


def _cell(text: str) -> str:
    return harmless(text).replace("\\", "\\\\").replace("|", "\\|")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
