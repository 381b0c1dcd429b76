"""What a run starts from: its own newest checkpoint, another run's, or random parameters."""

import contextlib
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from purenoise_jax.checkpoint.init_transforms import aux_norm, new_memory, read_transformed
from purenoise_jax.checkpoint.manager import FOLDER, STAGING, TRASH, Checkpoints, check_same
from purenoise_jax.checkpoint.record_fields import check_fields
from purenoise_jax.config.run_record import CONFIG_FILE
from purenoise_jax.runtime import files, workdir_lock
from purenoise_jax.runtime.errors import CheckpointError
from purenoise_jax.training import metric_writer, nonfinite_steps
from purenoise_jax.training.experiment import Experiment
from purenoise_jax.training.train_step import TrainState

# Says which job has started from scratch, so that it does that once.
FRESH_FILE = "fresh.json"
# What a run leaves beside its checkpoints and says of how it went.
RESULTS = (
    metric_writer.METRICS,
    nonfinite_steps.FILE,
    "summary.json",
    "report.html",
    "tensorboard",
)
# All names in a workdir that a run reads or writes, but for the lock.
FOLDERS = ("tensorboard", FOLDER)
FILES = (CONFIG_FILE, FRESH_FILE, *(name for name in RESULTS if name not in FOLDERS))


@dataclasses.dataclass(frozen=True)
class RestorePoint:
    """What a run goes on from.

    Attributes:
        state: on every device; None = random parameters are still to be drawn.
        epoch_ended: False if what comes at the end of an epoch, such as its evaluation, is still to
            be done for the epoch that the state is within or at the end of.
        totals: `EpochMetrics` of that epoch up to here, as JSON values by name.
        environment: versions and devices that the run went on with before; None = it begins.
        seconds: spent on the run before.
        measured_steps: of `StepTimer`, with the seconds they took.
        measured_seconds: likewise.
        skipped_steps: see `skipped.SkippedSteps`, over the run before.
        skipped_in_a_row: likewise, those directly before.
        init_from: the run and epoch that the state was taken over from, at whatever time that was;
            None if it began with random parameters.
    """

    state: TrainState | None = None
    epoch_ended: bool = True
    totals: dict[str, Any] | None = None
    environment: dict[str, Any] | None = None
    seconds: float = 0.0
    measured_steps: int = 0
    measured_seconds: float = 0.0
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    init_from: dict[str, Any] | None = None


def find_restore_point(
    experiment: Experiment,
    checkpoints: Checkpoints,
    *,
    init_from: str,
    init_epoch: int,
    init_aux_bn: str,
    fresh: bool = False,
    force_fresh: bool = False,
) -> Callable[[], RestorePoint]:
    """Finds what to start from; changes nothing on disk.

    In this order: the newest checkpoint of this run that is as it was written; the checkpoint of
    `init_from` after `init_epoch` epochs, momentum included; random parameters.

    Args:
        experiment: what is run.
        checkpoints: of this run.
        init_from: workdir of another run, or "".
        init_epoch: its completed epochs.
        init_aux_bn: see `init_transforms.with_aux`; for a checkpoint without auxiliary layers.
        fresh: a start from scratch is wanted where there is nothing to continue from.
        force_fresh: start from scratch even where there is.

    Returns:
        What reads it, apart as processes do that together: all must have found something first.

    Raises:
        CheckpointError: a checkpoint is missing, unreadable or of another run, or the run has begun
            from something other than `init_from`.
    """
    identity, steps_per_epoch = experiment.identity, experiment.steps_per_epoch
    origin = {"workdir": str(Path(init_from).resolve()), "epoch": init_epoch} if init_from else None
    own = None if force_fresh else checkpoints.newest(set_aside=fresh)
    if own is not None:
        record = checkpoints.record(own)
        here = {**identity, "steps_per_epoch": steps_per_epoch}
        where = str(checkpoints.folder / str(own))
        check_fields(record, where)
        check_same(record, here, where)
        began = record["init_from"] or "random parameters"
        if origin and not _holds(record["init_from"], origin):
            raise CheckpointError(
                f"init_from={init_from} (epoch {init_epoch}), but this run began from {began}; "
                "choose another workdir, or leave init_from out"
            )
        told = {
            f.name: record[f.name] for f in dataclasses.fields(RestorePoint) if f.name != "state"
        }
        return lambda: RestorePoint(state=checkpoints.restore(own, experiment.target()), **told)
    if not init_from:
        return RestorePoint
    source = Checkpoints(init_from)
    records, damaged = {}, []
    for step in source.steps():
        try:
            records[step] = source.record(step)
        except CheckpointError as error:
            damaged.append(str(error))
    found = [step for step, record in records.items() if record["epoch"] == init_epoch]
    if not found:
        epochs = ", ".join(f"{record['epoch']:g}" for record in records.values())
        raise CheckpointError(
            f"init_from={init_from}: no checkpoint after epoch {init_epoch} (init_epoch); "
            f"there are {epochs or 'none'}{''.join(f'; {why}' for why in damaged[:3])}"
        )
    check_same(records[found[0]], identity, f"init_from={init_from}")
    step, target = found[0], experiment.target()
    transforms = [aux_norm(init_aux_bn), new_memory(experiment.memory)]
    if origin and transforms[0].applies(records[step]["leaves"], target):
        origin["aux_bn"] = init_aux_bn

    def read() -> RestorePoint:
        state = read_transformed(source, step, target, experiment.init, transforms)
        source.close()
        # Counted in this run's steps: the other may have had another batch size.
        begun = np.asarray(init_epoch * steps_per_epoch, np.int32)
        state = state.replace(step=jax.device_put(begun, experiment.placement.replicated))
        return RestorePoint(state, init_from=origin)

    return read


