"""Set-up of a run: all checks and all building before the first step.

A run that cannot finish is refused here, before it computes anything.
"""

import contextlib
import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from purenoise_jax.checkpoint.digest import state_digest
from purenoise_jax.checkpoint.manager import QUARANTINE, Checkpoints
from purenoise_jax.config import run_record
from purenoise_jax.config.fields import NONE, flatten
from purenoise_jax.config.resolve import kept_lines, resolved
from purenoise_jax.config.validation import validate
from purenoise_jax.runtime import disk_space, files, multihost
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.runtime.numerics import numeric_settings
from purenoise_jax.runtime.paths import workdir_path
from purenoise_jax.runtime.preemption import PreemptionHandler
from purenoise_jax.runtime.threads import cores
from purenoise_jax.runtime.workdir_lock import WorkdirLock
from purenoise_jax.training import provenance, resume
from purenoise_jax.training.build import build, init_workdir, run_options
from purenoise_jax.training.experiment import Experiment
from purenoise_jax.training.metric_writer import METRICS, read_metrics
from purenoise_jax.training.options import RunOptions
from purenoise_jax.training.resume import RestorePoint

# Paths, which may differ from machine to machine; the files found there are compared instead. So
# may the number of threads.
_LOCAL_FIELDS = (
    *("data.path", "data.train_list", "data.val_list", "data.test_list", "data.indices"),
    *("data.workers", "init_from", "model.pretrained"),
)


@dataclasses.dataclass(frozen=True)
class RunSetup:
    """A run that has passed all checks.

    Attributes:
        options: of the run.
        config_record: content of config.json.
        experiment: what is run.
        checkpoints: of the run, whose lock this process holds.
        start: the point from which it continues.
        versions: of the libraries and the device.
        fresh: it starts from scratch, although there may have been checkpoints.
        lost: it has written metrics before, but has no checkpoint.
        without_metrics: epochs of this run, counted from 1, that are trained but have no line in
            metrics.jsonl, for example because somebody deleted it.
        kept: from `kept_lines`.
        started: time on the monotonic clock when the set-up began, in seconds.
    """

    options: RunOptions
    config_record: dict[str, Any]
    experiment: Experiment
    checkpoints: Checkpoints
    start: RestorePoint
    versions: dict[str, str]
    fresh: bool
    lost: bool = False
    without_metrics: tuple[int, ...] = ()
    kept: tuple[str, ...] = ()
    started: float = 0.0

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return self.experiment.steps_per_epoch

    @property
    def step(self) -> int:
        """Completed steps."""
        return 0 if self.start.state is None else int(self.start.state.step)

    @property
    def only_evaluates(self) -> bool:
        """True if the run takes over all epochs of another one, and trains none."""
        origin = self.start.init_from
        return origin is not None and origin["epoch"] == self.options.num_epochs

    @property
    def environment(self) -> dict[str, Any]:
        """Versions and settings on which the last bit of a result depends."""
        found = {
            **self.versions,
            **numeric_settings(),
            "devices": self.experiment.placement.mesh.size,
        }
        if jax.default_backend() == "cpu":
            # Sums are divided over the cores.
            found["cores"] = cores()
        return found

    def messages(self) -> list[str]:
        """Lines that tell the user where the run continues from, and what has changed since."""
        folder = self.checkpoints.folder
        lines = [
            f"passed over the checkpoint of step {step}: {why}; moved to {QUARANTINE}/"
            for step, why in self.checkpoints.passed_over.items()
        ]
        if self.fresh and (folder / QUARANTINE).exists():
            lines.append(f"starts from scratch; what was there is in {folder / QUARANTINE}")
        if self.lost:
            lines.append(
                f"starts from scratch: there is no checkpoint in {folder}, although the run had "
                "written metrics"
            )
        lines += self.kept
        if self.only_evaluates and self.start.init_from is not None:
            lines.append(
                f"trains nothing, and evaluates the network of {self.start.init_from['workdir']} "
                f"after epoch {self.options.num_epochs}"
            )
        elif self.step:
            epoch = self.step / self.experiment.steps_per_epoch
            lines.append(f"continues at step {self.step:,}, after epoch {epoch:g}")
        if self.without_metrics:
            gaps = ", ".join(map(str, self.without_metrics[:5]))
            more = ", ..." if len(self.without_metrics) > 5 else ""
            lines.append(
                f"{METRICS} has no line for {len(self.without_metrics)} of the epochs before "
                f"({gaps}{more}); figures will leave them out"
            )
        there, here = self.start.environment or self.environment, self.environment
        changed = [
            f"{name} {there[name]} before, {here[name]} now"
            for name in here
            if name in there and there[name] != here[name]
        ]
        if changed:
            lines.append(
                f"changed since: {'; '.join(changed)}; the run will not be the same to the last bit"
            )
        return lines


