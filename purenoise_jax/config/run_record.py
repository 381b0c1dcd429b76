"""The config that a workdir records in config.json, and comparison with it.

`config.json` holds all fields, and once more those that must stay the same while a run continues,
with their hash.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.config.fields import flatten
from purenoise_jax.config.identity import config_hash, differences, fixed_fields
from purenoise_jax.config.resolve import resolved
from purenoise_jax.methods.schedules import COSINE
from purenoise_jax.runtime.errors import CheckpointError, ConfigError
from purenoise_jax.runtime.files import read_json
from purenoise_jax.runtime.paths import expand

CONFIG_FILE = "config.json"


def saved_config(config: ConfigDict, kept: Iterable[int] = ()) -> dict[str, Any]:
    """Returns the content of config.json: all fields, and once more those that must stay the same.

    Args:
        config: with the fields of `config/fields.py`.
        kept: from `kept_epochs`.
    """
    return {
        "hash": config_hash(config),
        "fixed": fixed_fields(config),
        "config": resolved(config).to_dict(),
        "named_epochs": sorted(kept),
    }


def recorded_fields(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Reads the config of the run in a workdir, otherwise of the run that it starts from.

    Args:
        config: of which `init_from` is used.
        workdir: of the run.

    Returns:
        Dotted path -> JSON value. Empty if there is no config, or a damaged one, which other
        functions refuse.
    """
    # A run that takes over the network alone is a run of its own.
    continues = config.init_from and config.init_epoch
    origins = [workdir, *([Path(config.init_from).expanduser()] if continues else [])]
    for folder in origins:
        path = folder / CONFIG_FILE
        try:
            if path.is_file():
                return flatten(read_json(path)["config"])
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return {}
    return {}


def kept_epochs(config: ConfigDict, workdir: Path) -> set[int]:
    """Returns the epochs whose checkpoints are kept for good: the config's, its last, earlier ones.

    The final checkpoint of a shorter run is kept when the run is extended.

    Args:
        config: with the fields of `config/fields.py`.
        workdir: of the run, with a valid config.json or none.
    """
    path = workdir / CONFIG_FILE
    before = read_json(path).get("named_epochs") if path.exists() else None
    # Malformed entries are ignored, because the file may have been edited.
    kept = {e for e in before if type(e) is int} if isinstance(before, list) else set()
    return {*config.checkpoint.epochs, config.num_epochs} | kept


def refuse_other_run(config: ConfigDict, workdir: Path) -> None:
    """Refuses a workdir of another run, and a new one among the images of class folders.

    Raises:
        ConfigError: the workdir is a file or lies in the folder of the images, or its config.json
            is damaged.
        CheckpointError: its run differs in fixed fields, naming them.
    """
    path = workdir / CONFIG_FILE
    if workdir.exists() and not workdir.is_dir():
        raise ConfigError(f"workdir={workdir} is a file; legal: a folder, or a new path")
    if not path.exists():
        if Checkpoints(workdir).steps():
            raise CheckpointError(f"workdir={workdir} has checkpoints but no {CONFIG_FILE}")
        _refuse_among_images(config, workdir)
        return
    try:
        saved = read_json(path)
        there, here = dict(saved["fixed"].items()), fixed_fields(config)
        epochs = int(saved["config"]["num_epochs"]), config.num_epochs
        if _ends_with_a_cosine(there) or _ends_with_a_cosine(here):
            # Another end would be another schedule from the first epoch on.
            there["num_epochs"], here["num_epochs"] = epochs
        differing = differences(*(_with_drops_before(min(epochs), side) for side in (there, here)))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged ({error}); choose another workdir") from None
    if differing:
        raise CheckpointError(
            f"workdir={workdir} is of another run; {'; '.join(differing[:4])}; "
            "choose another workdir, or the same config"
        )


def _refuse_among_images(config: ConfigDict, workdir: Path) -> None:
    """Refuses a workdir whose files would be taken for images and classes at the next start."""
    data = config.data
    if data.source != "folder" or not data.path:
        return
    root = expand(data.path, "data.path")
    # If the training split is named, folders beside the splits are not looked at.
    splits = [data.train_split, data.test_split or "test", "val"] if data.train_split else [""]
    place = Path(os.path.realpath(workdir))
    if any(place.is_relative_to(os.path.realpath(root / split)) for split in splits):
        raise ConfigError(
            f"workdir={workdir} lies in data.path={data.path}, where its files would be taken for "
            "images; choose a folder elsewhere"
        )


def _with_drops_before(epoch: int, fixed: dict[str, Any]) -> dict[str, Any]:
    """Returns fixed fields without drops of the learning rate at or after an epoch.

    If a run is extended, its new config may have other drops than those that it has not reached.
    """
    drops = [drop for drop in fixed["optimizer.milestones"] if drop < epoch]
    return {**fixed, "optimizer.milestones": drops}


def _ends_with_a_cosine(fixed: dict[str, Any]) -> bool:
    """True if the rate of an epoch depends on the number of epochs of the run."""
    starts = {
        path.removesuffix("start_epoch"): start
        for path, start in fixed.items()
        if path.startswith("phases.") and path.endswith(".start_epoch")
    }
    last = max(starts, key=lambda phase: starts[phase])
    return COSINE in (fixed.get("optimizer.schedule"), fixed.get(f"{last}schedule"))
