"""The config of a run as its workdir records it: config.json, and comparison with it.

`config.json` holds all fields, and apart from them those that must stay the same while a run
continues, with their hash.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.config.fields import config_hash, differences, fixed_fields, flatten
from purenoise_jax.config.resolve import resolved
from purenoise_jax.runtime.errors import CheckpointError, ConfigError
from purenoise_jax.runtime.files import read_json

CONFIG_FILE = "config.json"


def saved_config(config: ConfigDict, kept: Iterable[int] = ()) -> dict[str, Any]:
    """What config.json holds: all fields, and apart those that must stay the same.

    Args:
        config: see `fields`.
        kept: from `kept_epochs`.
    """
    return {
        "hash": config_hash(config),
        "fixed": fixed_fields(config),
        "config": resolved(config).to_dict(),
        "named_epochs": sorted(kept),
    }


def recorded_fields(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """The config, by dotted path, of the run in a workdir, or else of the one it is to start from.

    Args:
        config: see `fields`; its `init_from` counts.
        workdir: of the run.

    Returns:
        JSON values; empty if neither is there. A damaged file is left to others to refuse.
    """
    origins = [workdir, *([Path(config.init_from).expanduser()] if config.init_from else [])]
    for folder in origins:
        path = folder / CONFIG_FILE
        try:
            if path.is_file():
                return flatten(read_json(path)["config"])
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return {}
    return {}


def kept_epochs(config: ConfigDict, workdir: Path) -> set[int]:
    """The epochs whose checkpoints are kept for good: the config's, its last, and those of before.

    What was the last once stays, though the run goes on with more epochs.

    Args:
        config: see `fields`.
        workdir: of the run, whose config.json is a sound one.
    """
    path = workdir / CONFIG_FILE
    before = read_json(path).get("named_epochs") if path.exists() else None
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
        saved = read_json(path)
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