def remove_if_unused(workdir: Path) -> None:
    """Removes a workdir in which nothing began, so that a refused run leaves nothing behind."""
    if not (workdir / CONFIG_FILE).exists() and not Checkpoints(workdir).steps():
        folder = workdir / FOLDER
        with contextlib.suppress(OSError):
            (workdir / workdir_lock.NAME).unlink()
        for path in (folder / STAGING, folder / TRASH, folder, workdir):
            # Only what is empty goes.
            with contextlib.suppress(OSError):
                path.rmdir()


def to_set_aside(checkpoints: Checkpoints, fresh: bool) -> list[int]:
    """The steps that the run does not go on from: damaged ones, or all that are there.

    Args:
        checkpoints: of the run, after `find_restore_point`.
        fresh: it starts from scratch.
    """
    return checkpoints.steps() if fresh else [*checkpoints.passed_over]


def set_aside(checkpoints: Checkpoints, workdir: Path, fresh: bool) -> None:
    """Moves those of `to_set_aside` to quarantine/, and with a start from scratch all results.

    Args:
        checkpoints: of the run, after `find_restore_point`.
        workdir: of the run.
        fresh: it starts from scratch.

    Raises:
        StorageError: the file system refuses.
    """
    paths = [checkpoints.folder / str(step) for step in to_set_aside(checkpoints, fresh)]
    if fresh:
        paths += [workdir / name for name in RESULTS if (workdir / name).exists()]
    checkpoints.quarantine(*paths)
    if fresh and job():
        files.write_json(workdir / FRESH_FILE, {"job": job()})


def resume_hint(fresh: bool, workdir: Path, where: str = "") -> str:
    """Says how to continue a run that ended early, in words, given what is saved of it now.

    Args:
        fresh: its config asks for a start from scratch.
        workdir: of the run.
        where: it continues, in words, such as " at the last checkpoint".
    """
    if not fresh or job():
        return f"the same command continues{where}"
    if Checkpoints(workdir).steps():
        return f"without --config.fresh=True the same command continues{where}"
    # Without it there is nothing to continue either: the earlier checkpoints are set aside.
    return "the same command starts again"


def job() -> str:
    """The job that this process belongs to, the same when SLURM starts it again; "" for none."""
    return os.environ.get("SLURM_JOB_ID", "")


def began_fresh(workdir: Path) -> bool:
    """Whether this job has started from scratch in a workdir before, and is to go on."""
    try:
        return bool(job()) and files.read_json(workdir / FRESH_FILE)["job"] == job()
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False


def _holds(there: dict[str, Any] | None, wanted: dict[str, Any]) -> bool:
    return there is not None and all(there.get(name) == value for name, value in wanted.items())
