"""Runs one task of a table in this process, and records why it failed."""

import contextlib
import gc
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax

from launch.planning import Task
from purenoise_jax.main import write_report
from purenoise_jax.runtime.console import Display
from purenoise_jax.runtime.errors import InUseError, exit_code, one_line
from purenoise_jax.runtime.files import read_json, write_json
from purenoise_jax.training.loop import train_and_evaluate

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


def failure(workdir: Path) -> dict[str, Any] | None:
    """The record of the error that ended a run; None if none did."""
    try:
        record = read_json(workdir / FAILURE)
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and "error" in record else None
