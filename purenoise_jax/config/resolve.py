"""Fields that a config may leave open: what they come to, once for as long as a run lives.

`auto` is resolved at the start: as the run has recorded it, else by the data set. The resolved
values are what is run, compared, hashed and written to config.json.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from purenoise_jax.data.sources.tfds import name_in_folder

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
# Benchmarks with as many images of every class, of which subsets are cut. Everything else is
# somebody's own data, or long-tailed by itself, and keeps every image unless a ratio is asked for.
BALANCED = ("cifar10", "cifar100", "digits", "fashion_mnist", "kmnist", "tiny_imagenet")
# The ratio of the papers' main tables, where a subset is to be cut and none is asked for.
IMBALANCE_RATIO = 100.0
# The constants that comparisons normalise both CIFARs with (Cao et al. 2019, Zhong et al. 2021, Lee
# and Lee 2023, tables 12 and 13). The deviations are not those of CIFAR-10 (.247 .243 .262) but
# means of per-image deviations.
CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2023, 0.1994, 0.2010)


def resolved(config: ConfigDict, recorded: Mapping[str, Any] | None = None) -> ConfigDict:
    """A config without open fields; the same again if it has none.

    * `data.profile`: "natural" for own data, "exp" for balanced benchmarks and wherever a ratio is
      asked for.
    * `data.imbalance_ratio`: 0 stands for open, which comes to 100; "natural" has no use for it.
    * `data.normalize`: the customary constants for CIFAR, else the training set's statistics.

    READING: Zada et al. 2022 do not say which statistics images are normalised with. Those of the
    long-tailed subset are reported to cost accuracy (Lee and Lee 2023, A.2).

    Args:
        config: of legal fields.
        recorded: from `resume.recorded_fields`, of the run that goes on or that is started from;
            open fields have what they had there.
    """
    data, before = config.data, recorded or {}
    profile, ratio = data.profile, data.imbalance_ratio
    if profile == AUTO:
        kept = before.get("data.profile", AUTO)
        # Whoever asks for a ratio does not want to keep every image.
        if kept == AUTO or (ratio and kept == "natural"):
            kept = "exp" if ratio or _data_set(data) in BALANCED else "natural"
        profile = kept
    if not ratio and profile != "natural":
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
    """Says which open fields are otherwise than a new run would have them: no line, or one.

    Args:
        config: before `resolved`.
        recorded: see `resolved`.
    """
    new, kept = (flat_data(resolved(config, before)) for before in (None, recorded))
    told = [path for path in FIELDS[:3] if new[path] != kept[path]]
    if not told:
        return ()
    # A ratio of 0 is none.
    there, here = (
        ", ".join(f"{path}={side[path]}" for path in told if side[path]) for side in (kept, new)
    )
    return (f"keeps {there} as recorded; a new run would have {here}",)


def flat_data(config: ConfigDict) -> dict[str, Any]:
    """The values of `FIELDS` by path."""
    return {path: config.data[path.partition(".")[2]] for path in FIELDS}


def _data_set(data: ConfigDict) -> str:
    """The name of the data set, or of a source of own data."""
    if data.source not in _BY_NAME:
        return str(data.source)
    name = name_in_folder(data.path) if data.source != "cifar_dir" and data.path else ""
    return (name or str(data.name)).partition(":")[0]
