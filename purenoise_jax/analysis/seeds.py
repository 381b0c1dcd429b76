"""Groups runs that differ in the seed alone, with mean and standard error of their numbers."""

from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from purenoise_jax.analysis.latest_evaluation import Evaluation
from purenoise_jax.analysis.run_tables import NONE, Row
from purenoise_jax.config.identity import config_hash
from purenoise_jax.inference.runs import Run
from purenoise_jax.training.metrics import standard_error

Number = Callable[[Evaluation], float | None]


def _named(name: str) -> Number:
    return lambda evaluation: evaluation.number(name)


def _rarest(evaluation: Evaluation) -> float | None:
    groups = evaluation.number("group_accuracy")
    return groups[0] if groups else None


# In the order of `run_tables.headline`, each with its format.
NUMBERS: tuple[tuple[Number, str], ...] = (
    (_named("accuracy"), "%"),
    (_named("balanced_accuracy"), "%"),
    (_rarest, "%"),
    (_named("geometric_mean"), "%"),
    (_named("nll"), ""),
    (_named("ece"), "%"),
    (lambda evaluation: evaluation.mean_average_precision, "%"),
)


def hash_without_seed(run: Run) -> str:
    """Returns a hash that is the same for runs whose configs differ in the seed alone."""
    config = ConfigDict(run.config.to_dict())
    config.seed = 0
    return config_hash(config)


def seed_groups(runs: Sequence[Run]) -> list[tuple[str, list[int]]]:
    """Groups runs that differ in the seed alone and have the same images.

    Args:
        runs: at least one.

    Returns:
        A name and the places in `runs` of each group, in the order of the runs.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for i, run in enumerate(runs):
        # Read from the summary, so that no checkpoint is opened for a run that is left out.
        images = (run.summary or {}).get("dataset_content")
        groups.setdefault((hash_without_seed(run), images), []).append(i)
    return [(_name([runs[i] for i in members]), members) for members in groups.values()]


def group_rows(
    runs: Sequence[Run], evaluations: Sequence[Evaluation | None]
) -> list[tuple[str, list[Row]]]:
    """Returns a row of means and standard errors for each config, in the order of the runs.

    Runs that are not finished are left out. A single run has no error.

    Args:
        runs: at least one.
        evaluations: of each run.

    Returns:
        The name of each group and its numbers, as `run_tables.headline` has them; empty if no
        config has two finished runs with different seeds on the same images.
    """
    rows, several = [], False
    for shared, members in seed_groups(runs):
        finished = {
            i: evaluation
            for i in members
            if (evaluation := evaluations[i]) is not None and evaluation.finished
        }
        several |= len({runs[i].config.seed for i in finished}) > 1
        name = f"{shared}, {_counted(len(finished), len(members))}"
        found = list(finished.values())
        rows.append((name, [_row(found, number, unit) for number, unit in NUMBERS]))
    return rows if several else []


def _counted(finished: int, members: int) -> str:
    runs = "run" if members == 1 else "runs"
    return f"{finished} of {members} {runs}" if finished < members else f"{members} {runs}"


def _name(runs: Sequence[Run]) -> str:
    """The part of the path that runs share: what is common to their labels, or their folder."""
    if len(runs) == 1:
        return runs[0].label
    shared = []
    for parts in zip(*(PurePath(run.label).parts for run in runs), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    if shared:
        return "/".join(shared)
    folders = {run.path.resolve().parent.name for run in runs}
    if len(folders) == 1 and all("/" not in run.label for run in runs):
        (folder,) = folders
        return f"{folder}: {runs[0].label} to {runs[-1].label}"
    return f"{runs[0].label} to {runs[-1].label}"


def _row(evaluations: Sequence[Evaluation], number: Number, unit: str) -> Row:
    values = [value for value in map(number, evaluations) if value is not None]
    if not values:
        return Row("", NONE, "not recorded")
    scale, digits = (100, 1) if unit else (1, 3)
    text = f"{scale * float(np.mean(values)):.{digits}f}"
    if len(values) > 1:
        error = scale * standard_error(values)
        text += f" ± {error:.{digits}f}"
    return Row("", f"{text} {unit}".rstrip())
