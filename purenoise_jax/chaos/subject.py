"""The subject process: a training run into which faults are injected, as in the command line.

It ends as `purenoise_jax.main` does and writes its events to a file.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import jax

from purenoise_jax.chaos import corruption_worker
from purenoise_jax.chaos.privileges import give_up
from purenoise_jax.chaos.run_spec import RunSpec
from purenoise_jax.chaos.scenarios import config_of, scenario_named
from purenoise_jax.runtime.console import Display
from purenoise_jax.runtime.exit_codes import run_command
from purenoise_jax.training.loop import train_and_evaluate


class EventLog(Display):
    """Appends the events of a run to a file at once, and shows nothing.

    Args:
        path: path of the file.
    """

    def __init__(self, path: str) -> None:
        super().__init__(active=False)
        # Held open, because a fault may remove the permission to open it.
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, kind: str, value: Any = None) -> None:
        """Writes an event: the time on the monotonic clock, a kind and a value."""
        os.write(self._file, (json.dumps([time.monotonic(), kind, value]) + "\n").encode())

    def doing(self, what: str) -> None:
        """Records the phase of the run."""
        self.write("doing", what)

    def start_progress(self, total: int, done: int) -> None:
        """Records the step from which on it trains."""
        self.write("start", done)

    def advance(self, done: int, images_per_second: float | None) -> None:
        """Records that a step was computed."""
        self.write("step", done)

    def note(self, text: str, style: str = "") -> None:
        """Records a message to the user."""
        self.write("note", text)


def _train(spec: RunSpec, events: EventLog) -> int:
    train_and_evaluate(
        config_of(scenario_named(spec.scenario), **_tuples(spec.overrides)), spec.workdir, events
    )
    return 0


def _damage(spec: RunSpec, events: EventLog) -> int:
    corruption_worker.work(spec, lambda done: events.write("done", done))
    return 0


TASKS: dict[str, Callable[[RunSpec, EventLog], int]] = {"train": _train, "damage": _damage}


def become(spec: RunSpec) -> int:
    """Runs the task of a specification in this process and returns its exit code."""
    log = os.open(spec.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number in (1, 2):
        os.dup2(log, number)
    events = EventLog(spec.events)
    jax.config.update("jax_compilation_cache_dir", spec.cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    logging.getLogger("absl").setLevel(logging.ERROR)
    if spec.unprivileged:
        give_up()
    while (left := spec.begin_at - time.monotonic()) > 0:
        # The last 10 ms without sleeping, so that several processes begin at the same time.
        time.sleep(max(0.0, left - 0.01))
    code = run_command(
        lambda: TASKS[spec.task](spec, events), debug=True, interrupted="interrupted"
    )
    sys.stdout.flush()
    events.write("ends", code)
    return code


def _tuples(overrides: dict[str, Any]) -> dict[str, Any]:
    """Turns lists into tuples, because JSON has only lists and the config only tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in overrides.items()}
