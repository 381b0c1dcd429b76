"""What a run starts from: its own newest checkpoint, another run's, or random parameters."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from purenoise_jax.aux_start import needs_aux, with_aux, without_aux
from purenoise_jax.checkpoint import Checkpoints, check_same
from purenoise_jax.config import config_hash, fixed_fields
from purenoise_jax.errors import CheckpointError, ConfigError
from purenoise_jax.experiment import Experiment
from purenoise_jax.step import TrainState
from purenoise_jax.writer import read_json

CONFIG_FILE = "config.json"


@dataclasses.dataclass(frozen=True)
class Start:
    """What a run goes on from.

    Attributes:
      state: on every device; None = random parameters are still to be drawn.
      seconds: spent on the run before.
      measured_steps: of `Clock`, with the seconds they took.
      measured_seconds: likewise.
      skipped_steps: see `skipped.SkippedSteps`, over the run before.
      skipped_in_a_row: likewise, those directly before.
      init_from: the run and epoch that the state was taken over from, at whatever time that was;
        None if it began with random parameters.
    """

    state: TrainState | None = None
    seconds: float = 0.0
    measured_steps: int = 0
    measured_seconds: float = 0.0
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    init_from: dict[str, Any] | None = None


def saved_config(config: ConfigDict) -> dict[str, Any]:
    """What config.json holds: all fields, and apart those that must stay the same."""
    return {
        "hash": config_hash(config),
        "fixed": fixed_fields(config),
        "config": config.to_dict(),
    }


def refuse_other_run(config: ConfigDict, workdir: Path) -> None:
    """Checks that a workdir is free, or that of the same run.

    Raises:
      ConfigError: it is a file, or holds a run whose fixed fields differ, naming them.
    """
    path = workdir / CONFIG_FILE
    if workdir.exists() and not workdir.is_dir():
        raise ConfigError(f"workdir={workdir} is a file; legal: a folder, or a path to make one at")
    if not path.exists():
        if Checkpoints(workdir, read_only=True).steps():
            raise ConfigError(f"workdir={workdir} has checkpoints but no {CONFIG_FILE}")
        return
    try:
        there = read_json(path)["fixed"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged ({error}); choose another workdir") from None
    here = fixed_fields(config)
    differing = [
        f"{name}: {there.get(name)!r} there, {here.get(name)!r} here"
        for name in sorted({*there, *here})
        if there.get(name) != here.get(name)
    ]
    if differing:
        raise ConfigError(
            f"workdir={workdir} is of another run; {'; '.join(differing[:4])}; "
            "choose another workdir, or the same config"
        )


def find_start(
    experiment: Experiment,
    checkpoints: Checkpoints,
    *,
    init_from: str,
    init_epoch: int,
    init_aux_bn: str,
) -> Start:
    """Finds what to start from.

    In this order: the newest checkpoint of this run; the checkpoint of `init_from` after
    `init_epoch` epochs, momentum included; random parameters.

    Args:
      experiment: what is run.
      checkpoints: of this run.
      init_from: workdir of another run, or "".
      init_epoch: its completed epochs.
      init_aux_bn: see `aux_start.with_aux`; for a checkpoint without auxiliary layers.

    Raises:
      ConfigError: the run has begun from something other than `init_from`.
      CheckpointError: a checkpoint is missing, unreadable or of another run.
    """
    identity, steps_per_epoch = experiment.identity, experiment.steps_per_epoch
    origin = {"workdir": str(Path(init_from).resolve()), "epoch": init_epoch} if init_from else None
    own = checkpoints.steps()
    if own:
        record = checkpoints.record(own[-1])
        here = {**identity, "steps_per_epoch": steps_per_epoch}
        check_same(record, here, str(checkpoints.folder / str(own[-1])))
        began = record["init_from"] or "random parameters"
        if origin and not _holds(record["init_from"], origin):
            raise ConfigError(
                f"init_from={init_from} (epoch {init_epoch}), but this run began from {began}; "
                "choose another workdir, or leave init_from out"
            )
        return Start(
            state=checkpoints.restore(own[-1], experiment.target()),
            # A field that is younger than the checkpoint has its default.
            **{
                f.name: record.get(f.name, f.default)
                for f in dataclasses.fields(Start)
                if f.name != "state"
            },
        )
    if not init_from:
        return Start()
    source = Checkpoints(init_from, read_only=True)
    records = {step: source.record(step) for step in source.steps()}
    found = [step for step, record in records.items() if record["epoch"] == init_epoch]
    if not found:
        epochs = ", ".join(f"{record['epoch']:g}" for record in records.values())
        raise CheckpointError(
            f"init_from={init_from}: no checkpoint after epoch {init_epoch} (init_epoch); "
            f"there are {epochs or 'none'}"
        )
    check_same(records[found[0]], identity, f"init_from={init_from}")
    target = experiment.target()
    if needs_aux(records[found[0]]["leaves"], target):
        natural = source.restore(found[0], without_aux(target))
        state = with_aux(natural, experiment.init(), init_aux_bn)
        origin = {**origin, "aux_bn": init_aux_bn} if origin else None
    else:
        state = source.restore(found[0], target)
    source.close()
    # Counted in this run's steps: the other may have had another batch size.
    step = np.asarray(init_epoch * steps_per_epoch, np.int32)
    state = state.replace(step=jax.device_put(step, experiment.placement.replicated))
    return Start(state, init_from=origin)


def _holds(there: dict[str, Any] | None, wanted: dict[str, Any]) -> bool:
    return there is not None and all(there.get(name) == value for name, value in wanted.items())
