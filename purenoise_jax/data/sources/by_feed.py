"""Loads a data set in the form that a feed needs: in memory, in one file, or still encoded."""

import dataclasses
import hashlib
import os
from collections.abc import Callable
from typing import Any

from purenoise_jax.data.dataset import Dataset
from purenoise_jax.data.mapped_images import MappedImages, stored
from purenoise_jax.data.sources import registry
from purenoise_jax.data.sources.download import cache_folder
from purenoise_jax.data.sources.file_splits import (
    FileSplits,
    leave_in_files,
    read_all,
    without_bad,
)
from purenoise_jax.data.sources.folder import folder_files
from purenoise_jax.data.sources.lists import NO_LISTS, list_files
from purenoise_jax.data.sources.npz import load_mapped_npz, npz_bytes
from purenoise_jax.data.sources.resize import SQUASH
from purenoise_jax.data.sources.splits import refuse_chosen_splits
from purenoise_jax.data.sources.tfds_prepared import open_prepared
from purenoise_jax.data.sources.tfds_records import leave_in_records
from purenoise_jax.data.sources.tiered_imagenet import tiered_imagenet_files
from purenoise_jax.data.sources.tiny_imagenet import tiny_imagenet_files
from purenoise_jax.data.sources.where import where
from purenoise_jax.data.view import View
from purenoise_jax.runtime.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Reading:
    """Options of sources whose images are files.

    Attributes:
        skips_bad: files that cannot be read are left out, see `read_all` and `DecodedImages`.
        crop: see `View`; "decoded" images only.
        resize_shorter: `View.shorter`.
    """

    skips_bad: bool = False
    crop: str = ""
    resize_shorter: int = 0


Options = dict[str, Any]


def load_for(
    feed: str,
    source: str,
    room: int | None = None,
    *,
    skips_bad: bool = False,
    crop: str = "",
    resize_shorter: int = 0,
    **options: Any,
) -> Dataset:
    """Loads a data set, with its images where a feed reads them.

    Args:
        feed: one of `data.feed.FEEDS`. "auto" is "resident" if all images fit, otherwise "mapped",
            which are the same run; "decoded" is another.
        source: a key of `SOURCES`.
        room: bytes that images may take on a device; None = it shares the memory of this machine.
        skips_bad: see `Reading`.
        crop: see `Reading`.
        resize_shorter: see `Reading`.
        **options: of `registry.load`.

    Raises:
        ConfigError: a field is not legal, or the source has no encoded images.
        DataError: the data set is missing, damaged, of the wrong shape or mislabelled.
        StorageError: a file of the cache cannot be written.
    """
    reading = Reading(skips_bad, crop, resize_shorter)
    if source in registry.SOURCES and source not in _WITHOUT_PATH and not options["path"]:
        name = options["name"]
        if place := where(name):
            raise ConfigError(f"data.path is empty: give the place of the files of {name}{place}")
    if crop:
        feed = _feed_of_crops(feed, source, reading, options)
    _refuse_idle(feed, source, reading, options)
    # Half, because parameters and activations need room as well.
    most = (_memory() if room is None else room) // 2
    in_file = IN_FILES.get(source)
    if feed == "auto" and in_file is not None:
        size = in_file.size(options, reading)
        if size is not None:
            feed = "resident" if size <= most else "mapped"
    if in_file is not None and feed in in_file.loaders:
        return in_file.loaders[feed](options, reading)
    if feed == "decoded":
        raise ConfigError(
            f"data.feed=decoded reads encoded images, which data.source={source} has not; legal: "
            f"auto, resident or mapped, or one of the sources {', '.join(DECODABLE)}"
        )
    dataset = registry.load(source, **options)
    splits = (dataset.train_images, dataset.test_images, dataset.val_images)
    if feed == "auto":
        size = sum(images.nbytes for images in splits if images is not None)
        feed = "resident" if size <= most else "mapped"
    return in_cache(dataset) if feed == "mapped" else dataset


def _feed_of_crops(feed: str, source: str, reading: Reading, options: Options) -> str:
    """The feed of images that are cropped at random where they are decoded."""
    crops = f"data.augment has {reading.crop}"
    if source not in DECODABLE:
        raise ConfigError(
            f"{crops}, which crops images where they are decoded, but "
            f"data.source={source} has no encoded images; legal: data.source="
            f"{' or '.join(DECODABLE)}, or resized_crop in its place"
        )
    if feed not in ("auto", "decoded"):
        raise ConfigError(
            f"{crops}, which crops images where they are decoded, but "
            f"data.feed={feed}; legal: auto, decoded, or resized_crop in its place"
        )
    if not options.get("image_size"):
        raise ConfigError(f"{crops}, so data.image_size=0 is not legal")
    return "decoded"


def _refuse_idle(feed: str, source: str, reading: Reading, options: Options) -> None:
    """Refuses options that the source would not use."""
    is_encoded = source in FILE_SOURCES or (source in DECODABLE and feed == "decoded")
    if reading.resize_shorter and not is_encoded:
        raise ConfigError(
            f"data.resize_shorter={reading.resize_shorter} is for image files, which data.source="
            f"{source} has not; legal: 0, or one of the sources {', '.join(FILE_SOURCES)}"
        )


