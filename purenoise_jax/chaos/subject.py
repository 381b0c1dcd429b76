"""The process that is tormented: a training run as the command line has it, but told what to do.

It ends as `purenoise_jax.main` does, and says in a file what it is at.
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
from purenoise_jax.chaos.scenarios import case_named, config_of
from purenoise_jax.runtime.console import Display
from purenoise_jax.runtime.exit_codes import run_command
from purenoise_jax.training.loop import train_and_evaluate


class Teller(Display):
    """Writes what the run is at to a file, at once, and shows nothing.

    Args:
        path: of the file, which is appended to.
    """

    def __init__(self, path: str) -> None:
        super().__init__(active=False)
        # Held open: the inject may take away the right to open it.
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def tell(self, kind: str, value: Any = None) -> None:
        """One line: the time on the monotonic clock, what it is about, and a value."""
        os.write(self._file, (json.dumps([time.monotonic(), kind, value]) + "\n").encode())

    def doing(self, what: str) -> None:
        """What the run is at."""
        self.tell("doing", what)

    def start_progress(self, total: int, done: int) -> None:
        """From which step on it trains."""
        self.tell("start", done)

    def advance(self, done: int, images_per_second: float | None) -> None:
        """That a step was computed."""
        self.tell("step", done)

    def note(self, text: str, style: str = "") -> None:
        """What the user would be told."""
        self.tell("note", text)


def _train(order: RunSpec, teller: Teller) -> int:
    train_and_evaluate(
        config_of(case_named(order.case), **_tuples(order.overrides)), order.workdir, teller
    )
    return 0


def _damage(order: RunSpec, teller: Teller) -> int:
    corruption_worker.work(order, lambda done: teller.tell("done", done))
    return 0


TASKS: dict[str, Callable[[RunSpec, Teller], int]] = {"train": _train, "damage": _damage}


def become(order: RunSpec) -> int:
    """Does what is ordered, in a process of its own, and returns its exit code."""
    log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number in (1, 2):
        os.dup2(log, number)
    teller = Teller(order.events)
    jax.config.update("jax_compilation_cache_dir", order.cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    logging.getLogger("absl").setLevel(logging.ERROR)
    if order.unprivileged:
        give_up()
    while (left := order.begin_at - time.monotonic()) > 0:
        # To the end of it without sleeping, or those that begin at once would not.
        time.sleep(max(0.0, left - 0.01))
    code = run_command(
        lambda: TASKS[order.task](order, teller), debug=True, interrupted="interrupted"
    )
    sys.stdout.flush()
    teller.tell("ends", code)
    return code


def _tuples(overrides: dict[str, Any]) -> dict[str, Any]:
    """JSON has lists only, the config tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in overrides.items()}