def set_up(
    config: ConfigDict, workdir: Path, cleanup: contextlib.ExitStack, stop: PreemptionHandler
) -> RunSetup:
    """Reads the data, locks the workdir and finds the point to start from, before compiling.

    All processes of a run do this together, and all refuse if one does.

    Args:
        config: see `purenoise_jax.config.fields`.
        workdir: of the run.
        cleanup: keeps the workdir locked until it is closed.
        stop: sees signals while data and checkpoints are read.

    Raises:
        ConfigError: a field or the workdir's path is not legal, or processes disagree.
        DataError: the data set is missing, damaged or mislabelled.
        CheckpointError: no checkpoint can be used although there are some, or the workdir or the
            checkpoint is of another run.
        StorageError: the workdir cannot be written to, lacks the room, or holds links and pipes
            where its own files are.
        InUseError: another run is at work in the workdir.
        PeerError: another process could not go on.
        Stopped: a signal came.
    """
    started, first = time.monotonic(), jax.process_index() == 0
    validate(config)
    if jax.config.values["jax_disable_jit"]:
        raise ConfigError("JAX_DISABLE_JIT is set, but training steps are compiled; unset it")
    workdir_path(workdir)
    init_from = init_workdir(config)
    files.refuse_odd(workdir, resume.FILES, resume.FOLDERS)
    recorded = run_record.recorded_fields(config, workdir)
    kept, config = kept_lines(config, recorded), resolved(config, recorded)
    options = run_options(config)
    run_record.refuse_other_run(config, workdir)
    experiment = multihost.run_on_all(lambda: stop.waiting(lambda: build(config)))
    steps_per_epoch, versions = experiment.steps_per_epoch, provenance.versions()
    multihost.assert_equal(
        {
            "config": {k: v for k, v in flatten(config).items() if not is_local(k)},
            "data": experiment.identity,
            # With data.feed=auto, machines of different memory could differ.
            "streams": experiment.streams,
            "versions": versions,
            "settings": numeric_settings(),
        }
    )
    checkpoints = Checkpoints(
        workdir,
        keep=options.checkpoint_keep,
        keep_steps=[epoch * steps_per_epoch for epoch in run_record.kept_epochs(config, workdir)],
        keeps_best=options.checkpoint_best != NONE and experiment.dataset.val_images is not None,
    )

    def take_workdir() -> None:
        if first:
            made = not workdir.exists()
            disk_space.check_writable(workdir)
            cleanup.enter_context(WorkdirLock(workdir))
            if made:
                cleanup.callback(resume.remove_if_unused, workdir)
            # Once more: the process that held the lock may have begun another run in the meantime.
            run_record.refuse_other_run(config, workdir)
            files.remove_leftovers(workdir, resume.FILES)
            checkpoints.prepare()

    multihost.run_on_all(take_workdir)
    multihost.assert_same_folder(workdir)
    # Before all read together: a process that reads another step would keep the others waiting.
    multihost.assert_equal({"checkpoints": checkpoints.steps()})
    # A job that is started again continues the run that it began from scratch.
    fresh = options.fresh and not resume.began_fresh(workdir)
    find_restore_point = partial(
        resume.find_restore_point,
        experiment,
        checkpoints,
        init_from="" if init_from is None else str(init_from),
        init_epoch=options.init_epoch,
        init_aux_bn=options.init_aux_bn,
        fresh=options.fresh,
        force_fresh=fresh,
    )
    read_start = multihost.run_on_all(lambda: stop.waiting(find_restore_point))
    start = multihost.run_on_all(lambda: stop.waiting(read_start))
    lost = start.state is None and not fresh and _has_metrics(workdir)
    gaps = _without_metrics(workdir, start, steps_per_epoch)
    setup = RunSetup(
        options,
        run_record.saved_config(config, run_record.kept_epochs(config, workdir)),
        experiment,
        checkpoints,
        start,
        versions,
        fresh,
        lost,
        gaps,
        kept,
        started,
    )
    step, total_steps = setup.step, options.num_epochs * steps_per_epoch
    if step > total_steps:
        raise ConfigError(
            f"num_epochs={options.num_epochs} ends at step {total_steps}, but {workdir} is already "
            f"at step {step}; legal: at least {-(-step // steps_per_epoch)}"
        )
    several = jax.process_count() > 1 and start.state is not None
    # Each process has read by itself, by a path that may differ between machines.
    multihost.assert_equal({"step": step, "state": state_digest(start.state) if several else None})

    def make_room() -> None:
        if first:
            aside = resume.to_set_aside(checkpoints, fresh)
            count = checkpoints.still_to_come(step, total_steps, without=aside)
            if setup.only_evaluates and step not in {*checkpoints.steps()} - {*aside}:
                count = 1
            # Before anything is moved: a run that is refused can continue later.
            disk_space.check_space(workdir, experiment.state_bytes(), count)
            resume.set_aside(checkpoints, workdir, fresh)

    multihost.run_on_all(make_room)
    return setup


def is_local(path: str) -> bool:
    """Returns True for a field that may differ between the processes of a run, such as a path."""
    return path in _LOCAL_FIELDS or path.startswith("frozen.")


def _has_metrics(workdir: Path) -> bool:
    return bool(_epochs_with_metrics(workdir))


def _without_metrics(workdir: Path, start: RestorePoint, steps_per_epoch: int) -> tuple[int, ...]:
    """The epochs that this run has ended, counted from 1, and that metrics.jsonl does not have."""
    if start.state is None:
        return ()
    # Epochs before those of `init_from` are in that run's file.
    first = 0 if start.init_from is None else start.init_from["epoch"]
    ended = (int(start.state.step) - (not start.epoch_ended)) // steps_per_epoch
    there = _epochs_with_metrics(workdir)
    # None if the file cannot be read; the writer will warn.
    return () if there is None else tuple(e for e in range(first + 1, ended + 1) if e not in there)


def _epochs_with_metrics(workdir: Path) -> set[Any] | None:
    try:
        return {record.get("epoch") for record in read_metrics(workdir / METRICS)}
    except OSError:
        return None
