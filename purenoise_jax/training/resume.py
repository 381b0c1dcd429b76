"""Start of a run: from its newest checkpoint, another run's checkpoint, or random parameters."""

import contextlib
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from purenoise_jax.checkpoint.identity import check_same
from purenoise_jax.checkpoint.init_transforms import (
    aux_norm,
    class_scale,
    new_memory,
    new_projector,
    read_transformed,
)
from purenoise_jax.checkpoint.manager import FOLDER, STAGING, TRASH, Checkpoints
from purenoise_jax.checkpoint.record_fields import ABSENT, check_fields
from purenoise_jax.checkpoint.run_weights import read_run_weights
from purenoise_jax.config.run_record import CONFIG_FILE
from purenoise_jax.runtime import files, workdir_lock
from purenoise_jax.runtime.errors import CheckpointError
from purenoise_jax.training import (
    bad_images,
    confusion,
    metric_writer,
    nonfinite_steps,
    probabilities,
)
from purenoise_jax.training.experiment import Experiment
from purenoise_jax.training.train_step import TrainState

# Names the job that has started from scratch, so that it does so only once.
FRESH_FILE = "fresh.json"
# Result files, which a start from scratch sets aside.
RESULTS = (
    metric_writer.METRICS,
    nonfinite_steps.FILE,
    *confusion.FILES.values(),
    *probabilities.FILES.values(),
    bad_images.FILE,
    "summary.json",
    "report.html",
    # Of the checkpoints before, although those of the new run may be of the same steps.
    "calibration.json",
    "tensorboard",
)
# All names in a workdir that a run reads or writes, except the lock.
FOLDERS = ("tensorboard", FOLDER)
FILES = (CONFIG_FILE, FRESH_FILE, *(name for name in RESULTS if name not in FOLDERS))


