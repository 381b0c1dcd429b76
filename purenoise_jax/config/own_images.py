"""Settings for a user's own images, from their number and size.

The settings depend on the images alone, not on the machine, so that a command describes the same
run everywhere. On a CPU that needs long for it the header offers a smaller network, see
`training/cost.py`.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from purenoise_jax.data.sources.decode import FORMATS
from purenoise_jax.data.sources.file_splits import FileSplits
from purenoise_jax.data.sources.folder import folder_files
from purenoise_jax.data.sources.lists import NO_LISTS, Lists, list_files
from purenoise_jax.data.sources.npz import npz_shapes
from purenoise_jax.runtime.errors import ConfigError, DataError
from purenoise_jax.runtime.files import open_plain
from purenoise_jax.runtime.paths import expand

LISTS = (".csv", ".txt")
# Files whose size is looked at.
SAMPLE = 32
# Sides that stored images are resized to.
SIDES = (32, 64, 128, 224)
# With fewer images than the first number, a side of at most the second: few images do not teach
# small details, and small images take less time.
SIDE_BY_IMAGES = ((1_000, 64), (10_000, 128))
# Images with a smaller side have a network for small images.
LARGE_SIDE = 64
# Below so many images, this network.
SMALL_NETWORKS = ((1_000, "resnet8"), (10_000, "resnet20"), (50_000, "resnet32"))
LARGE_NETWORKS = ((10_000, "resnet10"), (100_000, "resnet18"), (500_000, "resnet34"))
LARGEST = {"small": "wrn16_4", "large": "resnet50"}
# An epoch has at least so many steps, as far as the smallest batch allows.
STEPS = 10
BATCHES = (16, 32, 64, 128)
# Steps of a run, as far as the least and most epochs allow.
RUN_STEPS, EPOCHS = 6_000, (30, 200)
# Learning rate of the papers, with batches of 128.
RATE, RATE_BATCH = 0.1, 128


@dataclasses.dataclass(frozen=True)
class OwnImages:
    """Images that a path leads to, as far as the settings depend on them.

    Attributes:
        fields: of `data` that say where they are, without "data.".
        images: number of training images.
        height: of the images in pixels; of files the median of some.
        width: as `height`.
        channels: 1 or 3.
        in_files: they lie in image files, which may differ in size.
        measured: there are test or validation images.
    """

    fields: dict[str, Any]
    images: int
    height: int
    width: int
    channels: int = 3
    in_files: bool = True
    measured: bool = True


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings that fit images.

    Attributes:
        image_size: side to resize to; 0 = as stored.
        model: name of the network.
        batch_size: images a step.
        learning_rate: after the warm-up.
        epochs: of the training.
        augment: names of augmentations.
        crop_padding: of "crop", in pixels.
        cutout_size: of "cutout", in pixels.
    """

    image_size: int
    model: str
    batch_size: int
    learning_rate: float
    epochs: int
    augment: tuple[str, ...]
    crop_padding: int
    cutout_size: int


def find_images(
    path: str,
    *,
    root: str = "",
    test: str = "",
    val: str = "",
    path_column: str = NO_LISTS.path_column,
    label_column: str = NO_LISTS.label_column,
) -> OwnImages:
    """Finds out what a path leads to; no image is decoded.

    Args:
        path: a folder with `train/<class>/`, or with class folders; an .npz file; or a list of
            training images, .csv or .txt.
        root: of a list, the folder below which its images lie; "" = the folder of the list.
        test: of a list, the list of test images; "" = none.
        val: of a list, the list of validation images; "" = none.
        path_column: of a list that is a table, see `Lists`.
        label_column: of a list that is a table, see `Lists`.

    Raises:
        ConfigError: the path is missing, or of another kind; or lists are given without a list.
        DataError: the images cannot be listed.
    """
    if not path:
        raise ConfigError(
            "config argument path is missing: a folder, an .npz file or a list, as in "
            "images:path=photos"
        )
    place = expand(path, "config argument path")
    suffix = place.suffix.lower()
    if not place.exists():
        raise DataError(f"config argument path={path}: there is no such file or folder")
    if place.is_dir() or suffix not in LISTS:
        for name, value in (("root", root), ("test", test), ("val", val)):
            if value:
                raise ConfigError(
                    f"config argument {name}={value} is used only with a list, but path={path}"
                )
    if place.is_dir():
        return _in_files({"source": "folder", "path": path}, folder_files(path))
    if suffix == ".npz":
        return _in_npz(path)
    if suffix not in LISTS:
        raise ConfigError(
            f"config argument path={path} is not legal; legal: a folder, an .npz file, or a list "
            f"of training images, {' or '.join(LISTS)}"
        )
    fields = {
        "source": "list",
        # Sets with published lists have names; this is none of them.
        "name": "images",
        "path": root or str(place.parent),
        "train_list": path,
        "test_list": test,
        "val_list": val,
        "path_column": path_column,
        "label_column": label_column,
    }
    lists = Lists(path, val, test, path_column, label_column)
    return _in_files(fields, list_files("images", fields["path"], lists))