def in_cache(dataset: Dataset, name: str = "") -> Dataset:
    """The same data set with its images in files of the cache; see `mapped_images.stored`.

    Args:
        dataset: with images anywhere.
        name: identifies its images; "" = the sha256 of those of each split.
    """

    def of(split: str, images: Any) -> Any:
        if isinstance(images, MappedImages) or not len(images):
            return images
        return stored(images, cache_folder(), f"{name}-{split}" if name else "")

    val = dataset.val_images
    return dataclasses.replace(
        dataset,
        train_images=of("train", dataset.train_images),
        test_images=of("test", dataset.test_images),
        val_images=None if val is None else of("val", val),
    )


@dataclasses.dataclass(frozen=True)
class InFiles:
    """A source that can leave its images in files.

    Attributes:
        size: (options of `registry.load`, reading) -> bytes of all images in memory, without
            reading them; None = not known.
        loaders: feed -> (options, reading) -> data set; other feeds load by `registry.load`.
    """

    size: Callable[[Options, Reading], int | None]
    loaders: dict[str, Callable[[Options, Reading], Dataset]]


def _mapped_npz(options: Options, reading: Reading) -> Dataset:
    if options.get("image_size"):
        return in_cache(registry.load("npz", **options))
    refuse_chosen_splits("data.source=npz", options["train_split"], options["test_split"])
    return in_cache(load_mapped_npz(options["path"]))


def _npz_bytes(options: Options, reading: Reading) -> int | None:
    return None if options.get("image_size") else npz_bytes(options["path"])


def _view(options: Options, reading: Reading) -> View:
    side, how = options.get("image_size", 0), options.get("resize", SQUASH)
    return View(side, reading.resize_shorter, reading.crop, how)


def _from_files(listed: Callable[[Options, Reading], FileSplits]) -> InFiles:
    """A source of image files: (options, reading) -> the files."""

    def size(options: Options, reading: Reading) -> int:
        # At their stored size, it is not known without reading them.
        side = options.get("image_size", 0)
        return listed(options, reading).num_bytes(side) if side and options["path"] else 0

    def resident(options: Options, reading: Reading) -> Dataset:
        return read_all(listed(options, reading), _view(options, reading), reading.skips_bad)

    def decoded(options: Options, reading: Reading) -> Dataset:
        return leave_in_files(listed(options, reading), _view(options, reading), reading.skips_bad)

    def mapped(options: Options, reading: Reading) -> Dataset:
        """Decodes each image once, into the cache."""
        dataset = without_bad(decoded(options, reading))
        name = f"{dataset.content}-{_view(options, reading).name}"
        if dataset.left_out:
            lines = "\n".join(dataset.left_out).encode("utf-8", "surrogateescape")
            name += f"-{hashlib.sha256(lines).hexdigest()[:16]}"
        return dataclasses.replace(in_cache(dataset, name), content="")

    return InFiles(size, {"resident": resident, "mapped": mapped, "decoded": decoded})


def _of_folder(options: Options, reading: Reading) -> FileSplits:
    files = folder_files(options["path"], options["train_split"], options["test_split"])
    # Here alone, because labels of lists are numbers of the user's, or published ones.
    return files.without_unlisted_classes() if reading.skips_bad else files


def _of_list(options: Options, reading: Reading) -> FileSplits:
    refuse_chosen_splits("data.source=list", options["train_split"], options["test_split"])
    return list_files(options["name"], options["path"], options.get("lists", NO_LISTS))


def _of_tiny(options: Options, reading: Reading) -> FileSplits:
    splits = (options["train_split"], options["test_split"])
    refuse_chosen_splits("data.source=tiny_imagenet", *splits)
    return tiny_imagenet_files(options["path"])


def _of_tiered(options: Options, reading: Reading) -> FileSplits:
    return tiered_imagenet_files(options["path"], options["train_split"], options["test_split"])


def _of_records(options: Options, reading: Reading) -> Dataset:
    prepared = open_prepared(
        options["name"], options["path"], options["train_split"], options["test_split"]
    )
    return leave_in_records(prepared, _view(options, reading), reading.skips_bad)


FILE_SOURCES = {
    "folder": _of_folder,
    "list": _of_list,
    "tiny_imagenet": _of_tiny,
    "tiered_imagenet": _of_tiered,
}
IN_FILES = {
    "npz": InFiles(_npz_bytes, {"mapped": _mapped_npz}),
    **{source: _from_files(listed) for source, listed in FILE_SOURCES.items()},
    # Other feeds have all records in memory once.
    "tfds": InFiles(lambda options, reading: None, {"decoded": _of_records}),
}
DECODABLE = [source for source, form in IN_FILES.items() if "decoded" in form.loaders]
_WITHOUT_PATH = ("auto", "tfds", "digits")


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