@dataclasses.dataclass(frozen=True)
class RestorePoint:
    """The point from which a run continues or begins.

    Attributes:
        state: on every device; None = random parameters are still to be drawn.
        epoch_ended: False if what comes at the end of an epoch, such as its evaluation, is still to
            be done for the epoch of the state.
        totals: `EpochMetrics` of that epoch up to here, as JSON values by name.
        environment: versions and devices of the run before; None = it begins.
        seconds: spent on the run by earlier processes.
        measured_steps: steps whose time was measured, see `StepTimer`.
        measured_seconds: seconds that these took.
        skipped_steps: steps skipped so far, see `NonFiniteSteps`.
        skipped_in_a_row: those of them directly before this point.
        init_from: the run and epoch whose checkpoint this run began with; None if it began with
            random parameters.
        best: the best evaluation so far, see `Best.to_json`; None = there was none.
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
    best: dict[str, Any] | None = None


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
    """Finds the point to start from; changes nothing on disk.

    It is the newest undamaged checkpoint of this run, otherwise the checkpoint of `init_from` after
    `init_epoch` epochs, momentum included, otherwise random parameters. With an `init_epoch` of 0
    only the network of the newest checkpoint of `init_from` is taken over.

    Args:
        experiment: what is run.
        checkpoints: of this run.
        init_from: workdir of another run, or "".
        init_epoch: its completed epochs; 0 = its network alone, at epoch 0 of this run.
        init_aux_bn: for a checkpoint without auxiliary layers, see `init_transforms.aux_norm`.
        fresh: a start from scratch is wanted where there is nothing to continue from.
        force_fresh: start from scratch even where there is.

    Returns:
        A function that restores it. It is separate, because all processes must agree on a point
        before any of them reads.

    Raises:
        CheckpointError: a checkpoint is missing, unreadable or of another run, or the run did not
            begin with `init_from`.
    """
    identity, steps_per_epoch = experiment.identity, experiment.steps_per_epoch
    origin = {"workdir": str(Path(init_from).resolve()), "epoch": init_epoch} if init_from else None
    own = None if force_fresh else checkpoints.newest(set_aside=fresh)
    if own is not None:
        record = checkpoints.record(own)
        here = {**identity, "steps_per_epoch": steps_per_epoch}
        where = str(checkpoints.folder / str(own))
        check_fields(record, where)
        check_same(record, here, where, _with_other_data(checkpoints.folder.parent))
        began = record["init_from"] or "random parameters"
        if origin and not _holds(record["init_from"], origin):
            raise CheckpointError(
                f"init_from={init_from} (epoch {init_epoch}), but this run began from {began}; "
                "choose another workdir, or leave init_from out"
            )
        whole = {**ABSENT, **record}
        restored = {
            f.name: whole[f.name] for f in dataclasses.fields(RestorePoint) if f.name != "state"
        }
        return lambda: RestorePoint(state=checkpoints.restore(own, experiment.target()), **restored)
    if not init_from:
        return RestorePoint
    source = Checkpoints(init_from)
    if origin and not init_epoch:
        return _from_weights(experiment, source, init_from, init_aux_bn)
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
    # The networks of other runs are those of this run's own phases. And a run may start from one
    # that began with a file of weights, and not need the file itself.
    optional = {"frozen"} | ({"pretrained"} if identity["pretrained"] is None else set())
    same = {name: value for name, value in identity.items() if name not in optional}
    check_same(
        records[found[0]],
        same,
        f"init_from={init_from}",
        "init_epoch=0 takes over its network alone, for other classes or images",
    )
    step, target = found[0], experiment.target()
    add_aux = aux_norm(init_aux_bn)
    transforms = [new_projector(), add_aux, class_scale(), new_memory(experiment.memory)]
    if origin and add_aux.applies(records[step]["leaves"], target):
        origin["aux_bn"] = init_aux_bn

    def read() -> RestorePoint:
        state = read_transformed(source, step, target, experiment.init, transforms)
        source.close()
        # Counted in this run's steps: the other may have had another batch size.
        begun = np.asarray(init_epoch * steps_per_epoch, np.int32)
        state = state.replace(step=jax.device_put(begun, experiment.placement.replicated))
        return RestorePoint(state, init_from=origin)

    return read


def _from_weights(
    experiment: Experiment, source: Checkpoints, init_from: str, init_aux_bn: str
) -> Callable[[], RestorePoint]:
    """Finds the network of another run, for a run of its own; see `find_restore_point`."""
    step = source.newest()
    if step is None:
        raise CheckpointError(f"init_from={init_from}: there is no checkpoint")
    record = source.record(step)
    where = f"init_from={init_from}"
    check_same(record, {"model": experiment.identity["model"]}, where)

    def read() -> RestorePoint:
        placement = experiment.placement
        weights = read_run_weights(
            source,
            step,
            experiment.target(),
            class_names=experiment.dataset.class_names,
            aux=init_aux_bn,
            sharding=placement.replicated,
            where=where,
        )
        source.close()
        state = weights.into(experiment.init(), placement.replicate, experiment.memory)
        origin = {
            "workdir": str(Path(init_from).resolve()),
            "epoch": 0,
            "weights_after_epoch": record["epoch"],
            "head": weights.note,
        }
        return RestorePoint(state, init_from=origin)

    return read


def _with_other_data(workdir: Path) -> str:
    return (
        "other images are another run: a new workdir with "
        f"--config.init_from={workdir} --config.init_epoch=0 starts it with the network of this one"
    )


def remove_if_unused(workdir: Path) -> None:
    """Removes a workdir in which no run has begun: a refused run leaves nothing behind."""
    if not (workdir / CONFIG_FILE).exists() and not Checkpoints(workdir).steps():
        folder = workdir / FOLDER
        with contextlib.suppress(OSError):
            (workdir / workdir_lock.NAME).unlink()
        for path in (folder / STAGING, folder / TRASH, folder, workdir):
            # Only empty folders are removed.
            with contextlib.suppress(OSError):
                path.rmdir()


def to_set_aside(checkpoints: Checkpoints, fresh: bool) -> list[int]:
    """Steps of the checkpoints to set aside: the damaged ones, or with a fresh start all.

    Args:
        checkpoints: of the run, after `find_restore_point`.
        fresh: it starts from scratch.
    """
    return checkpoints.steps() if fresh else [*checkpoints.passed_over]


def set_aside(checkpoints: Checkpoints, workdir: Path, fresh: bool) -> None:
    """Moves the checkpoints of `to_set_aside` to quarantine/, with a fresh start all results too.

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
        paths += workdir.glob(bad_images.OF_PROCESSES)
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
    """True if this job has started from scratch in a workdir before, and must now continue."""
    try:
        return bool(job()) and files.read_json(workdir / FRESH_FILE)["job"] == job()
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False


def _holds(there: dict[str, Any] | None, wanted: dict[str, Any]) -> bool:
    return there is not None and all(there.get(name) == value for name, value in wanted.items())
