"""Chooses a method by its validation images, and plans its training on all images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from purenoise_jax.config.fields import OPTIONAL
from purenoise_jax.config.validation_images import VALIDATION_RULES, holds_out
from purenoise_jax.inference.unmeasured import COMPARISON
from purenoise_jax.runtime.errors import ConfigError, counted
from purenoise_jax.runtime.files import read_json, write_json
from purenoise_jax.training.metrics import standard_error

from .cells import Row, mean_and_error
from .comparison import ON_VALIDATION, Measure, paired, values
from .planning import Task, tasks_of
from .summaries import TEST, split_of

METRICS = {
    "balanced_accuracy": ON_VALIDATION,
    "accuracy": Measure("validation, accuracy", lambda summary: summary.get("val_accuracy")),
}
# What the chosen method has to lead.
REFERENCES = ("erm", "drs")
FOLDS = 5


def in_fold(config: ConfigDict, folds: int, fold: int) -> ConfigDict:
    """Returns a config whose validation images are one of several parts of the training images."""
    config = config.copy_and_resolve_references()
    for name in VALIDATION_RULES:
        config.data[name] = type(config.data[name])(0)
    config.data.folds, config.data.fold = folds, fold
    return config


def choose(rows: Sequence[Row], measure: Measure) -> Row:
    """Returns the method with the highest mean; among equals the first.

    Args:
        rows: a method each.
        measure: one of `METRICS`.

    Raises:
        ConfigError: a run is missing, or there are no validation images.
    """
    missing = sum(row.wanted - len(row.summaries) for row in rows)
    if missing:
        undone = counted(missing, "run is", "runs are")
        raise ConfigError(f"--pick: no method is chosen, because {undone} not done")
    without = [row.cell.method for row in rows if len(values(row, measure)) < row.wanted]
    if without:
        raise ConfigError(
            f"--pick: the runs of {without[0]} have no validation images; legal: --folds={FOLDS}, "
            "or --config.data.val_fraction=0.1"
        )
    return max(rows, key=lambda row: float(np.mean([*values(row, measure).values()])))


def lead_lines(winner: Row, rows: Sequence[Row], measure: Measure) -> list[str]:
    """Says how far the chosen method leads ERM and DRS, or the first method if neither is there.

    Args:
        winner: from `choose`.
        rows: all methods.
        measure: that it was chosen by.
    """
    found = mean_and_error([*values(winner, measure).values()])
    lines = [f"chosen on {measure.title}: {winner.cell.method}, {found} %"]
    others = [row for row in rows if row is not winner]
    compared = [row for row in others if row.cell.method in REFERENCES] or others[:1]
    for other in compared:
        pairs = paired(winner, other, measure)
        lead = f"ahead of {other.cell.method} by {mean_and_error(pairs)}"
        if len(pairs) < 2:
            lines.append(f"{lead}; one run has no standard error")
            continue
        error = standard_error(pairs)
        clear = float(np.mean(pairs)) > 2 * error
        lines.append(
            f"{lead}, {'more' if clear else 'not more'} than two standard errors"
            f"{'' if clear else ': the difference may be due to chance'}"
        )
    return lines


def refit_tasks(winner: Row, root: Path) -> tuple[list[Task], str]:
    """Plans the training of the chosen method on training and validation images.

    Without test images there are then none to measure with, and the run has no accuracy. Validation
    images that the data have of their own stay what they are.

    Args:
        winner: from `choose`.
        root: folder of its runs.

    Returns:
        The runs, of which the last is the result, and a sentence on the images.
    """
    config = winner.cell.config
    if config is None:
        raise ValueError("the chosen method has no config")
    held_out = holds_out(config.data)
    config = in_fold(config, 0, 0)
    if not held_out:
        note = "trained on the training images; the data have validation images of their own"
        return tasks_of(config, 0, root), note
    # Both need validation images.
    config.eval.patience, config.checkpoint.best = 0, "none"
    if any(split_of(summary) != TEST for summary in winner.summaries):
        config.eval.test = OPTIONAL
    return tasks_of(config, 0, root), "trained on the training and validation images"


def record(workdir: Path, winner: Row, measure: Measure) -> dict[str, Any]:
    """Writes into the summary of the retrained run what its method had in the comparison.

    Args:
        workdir: of the finished run.
        winner: from `choose`.
        measure: that it was chosen by.

    Returns:
        What is written, see `unmeasured.compared`.
    """
    found = [*values(winner, measure).values()]
    compared = {
        "measure": measure.title,
        "mean": float(np.mean(found)),
        "standard_error": standard_error(found) if len(found) > 1 else None,
        "runs": len(found),
    }
    file = workdir / "summary.json"
    write_json(file, {**read_json(file), COMPARISON: compared})
    return compared
