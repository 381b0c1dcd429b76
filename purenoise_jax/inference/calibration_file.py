"""The file in a workdir with the temperature and the thresholds that were fitted for its run."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
) -> Path:
    """Writes the file.

    Args:
        workdir: of the run.
        step: completed steps of the checkpoint that it is for.
        fitted_on: a description of the images.
        class_names: K names in label order.
        calibration: the temperature.
        thresholds: K thresholds, of probabilities at this temperature.

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
    }
    write_json(workdir / NAME, content)
    return workdir / NAME


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
