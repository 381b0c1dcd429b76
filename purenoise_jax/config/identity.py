"""The identity of a run: the fields that define its results, their hash and their comparison."""

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from purenoise_jax.config.fields import FIELDS, field_of, flatten
from purenoise_jax.config.resolve import resolved
from purenoise_jax.runtime.constraints import ALWAYS

# Fields that earlier versions had, each with the value that is still what a run does. A run is
# compared and hashed as if it had them, so that older runs and their hashes stay valid.
FORMER_FIELDS: dict[str, Any] = {"method.sam.asymmetry": "none"}

# Fields that are not part of this identity and have another name than in earlier versions, by
# their name there.
RENAMED_FIELDS = {"method.m2m.network": "frozen.g"}


def fixed_fields(config: ConfigDict) -> dict[str, Any]:
    """Returns the fields that define a run's results, resolved, by dotted path, as JSON values."""
    flat = flatten(resolved(config))
    chosen = {p: v for p, v in flat.items() if p not in FIELDS or FIELDS[p].fixed}
    return used_fields(json.loads(json.dumps({**FORMER_FIELDS, **chosen})))


def used_fields(fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves out fields without effect, so that two runs that compute the same compare equal.

    These are the arguments of methods that no phase names, the ratio if every image is kept, ratio
    and profile with given class counts, and fields with the value that runs without them have (see
    `Field.absent`).

    Args:
        fixed: JSON values by dotted path, from `fixed_fields` of this or an earlier version.
    """
    methods = _methods(fixed)
    idle = _idle(fixed)

    def is_used(path: str, value: Any) -> bool:
        return path not in idle and _is_argument_of(methods, path) and value != _value_without(path)

    return {path: value for path, value in fixed.items() if is_used(path, value)}


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Describes the fields in which two runs differ, each with both values.

    Args:
        there: from `fixed_fields`, of this or an earlier version.
        here: from `fixed_fields`.
    """
    there, here = used_fields(there), used_fields(here)
    # A field that only one run uses is not listed, because another field causes that difference:
    # the phases for arguments of a method, the profile for the ratio.
    idle = _idle(there) | _idle(here)
    methods = _methods(there) & _methods(here)
    values = [
        (path, *(side.get(path, _value_without(path, None)) for side in (there, here)))
        for path in sorted({*there, *here} - idle)
        if _is_argument_of(methods, path)
    ]
    return [f"{path}: {a!r} there, {b!r} here" for path, a, b in values if a != b]


def config_hash(config: ConfigDict) -> str:
    """Returns the sha256, in hex, of the fixed fields that a run uses and its number of epochs."""
    fields = {**fixed_fields(config), "num_epochs": config.num_epochs}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _idle(fixed: Mapping[str, Any]) -> set[str]:
    """Returns the fields that a run does not use.

    These are the ratio, if every image is kept, and ratio and profile with given class counts.
    """
    if fixed.get("data.class_counts"):
        return {"data.imbalance_ratio", "data.profile"}
    return {"data.imbalance_ratio"} if fixed.get("data.profile") == "natural" else set()


def _methods(fixed: Mapping[str, Any]) -> set[str]:
    """Returns the methods that phases name."""
    return {
        method
        for path, methods in fixed.items()
        if path.startswith("phases.") and path.endswith(".methods") and isinstance(methods, list)
        for method in methods
    }


def _is_argument_of(methods: Collection[str], path: str) -> bool:
    """True for an argument of one of the methods, and for fields that are no arguments."""
    return not path.startswith("method.") or path.split(".")[1] in methods


def _value_without(path: str, always: Any = ALWAYS) -> Any:
    """Returns the JSON value of runs without such a field; `always` if all runs have it."""
    field = field_of(path)
    absent = ALWAYS if field is None else field.absent
    if absent is ALWAYS:
        return always
    return list(absent) if isinstance(absent, tuple) else absent
