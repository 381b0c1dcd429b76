"""The training loop.

It names no method, data set, model or normalisation layer: those come with the `Experiment`. Module
`train_step` has the computation of one step; `run` has what surrounds the loop, from compilation to
checkpoints.
"""

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ml_collections import ConfigDict

from purenoise_jax.runtime.console import Display
from purenoise_jax.runtime.paths import workdir_path
from purenoise_jax.runtime.preemption import PreemptionHandler
from purenoise_jax.training.build import wants_fresh_start
from purenoise_jax.training.experiment import Experiment
from purenoise_jax.training.resume import resume_hint
from purenoise_jax.training.run import TrainingRun
from purenoise_jax.training.setup import set_up
from purenoise_jax.training.train_step import TrainState


def train_and_evaluate(
    config: ConfigDict,
    workdir: str | Path,
    display: Display | None = None,
    at_end: Callable[[Experiment], None] | None = None,
) -> TrainState:
    """Trains, or continues a run, and leaves metrics, checkpoints and summary.json in `workdir`.

    On SIGTERM, SIGUSR1 or SIGINT it saves after the step that is running, and stops; called from a
    thread other than the main one, it does not listen.

    Args:
        config: see `purenoise_jax.config.fields`.
        workdir: of this run alone; created if it does not exist.
        display: where progress is shown; None = nowhere.
        at_end: called by the first process, with what was run, once all files are written.

    Returns:
        The state after the last step.

    Raises:
        ConfigError: a field or the workdir's path is not legal.
        DataError: the data set is missing, damaged or mislabelled.
        CheckpointError: no checkpoint can be used although there are some, or the workdir or the
            checkpoint is of another run.
        StorageError: the workdir cannot be written to, or lacks the room.
        NonFiniteError: several steps in a row had a NaN or an infinity and were skipped.
        InUseError: another run is at work in the workdir.
        Stopped: a signal came; what was computed is saved.
    """
    display, workdir = display or Display(active=False), workdir_path(workdir)
    hint = partial(resume_hint, wants_fresh_start(config), workdir)
    with PreemptionHandler(hint) as stop, contextlib.ExitStack() as cleanup:
        display.doing("reading the data")
        setup = set_up(config, workdir, cleanup, stop)
        run = TrainingRun(setup, workdir, display, stop, cleanup)
        train(run)
        run.finish(at_end)
        return run.state


def train(run: TrainingRun) -> None:
    """Trains the epochs that are left.

    The rows of step t are a pure function of (seed, t), and so are all random draws within a step:
    a run that continues computes what it would have computed without a break.
    """
    for epoch in run.epochs_left():
        phase = run.experiment.phase_of(epoch)
        steps = run.compiled_steps(phase)
        epoch_rows = run.begin_epoch(epoch, phase)
        first, count = run.next_steps(epoch)
        while count:
            before = run.metrics
            run.state, run.metrics = steps(run.state, before, run.inputs, epoch_rows, first, count)
            run.advance(count, before)
            first, count = run.next_steps(epoch)
        run.end_epoch(epoch, phase)
