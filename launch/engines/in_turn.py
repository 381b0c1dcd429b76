"""Runs the tasks of a table one after another in this process."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from purenoise_jax.runtime.console import SafeConsole, duration, percent
from purenoise_jax.runtime.errors import CheckpointError, ConfigError, NonFiniteError

from ..planning import Task
from ..summaries import accuracy
from .one_run import train

MEANS_NOTHING = "quick: this number means nothing"


def run(tasks: Sequence[Task], console: SafeConsole, quick: bool) -> list[Path]:
    """Runs the tasks that are not finished.

    Returns:
        The workdirs of failed runs, and of those that start from them: a loss or gradient was not
        finite, the checkpoint to continue from cannot be used, or a method is refused for the data.
    """
    broken: list[Path] = []
    note = f"  ({MEANS_NOTHING})" if quick else ""
    for number, task in enumerate(tasks, start=1):
        name = f"[{number}/{len(tasks)}] {task.name}"
        if task.summary:
            console.print(f"{name}: already done, {_result(task.summary)}{note}")
            continue
        if any(earlier in broken for earlier in task.starts_from):
            broken.append(task.workdir)
            console.print(f"{name}: skipped, because the run that it starts from failed")
            continue
        console.print(name)
        try:
            summary = train(task, quick)
        except (NonFiniteError, CheckpointError, ConfigError) as error:
            broken.append(task.workdir)
            console.print(f"{name}: failed: {error}")
            continue
        took = duration(summary["seconds"])
        console.print(f"{name}: {_result(summary)}, {took}{note}")
    return broken


def _result(summary: Mapping[str, Any]) -> str:
    share = accuracy(summary)
    return "trained on all images" if share is None else f"{percent(share)} %"
