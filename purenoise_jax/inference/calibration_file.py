"""The file in a workdir with what was fitted for its run: a temperature and thresholds."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from purenoise_jax.inference.reliability import Reliability, Scaled
from purenoise_jax.inference.temperature import Calibration
from purenoise_jax.inference.thresholds import Threshold
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.runtime.files import read_json, write_json

NAME = "calibration.json"
FITTED = "fitted"
AGAIN = "run python -m purenoise_jax.calibrate"


def write_calibration(
    workdir: Path,
    step: int,
    fitted_on: str,
    class_names: Sequence[str],
    calibration: Calibration,
    thresholds: Sequence[Threshold | None],
    shown: Scaled,
) -> Path:
    """Writes the file.

    Args:
        workdir: of the run.
        step: completed steps of the checkpoint that it is for.
        fitted_on: a description of the images.
        class_names: K names in label order.
        calibration: the temperature.
        thresholds: K thresholds, of probabilities at this temperature.
        shown: images of which the report shows the fit before and after.

    Returns:
        Its path.

    Raises:
        OSError: it cannot be written.
    """
    content = {
        "step": step,
        "fitted_on": fitted_on,
        **calibration._asdict(),
        "thresholds": [
            {"class": name, **(each._asdict() if each else {"probability": None, "images": 0})}
            for name, each in zip(class_names, thresholds, strict=True)
        ],
        "reliability": {
            "split": shown.split,
            "title": shown.title,
            "before": _to_json(shown.before),
            "after": _to_json(shown.after),
        },
    }
    write_json(workdir / NAME, content)
    return workdir / NAME


def read_scaled(workdir: Path, step: int) -> Scaled | None:
    """Reads the fit before and after scaling for a checkpoint; None if it is not there.

    It is not there if nothing was fitted for this checkpoint, or by an earlier version.

    Args:
        workdir: of the run.
        step: completed steps of the checkpoint.

    Raises:
        ConfigError: the file is damaged.
        OSError: it cannot be read.
    """
    path = workdir / NAME
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = read_json(path)
        if int(content["step"]) != step or "reliability" not in content:
            return None
        found = content["reliability"]
        return Scaled(
            str(found["split"]),
            str(found["title"]),
            float(content["temperature"]),
            *(_from_json(found[name]) for name in ("before", "after")),
        )
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged ({error}); {AGAIN} again") from None


def _to_json(fit: Reliability) -> dict[str, Any]:
    return {"bins": fit.bins.tolist(), "nll": fit.nll, "ece": fit.ece}


def _from_json(values: dict[str, Any]) -> Reliability:
    bins = np.asarray(values["bins"], np.float64)
    if bins.ndim != 2 or bins.shape[1] != 3 or not np.isfinite(bins).all():
        raise ValueError("its bins are no numbers")
    return Reliability(bins, float(values["nll"]), float(values["ece"]))


def read_temperature(workdir: Path, step: int) -> float:
    """Reads the temperature that was fitted for a checkpoint.

    Args:
        workdir: of the run.
        step: completed steps of the checkpoint.

    Raises:
        ConfigError: nothing was fitted, or for another checkpoint, or the file is damaged.
        OSError: it cannot be read.
    """
    path = workdir / NAME
    if not path.is_file():
        raise ConfigError(f"temperature={FITTED}, but {workdir} has no {NAME}; {AGAIN} first")
    try:
        content: dict[str, Any] = read_json(path)
        temperature, found = float(content["temperature"]), int(content["step"])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged ({error}); {AGAIN} again") from None
    if not (math.isfinite(temperature) and temperature > 0):
        raise ConfigError(f"{path} is damaged (temperature {temperature:g}); {AGAIN} again")
    if found != step:
        raise ConfigError(
            f"{path} is for the checkpoint of step {found:,}, and this is that of step {step:,}; "
            f"{AGAIN} again"
        )
    return temperature
