"""Checks the fields of a checkpoint's record that a run continues from.

The manifest proves that a record is unchanged, but another version may have written it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from purenoise_jax.runtime.errors import CheckpointError, shown


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _totals(value: Any) -> bool:
    """True for counts, numbers as text or lists of counts by name, as in `EpochMetrics.to_json`."""

    def is_entry(entry: Any) -> bool:
        if isinstance(entry, list):
            return all(map(_count, entry))
        if isinstance(entry, str):
            try:
                float(entry)
            except ValueError:
                return False
            return True
        return _number(entry)

    return isinstance(value, dict) and all(map(is_entry, value.values()))


def _origin(value: Any) -> bool:
    if not isinstance(value, dict):
        return value is None
    return isinstance(value.get("workdir"), str) and _count(value.get("epoch"))


def _best(value: Any) -> bool:
    """True for the best evaluation so far, see `training/best.py`."""
    if not isinstance(value, dict):
        return value is None
    counts = ("step", "epoch", "stale")
    return (
        value.keys() == {"metric", "value", *counts}
        and isinstance(value["metric"], str)
        and _number(value["value"])
        and all(_count(value[name]) for name in counts)
    )


# Field -> (check, legal values in words).
FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "steps_per_epoch": (lambda value: _count(value) and value > 0, "an integer of at least 1"),
    "epoch_ended": (lambda value: isinstance(value, bool), "true or false"),
    "totals": (_totals, "an object of counts, numbers as text and lists of counts"),
    "environment": (lambda value: isinstance(value, dict), "an object"),
    "seconds": (_number, "a finite number"),
    "measured_steps": (_count, "a count"),
    "measured_seconds": (_number, "a finite number"),
    "skipped_steps": (_count, "a count"),
    "skipped_in_a_row": (_count, "a count"),
    "init_from": (_origin, "null, or an object with workdir and epoch"),
    "best": (_best, "null, or an object with metric, value, step, epoch and stale"),
}
# Field -> its value in records that earlier versions have written.
ABSENT: dict[str, Any] = {"best": None}


def check_fields(record: Mapping[str, Any], where: str) -> None:
    """Checks that a record has every field that a run continues from, each with a legal value.

    Args:
        record: of a checkpoint whose manifest holds.
        where: names the checkpoint in the message.

    Raises:
        CheckpointError: naming all missing fields, or the first that is not legal.
    """
    missing = [name for name in FIELDS if name not in record and name not in ABSENT]
    if missing:
        raise CheckpointError(
            f"{where}: its record lacks {', '.join(missing)}, so another version of "
            "purenoise_jax must have written it; continue with that version, or start from "
            "scratch with --config.fresh=True"
        )
    for name, (is_legal, words) in FIELDS.items():
        if name in record and not is_legal(record[name]):
            raise CheckpointError(
                f"{where}: its record has {name}={shown(record[name])}, which is not legal; "
                f"legal: {words}"
            )
