"""Trains the tiny problem and loads the run as the figures do."""

import dataclasses
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from purenoise_jax.inference.runs import Run, load_runs
from purenoise_jax.training.loop import train_and_evaluate
from tests.tiny import tiny_config, write_npz


def train_tiny(folder: Path, **overrides: Any) -> Run:
    """Trains an epoch of ERM and one of OPeN, with a checkpoint of each."""
    npz = write_npz(folder / "tiny.npz")
    config = tiny_config(npz, **{"num_epochs": 2, "phases.deferred.start_epoch": 1, **overrides})
    train_and_evaluate(config, folder / "run")
    return load_runs([folder / "run"])[0]


def changed(run: Run, **overrides: Any) -> Run:
    """The same checkpoints under another config; for fields that checkpoints do not depend on."""
    config = ConfigDict(run.config.to_dict())
    config.update_from_flattened_dict(overrides)
    return dataclasses.replace(run, config=config)
