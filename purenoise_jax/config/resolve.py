"""Resolves the fields that a config may leave open, once in the life of a run.

`auto` is resolved at the start: to the value that the run has recorded, otherwise by the data set.
The resolved values are used, compared, hashed and written to config.json.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from purenoise_jax.data.sources.tfds_prepared import name_in_folder

AUTO = "auto"
FIELDS = (
    "data.profile",
    "data.imbalance_ratio",
    "data.normalize",
    "data.normalize_mean",
    "data.normalize_std",
)
# Sources that hold several data sets, by `data.name`; any other source is a data set of its own.
_BY_NAME = ("auto", "cifar_dir", "tfds")
# Benchmarks with equally many images of every class, of which subsets are cut. Of all other data,
# which may be long-tailed by themselves, every image is kept unless a ratio is given.
BALANCED = ("cifar10", "cifar100", "digits", "fashion_mnist", "kmnist", "tiny_imagenet")
# The ratio of the papers' main tables, for subsets without a given ratio.
IMBALANCE_RATIO = 100.0
# The constants that comparisons normalise both CIFARs with (Cao et al. 2019, Zhong et al. 2021, Lee
# and Lee 2023, tables 12 and 13). The deviations are not those of CIFAR-10 (.247 .243 .262) but
# means of per-image deviations.
CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2023, 0.1994, 0.2010)


def resolved(config: ConfigDict, recorded: Mapping[str, Any] | None = None) -> ConfigDict:
    """Returns a config without open fields; the same object if it has none.

    * `data.profile`: "natural" for own data, "exp" for balanced benchmarks and wherever a ratio is
      given.
    * `data.imbalance_ratio`: 0 is open and becomes 100; "natural" does not use it.
    * Neither is used, and both stay open, where `data.class_counts` is given.
    * `data.normalize`: the customary constants for CIFAR, otherwise the training set's statistics.

    READING: Zada et al. 2022 do not say which statistics images are normalised with. Those of the
    long-tailed subset are reported to cost accuracy (Lee and Lee 2023, A.2).

    Args:
        config: of legal fields.
        recorded: from `run_record.recorded_fields`, of the run that continues or that is started
            from; open fields keep its values.
    """
    data, before = config.data, recorded or {}
    profile, ratio = data.profile, data.imbalance_ratio
    counted = bool(data.class_counts)
    if profile == AUTO and not counted:
        kept = before.get("data.profile", AUTO)
        # With a given ratio, not every image can be kept.
        if kept == AUTO or (ratio and kept == "natural"):
            kept = "exp" if ratio or _data_set(data) in BALANCED else "natural"
        profile = kept
    if not ratio and profile != "natural" and not counted:
        ratio = before.get("data.imbalance_ratio") or IMBALANCE_RATIO
    normalize, mean, std = data.normalize, data.normalize_mean, data.normalize_std
    if normalize == AUTO:
        normalize = before.get("data.normalize", AUTO)
        if normalize != AUTO:
            mean, std = (
                tuple(before.get(f"data.normalize_{name}", ())) for name in ("mean", "std")
            )
        elif _data_set(data) in ("cifar10", "cifar100"):
            normalize, mean, std = "explicit", mean or CIFAR_MEAN, std or CIFAR_STD
        else:
            normalize = "train_subset"
    values = dict(zip(FIELDS, (profile, ratio, normalize, mean, std), strict=True))
    if flat_data(config) == values:
        return config
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(values)
    return config


def kept_lines(config: ConfigDict, recorded: Mapping[str, Any]) -> tuple[str, ...]:
    """Names the open fields that keep another value than in a new run: one line, or none.

    Args:
        config: before `resolved`.
        recorded: see `resolved`.
    """
    new, kept = (flat_data(resolved(config, before)) for before in (None, recorded))
    changed = [path for path in FIELDS[:3] if new[path] != kept[path]]
    if not changed:
        return ()
    # A ratio of 0 is left out, because it is not used.
    there, here = (
        ", ".join(f"{path}={side[path]}" for path in changed if side[path]) for side in (kept, new)
    )
    return (f"keeps {there} as recorded; a new run would have {here}",)


def flat_data(config: ConfigDict) -> dict[str, Any]:
    """Returns the values of `FIELDS` by path."""
    return {path: config.data[path.partition(".")[2]] for path in FIELDS}


def _data_set(data: ConfigDict) -> str:
    """Returns the name of the data set, or that of the source for a user's own data."""
    if data.source not in _BY_NAME:
        return str(data.source)
    name = name_in_folder(data.path) if data.source != "cifar_dir" and data.path else ""
    return (name or str(data.name)).partition(":")[0]
