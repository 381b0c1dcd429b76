"""What a run starts from: its own newest checkpoint, another run's, or random parameters."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from purenoise_jax.checkpoint.identity import check_same
from purenoise_jax.checkpoint.init_transforms import add_aux_norm, lacks_aux_norm, without_aux_norm
from purenoise_jax.checkpoint.manager import FOLDER, STAGING, TRASH, Checkpoints
from purenoise_jax.checkpoint.record_fields import check_fields
from purenoise_jax.config.fields import config_hash, differences, fixed_fields, flatten
from purenoise_jax.config.resolve import resolved
from purenoise_jax.runtime import files, workdir_lock
from purenoise_jax.runtime.errors import CheckpointError, ConfigError
from purenoise_jax.training import metric_writer, nonfinite_steps
from purenoise_jax.training.experiment import Experiment
from purenoise_jax.training.train_step import TrainState

CONFIG_FILE = "config.json"
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


def saved_config(config: ConfigDict, named: Iterable[int] = ()) -> dict[str, Any]:
    """What config.json holds: all fields, and apart those that must stay the same.

    Args:
        config: see `purenoise_jax.config.fields`.
        named: from `kept_epochs`.
    """
    return {
        "hash": config_hash(config),
        "fixed": fixed_fields(config),
        "config": resolved(config).to_dict(),
        "named_epochs": sorted(named),
    }


def recorded_fields(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """The config, by dotted path, of the run in a workdir, or else of the one it is to start from.

    Args:
        config: see `purenoise_jax.config.fields`; its `init_from` counts.
        workdir: of the run.

    Returns:
        JSON values; empty if neither is there. A damaged file is left to others to refuse.
    """
    origins = [workdir, *([Path(config.init_from).expanduser()] if config.init_from else [])]
    for folder in origins:
        path = folder / CONFIG_FILE
        try:
            if path.is_file():
                return flatten(files.read_json(path)["config"])
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return {}
    return {}


def kept_epochs(config: ConfigDict, workdir: Path) -> set[int]:
    """The epochs whose checkpoints are kept for good: the config's, its last, and those of before.

    What was the last once stays, though the run goes on with more epochs.

    Args:
        config: see `purenoise_jax.config.fields`.
        workdir: of the run, whose config.json is a sound one.
    """
    path = workdir / CONFIG_FILE
    before = files.read_json(path).get("named_epochs") if path.exists() else None
    # Of a file that anybody may have edited, what cannot be meant is left out.
    kept = {e for e in before if type(e) is int} if isinstance(before, list) else set()
    return {*config.checkpoint.epochs, config.num_epochs} | kept


def refuse_other_run(config: ConfigDict, workdir: Path) -> None:
    """Checks that a workdir is free, or that of the same run.

    Raises:
        ConfigError: it is a file, or its config.json is damaged.
        CheckpointError: it holds a run whose fixed fields differ, naming them.
    """
    path = workdir / CONFIG_FILE
    if workdir.exists() and not workdir.is_dir():
        raise ConfigError(f"workdir={workdir} is a file; legal: a folder, or a path to make one at")
    if not path.exists():
        if Checkpoints(workdir).steps():
            raise CheckpointError(f"workdir={workdir} has checkpoints but no {CONFIG_FILE}")
        return
    try:
        saved = files.read_json(path)
        there, here = dict(saved["fixed"].items()), fixed_fields(config)
        common = min(int(saved["config"]["num_epochs"]), config.num_epochs)
        differing = differences(*(_with_drops_before(common, side) for side in (there, here)))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged ({error}); choose another workdir") from None
    if differing:
        raise CheckpointError(
            f"workdir={workdir} is of another run; {'; '.join(differing[:4])}; "
            "choose another workdir, or the same config"
        )


def _with_drops_before(epoch: int, fixed: dict[str, Any]) -> dict[str, Any]:
    """Fixed fields without drops of the learning rate that a run of so many epochs does not reach.

    A run that is given more epochs has the drops that go with them, and those of before have not
    been reached either.
    """
    drops = [drop for drop in fixed["optimizer.milestones"] if drop < epoch]
    return {**fixed, "optimizer.milestones": drops}


def find_restore_point(
    experiment: Experiment,
    checkpoints: Checkpoints,
    *,
    init_from: str,
    init_epoch: int,
    init_aux_bn: str,
    fresh: bool = False,
    over: bool = False,
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
        fresh: a start from scratch is wanted, where there is nothing to go on from.
        over: and even where there is.

    Returns:
        What reads it, apart as processes do that together: all must have found something first.

    Raises:
        CheckpointError: a checkpoint is missing, unreadable or of another run, or the run has begun
            from something other than `init_from`.
    """
    identity, steps_per_epoch = experiment.identity, experiment.steps_per_epoch
    origin = {"workdir": str(Path(init_from).resolve()), "epoch": init_epoch} if init_from else None
    own = None if over else checkpoints.newest(set_aside=fresh)
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
    needs = lacks_aux_norm(records[found[0]]["leaves"], experiment.target())
    if needs and origin:
        origin["aux_bn"] = init_aux_bn

    def read() -> RestorePoint:
        target = experiment.target()
        if needs:
            natural = source.restore(found[0], without_aux_norm(target))
            state = add_aux_norm(natural, experiment.init(), init_aux_bn)
        else:
            state = source.restore(found[0], target)
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
