"""Runs one task of a table in this process, and records why it failed."""

import contextlib
import gc
import os
import signal
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax

from purenoise_jax.main import write_report
from purenoise_jax.runtime import compilation_cache
from purenoise_jax.runtime.console import Display, SafeConsole
from purenoise_jax.runtime.errors import (
    CheckpointError,
    ConfigError,
    InUseError,
    exit_code,
    one_line,
)
from purenoise_jax.runtime.files import read_json, write_json
from purenoise_jax.runtime.workdir_lock import in_use
from purenoise_jax.training.loop import train_and_evaluate

from ..local import SIGNALS, WITH_PARENT, end_with_parent
from ..planning import Task

# In the workdir of a run that has failed, until it is finished after all.
FAILURE = "failed.json"


def train(task: Task, quick: bool) -> dict[str, Any]:
    """Trains a task to its end.

    Args:
        task: not finished.
        quick: show no progress.

    Returns:
        Its summary.

    Raises:
        Exception: the run failed; the reason is in FAILURE, too.
    """
    display = Display(active=not quick)
    at_end = partial(write_report, task.workdir, display, False) if task.config.report else None
    try:
        train_and_evaluate(task.config, task.workdir, display, at_end)
    except InUseError:
        # The folder belongs to the process that trains there.
        raise
    except Exception as error:
        record = {"error": one_line(error), "exit_code": exit_code(error), "time": time.time()}
        # The disk may be what failed.
        with contextlib.suppress(OSError):
            task.workdir.mkdir(parents=True, exist_ok=True)
            write_json(task.workdir / FAILURE, record)
        raise
    else:
        with contextlib.suppress(OSError):
            (task.workdir / FAILURE).unlink(missing_ok=True)
    finally:
        # Frees compiled programs and their constants, which the next run does not use.
        jax.clear_caches()
        gc.collect()
    return task.summary or {}


def train_one(workdir: str, tasks: Sequence[Task], quick: bool, console: SafeConsole) -> int:
    """Trains one run of a table, unless it is finished or trains elsewhere.

    Args:
        workdir: of the run.
        tasks: of the table.
        quick: show no progress.
        console: where it is said that there is nothing to do.

    Returns:
        The exit code.

    Raises:
        ConfigError: the table has no such run.
        CheckpointError: the run that it starts from is not done.
    """
    if os.environ.get(WITH_PARENT):
        # Signals were blocked when this process was started.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        end_with_parent()
    found = [task for task in tasks if task.workdir == Path(workdir)]
    if not found:
        raise ConfigError(f"--run {workdir}: no run of this table; --dry-run lists them")
    (task,) = found
    if task.summary:
        console.print(f"{workdir}: already done")
        return 0
    if in_use(task.workdir):
        console.print(f"{workdir}: is running already")
        return 0
    missing = [w for w in task.starts_from if not (w / "summary.json").is_file()]
    if missing:
        raise CheckpointError(f"{workdir}: the run that it starts from, {missing[0]}, is not done")
    compilation_cache.enable()
    train(task, quick)
    return 0


def failure(workdir: Path) -> dict[str, Any] | None:
    """The record of the error that ended a run; None if none did."""
    try:
        record = read_json(workdir / FAILURE)
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and "error" in record else None
