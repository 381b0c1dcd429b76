"""Loads a data set in the form that a feed needs: in memory, in one file, or still encoded."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

from purenoise_jax.data.dataset import Dataset
from purenoise_jax.data.mapped_images import MappedImages, stored
from purenoise_jax.data.original_crop import NAME
from purenoise_jax.data.sources import registry
from purenoise_jax.data.sources.download import cache_folder
from purenoise_jax.data.sources.file_splits import FileSplits, leave_in_files
from purenoise_jax.data.sources.folder import folder_files
from purenoise_jax.data.sources.lists import NO_LISTS, list_files
from purenoise_jax.data.sources.npz import load_mapped_npz, npz_bytes
from purenoise_jax.data.sources.splits import refuse_chosen_splits
from purenoise_jax.data.sources.tfds_records import leave_in_records
from purenoise_jax.runtime.errors import ConfigError


def load_for(
    feed: str,
    source: str,
    room: int | None = None,
    *,
    skips_bad: bool = False,
    crops: bool = False,
    **options: Any,
) -> Dataset:
    """Loads a data set, with its images where a feed reads them.

    Args:
        feed: one of `data.feed.FEEDS`. "auto" is "resident" if all images fit, otherwise "mapped",
            which are the same run; "decoded" is another.
        source: a key of `SOURCES`.
        room: bytes that images may take on a device; None = it shares the memory of this machine.
        skips_bad: see `DecodedImages`.
        crops: the training images are random crops of the stored ones, which need "decoded".
        **options: of `registry.load`.

    Raises:
        ConfigError: a field is not legal, or the source has no encoded images.
        DataError: the data set is missing, damaged, of the wrong shape or mislabelled.
        StorageError: a file of the cache cannot be written.
    """
    decodable = [name for name, form in IN_FILES.items() if "decoded" in form.loaders]
    if crops:
        if source not in decodable:
            raise ConfigError(
                f"data.augment has {NAME}, which crops images where they are decoded, but "
                f"data.source={source} has no encoded images; legal: data.source="
                f"{' or '.join(decodable)}, or resized_crop in its place"
            )
        if feed not in ("auto", "decoded"):
            raise ConfigError(
                f"data.augment has {NAME}, which crops images where they are decoded, but "
                f"data.feed={feed}; legal: auto, decoded, or resized_crop in its place"
            )
        if not options.get("image_size"):
            raise ConfigError(f"data.augment has {NAME}, so data.image_size=0 is not legal")
        feed = "decoded"
    # Half, because parameters and activations need room as well.
    most = (_memory() if room is None else room) // 2
    in_file = IN_FILES.get(source)
    if feed == "auto" and in_file is not None:
        size = in_file.size(options)
        if size is not None:
            feed = "resident" if size <= most else "mapped"
    if in_file is not None and feed in in_file.loaders:
        return in_file.loaders[feed]({**options, "skips_bad": skips_bad, "crops": crops})
    if feed == "decoded":
        raise ConfigError(
            f"data.feed=decoded reads encoded images, which data.source={source} has not; legal: "
            f"auto, resident or mapped, or one of the sources {', '.join(decodable)}"
        )
    dataset = registry.load(source, **options)
    splits = (dataset.train_images, dataset.test_images, dataset.val_images)
    if feed == "auto":
        size = sum(images.nbytes for images in splits if images is not None)
        feed = "resident" if size <= most else "mapped"
    return in_cache(dataset) if feed == "mapped" else dataset


def in_cache(dataset: Dataset, name: str = "") -> Dataset:
    """The same data set with its images in files of the cache; see `mapped_images.stored`.

    Args:
        dataset: with images anywhere.
        name: identifies its images; "" = the sha256 of those of each split.
    """

    def of(split: str, images: Any) -> Any:
        if isinstance(images, MappedImages):
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
        size: (options of `registry.load`) -> bytes of all images in memory, without reading them;
            None = not known.
        loaders: feed -> (options, `skips_bad` and `crops`) -> data set; other feeds load by
            `registry.load`.
    """

    size: Callable[[dict[str, Any]], int | None]
    loaders: dict[str, Callable[[dict[str, Any]], Dataset]]


def _mapped_npz(options: dict[str, Any]) -> Dataset:
    if options.get("image_size"):
        resized = {k: v for k, v in options.items() if k not in ("skips_bad", "crops")}
        return in_cache(registry.load("npz", **resized))
    refuse_chosen_splits("data.source=npz", options["train_split"], options["test_split"])
    return in_cache(load_mapped_npz(options["path"]))


def _npz_bytes(options: dict[str, Any]) -> int | None:
    return None if options.get("image_size") else npz_bytes(options["path"])


def _from_files(listed: Callable[[dict[str, Any]], FileSplits]) -> InFiles:
    """A source of image files: (options) -> the files."""

    def size(options: dict[str, Any]) -> int:
        # At their stored size, it is not known without reading them.
        side = options.get("image_size", 0)
        return listed(options).num_bytes(side) if side and options["path"] else 0

    def decoded(options: dict[str, Any]) -> Dataset:
        return leave_in_files(
            listed(options),
            options.get("image_size", 0),
            options.get("skips_bad", False),
            options.get("crops", False),
        )

    def mapped(options: dict[str, Any]) -> Dataset:
        """Decodes each image once, into the cache."""
        dataset = decoded({**options, "skips_bad": False})
        name = f"{dataset.content}-{options.get('image_size', 0)}"
        return dataclasses.replace(in_cache(dataset, name), content="")

    return InFiles(size, {"mapped": mapped, "decoded": decoded})


def _of_folder(options: dict[str, Any]) -> FileSplits:
    return folder_files(options["path"], options["train_split"], options["test_split"])


def _of_list(options: dict[str, Any]) -> FileSplits:
    refuse_chosen_splits("data.source=list", options["train_split"], options["test_split"])
    return list_files(options["name"], options["path"], options.get("lists", NO_LISTS))


def _of_records(options: dict[str, Any]) -> Dataset:
    return leave_in_records(**{k: v for k, v in options.items() if k != "lists"})


IN_FILES = {
    "npz": InFiles(_npz_bytes, {"mapped": _mapped_npz}),
    "folder": _from_files(_of_folder),
    "list": _from_files(_of_list),
    # Other feeds need all records in memory once.
    "tfds": InFiles(lambda options: None, {"decoded": _of_records}),
}


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
