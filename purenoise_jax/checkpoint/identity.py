"""Compares the record of a checkpoint with the run that wants to use it."""

import json
from collections.abc import Mapping
from typing import Any

from purenoise_jax.runtime.errors import CheckpointError

# Entries of a record that say which images and classes a run has.
DATA = (
    *("num_classes", "class_counts", "dataset_fingerprint", "dataset_content"),
    *("normalize_mean", "normalize_std", "steps_per_epoch"),
)
# Frozen networks that have another name than in earlier versions, by their name there.
RENAMED_NETWORKS = {"m2m": "g"}
# Of values of data in a message, in characters.
LONGEST_SHOWN = 24


def check_same(
    there: Mapping[str, Any], here: Mapping[str, Any], where: str, if_data: str = ""
) -> None:
    """Refuses a checkpoint of another run.

    Args:
        there: record of the checkpoint.
        here: JSON values that identify this run; each must be the same in the record.
        where: names the checkpoint in the message.
        if_data: advice, which comes first if no other entries than those of `DATA` differ.

    Raises:
        CheckpointError: naming every entry that differs.
    """
    here, there = json.loads(json.dumps(here)), _with_names_of_today(there)
    differing = [key for key in here if there.get(key) != here[key]]
    if not differing:
        return
    if if_data and {*differing} <= {*DATA}:
        parts = "; ".join(_shown(key, there.get(key), here[key]) for key in differing)
        raise CheckpointError(
            f"{where} is of another run, of other data; {if_data}; differing: {parts}"
        )
    parts = "; ".join(
        f"{key}: {_short(there.get(key))} there, {_short(here[key])} here" for key in differing
    )
    raise CheckpointError(f"{where} is of another run: {parts}")


def _with_names_of_today(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record in which frozen networks have the names that this version gives them."""
    frozen = record.get("frozen")
    if not isinstance(frozen, dict):
        return record
    return {**record, "frozen": {RENAMED_NETWORKS.get(n, n): v for n, v in frozen.items()}}


def _shown(key: str, there: Any, here: Any) -> str:
    """Names an entry, with its values if they are short; checksums say nothing to a reader."""
    texts = json.dumps(there), json.dumps(here)
    short = max(map(len, texts)) <= LONGEST_SHOWN
    return f"{key}: {texts[0]} there, {texts[1]} here" if short else key


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