def fit(own: OwnImages, image_size: int = 0) -> Settings:
    """Returns the settings for images.

    Args:
        own: from `find_images`.
        image_size: side to resize to; 0 = fits, too.
    """
    count, side = own.images, min(own.height, own.width)
    if image_size:
        side = image_size
    elif own.in_files:
        most = _first_above(SIDE_BY_IMAGES, count, SIDES[-1])
        side = max([each for each in SIDES if each <= min(side, most)], default=SIDES[0])
        image_size = side
    large = side >= LARGE_SIDE
    networks, kind = (LARGE_NETWORKS, "large") if large else (SMALL_NETWORKS, "small")
    batch = max([each for each in BATCHES if each * STEPS <= count], default=BATCHES[0])
    epochs = round(RUN_STEPS / -(-count // batch), -1)
    colours = () if own.channels == 1 else ("simclr_scaled" if large else "simclr",)
    return Settings(
        image_size=image_size,
        model=_first_above(networks, count, LARGEST[kind]),
        batch_size=batch,
        learning_rate=RATE * batch / RATE_BATCH,
        epochs=int(min(max(epochs, EPOCHS[0]), EPOCHS[1])),
        augment=(*(("flip", "resized_crop") if large else ("flip", "crop", "cutout")), *colours),
        # As with 32 x 32 images in the papers.
        crop_padding=max(side // 8, 1),
        cutout_size=max(side // 2, 2),
    )


def _first_above(table: Sequence[tuple[int, Any]], count: int, otherwise: Any) -> Any:
    """Returns the value beside the first number that is above a count."""
    return next((value for limit, value in table if count < limit), otherwise)


def _in_files(fields: dict[str, Any], files: FileSplits) -> OwnImages:
    paths = [path for path, _ in files.splits[files.train]]
    height, width = np.median([*map(_size, _spread(paths))] or [(0, 0)], axis=0)
    measured = len(files.splits) > 1
    return OwnImages(fields, len(paths), int(height), int(width), measured=measured)


def _spread(paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Returns at most `SAMPLE` files, at even distances, so that all classes are among them."""
    places = np.linspace(0, len(paths) - 1, min(SAMPLE, len(paths))).round().astype(int)
    return [paths[i] for i in places]


def _size(path: pathlib.Path) -> tuple[int, int]:
    """Returns height and width of an image; those of the smallest side if it cannot be read.

    Such an image is reported when it is read for training.
    """
    try:
        with open_plain(path) as file, Image.open(file, formats=FORMATS) as image:
            return image.height, image.width
    except Exception:
        return SIDES[0], SIDES[0]


def _in_npz(path: str) -> OwnImages:
    shapes = npz_shapes(path)
    shape = shapes.get("train_images", ())
    measured = not shapes.keys().isdisjoint(("test_images", "val_images"))
    # Anything else is refused where the file is read.
    count, height, width = shape[:3] if len(shape) in (3, 4) else (1, SIDES[0], SIDES[0])
    channels = shape[3] if len(shape) == 4 else 1
    fields = {"source": "npz", "path": path}
    return OwnImages(fields, count, height, width, channels, False, measured)
