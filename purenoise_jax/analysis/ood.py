"""Out-of-distribution images: test images of a data set that the network was not trained on."""

from pathlib import Path
from typing import Any

import numpy as np

from purenoise_jax.analysis.figure_style import Options
from purenoise_jax.data.host_images import Images
from purenoise_jax.data.sources.cifar import LAYOUTS
from purenoise_jax.data.sources.registry import load
from purenoise_jax.inference.runs import Run
from purenoise_jax.runtime.errors import ConfigError, DataError
from purenoise_jax.runtime.paths import expand

# The classes of the two are disjoint (Krizhevsky 2009).
OTHER = {"cifar10": "cifar100", "cifar100": "cifar10"}
HOLDS_CIFAR = ("auto", "cifar_dir", "tfds")
NONE = "none"


def ood_images(run: Run, options: Options) -> Images:
    """Reads the test images of the out-of-distribution data set of a figure.

    Without `options.ood_name` this is the other CIFAR, as in the papers. It is read like the run's
    own data: from the same folder, from the folder above it, or from the same source. A named data
    set is at `options.ood_path`: an .npz file, a folder with `test/<class>/` images, CIFAR files,
    or otherwise a prepared TFDS data set.

    Args:
        run: the run whose network will classify them.
        options: `ood_name` and `ood_path` are used. The name "none" stands for no images.

    Returns:
        uint8[M, H, W, C], the shape of the run's own images; M is 0 for "none".

    Raises:
        ConfigError: no data set is named, and the run's data set has no counterpart.
        DataError: the data set is missing or damaged, or has images of another shape.
    """
    shape = run.experiment.training.stats.image_shape
    if options.ood_name == NONE:
        return np.zeros((0, *shape), np.uint8)
    images = _load(run, options)
    if images.shape[1:] != shape:
        raise DataError(
            f"out-of-distribution images are {_times(images.shape[1:])}, but the images of "
            f"{run.path} are {_times(shape)}"
        )
    return images


def _load(run: Run, options: Options) -> Images:
    data = run.config.data
    size: dict[str, Any] = {"image_size": data.image_size, "resize": data.resize}
    default = OTHER.get(data.name, "") if data.source in HOLDS_CIFAR else ""
    name = options.ood_name or default
    if not name and not options.ood_path:
        raise ConfigError(
            "there is no default out-of-distribution data set for this run's data "
            f"(source {data.source!r}): give --ood and --ood_data, or --ood {NONE}"
        )
    if options.ood_path or name not in LAYOUTS:
        path = expand(options.ood_path, "--ood_data")
        source = _source(name, path)
        if source == "auto" and not name:
            raise ConfigError(f"--ood is missing: the name of the data set at {path}")
        location = options.ood_path and str(path)
        return load(source, name=name, path=location, **size).test_images
    if not data.path or data.source == "tfds":
        return load(data.source, name=name, path=data.path, **size).test_images
    own = expand(data.path, "data.path").resolve()
    missing = []
    for path in (own, own.parent):
        try:
            return load("cifar_dir", name=name, path=str(path)).test_images
        except DataError as error:
            missing.append(str(error))
    raise DataError(f"no out-of-distribution images ({'; '.join(missing)}): give --ood_data")


def _source(name: str, path: Path) -> str:
    if name == "digits":
        return "digits"
    if path.suffix == ".npz":
        return "npz"
    if (path / "test").is_dir() and (path / "train").is_dir():
        return "folder"
    return "auto"


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
