"""Images that are decoded where a step needs them."""

import contextlib
import hashlib
from collections.abc import Iterator

import numpy as np

from purenoise_jax.data.host_images import HostImages, channel_histograms
from purenoise_jax.data.manifest import Entries, Entry, Manifest, write_kept
from purenoise_jax.data.original_crop import Draws
from purenoise_jax.data.progress import progress
from purenoise_jax.data.sources.decode import depth_fault
from purenoise_jax.data.view import WHOLE, View
from purenoise_jax.runtime.errors import DataError, all_faults
from purenoise_jax.runtime.files import read_json
from purenoise_jax.runtime.threads import in_order


class DecodedImages(HostImages):
    """Images `uint8[N, H, W, C]` of one size, encoded, that a manifest lists.

    Args:
        manifest: with which every image is compared when it is read.
        entries: of it, at least one.
        view: of the stored images. Without a size, they must all have the same.
        skips_bad: images that cannot be read are left out of the statistics.
        image_shape: (H, W, C); None = that of the first image, or of the first that can be read.
        chosen: int[N], the entries of the images in their order; None = all.

    Raises:
        DataError: the shape is to be that of an image which cannot be read.
    """

    def __init__(
        self,
        manifest: Manifest,
        entries: Entries,
        view: View = WHOLE,
        skips_bad: bool = False,
        image_shape: tuple[int, int, int] | None = None,
        chosen: np.ndarray | None = None,
    ) -> None:
        self._manifest, self._all = manifest, entries
        self._chosen = np.arange(len(entries)) if chosen is None else chosen
        self._view, self._skips_bad = view, skips_bad
        self._looked: tuple[np.ndarray, dict[int, str], str] | None = None
        if view.side:
            image_shape = (view.side, view.side, manifest.store.channels)
        super().__init__((len(self._chosen), *(image_shape or self._first_shape())))

    def read(
        self, index: np.ndarray, out: np.ndarray, draws: Draws | None = None
    ) -> list[tuple[int, str]]:
        """Reads and decodes images; see `HostImages.read`."""
        faults = []
        for row, place in enumerate(self._chosen[index].tolist()):
            try:
                generator = draws.of(row) if draws is not None and self._view.crop else None
                out[row] = self._read_one(self._all[place], generator)[0]
            except DataError as error:
                out[row] = 0
                faults.append((row, str(error)))
        return faults

    def subset(self, index: np.ndarray) -> "DecodedImages":
        """These images in this order; see `HostImages.subset`."""
        settings = (self._view, self._skips_bad, self.shape[1:], self._chosen[index])
        return DecodedImages(self._manifest, self._all, *settings)

    def digests(self) -> np.ndarray:
        """Eight bytes of the sha256 of every file or record, uint64[N]; no file is read."""
        return np.array([int(entry.sha256[:16], 16) for entry in self._entries()], np.uint64)

    def histograms(self) -> np.ndarray:
        """See `HostImages.histograms`; measured once, and kept beside the manifest.

        Raises:
            DataError: images cannot be read; the message names the first few. If damaged images
                are left out: none can be read.
        """
        counts, faults, depth = self._look()
        if depth:
            raise DataError(f"{self._manifest.store.root}: {depth}")
        if faults and not self._skips_bad:
            raise all_faults(self._manifest.store.root, [*faults.values()])
        if faults and len(faults) == len(self):
            raise DataError(f"{self._manifest.store.root}: none of {len(self)} images can be read")
        return counts

    def faults(self) -> tuple[dict[int, str], str]:
        """Returns one line about each image that cannot be read, by its place, and one about all.

        Images that were all read before are not read again.
        """
        return self._look()[1:]

    def _look(self) -> tuple[np.ndarray, dict[int, str], str]:
        """Histograms of the images that can be read, and the `faults`."""
        if self._looked is not None:
            return self._looked
        key = hashlib.sha256(self._view.name.encode())
        for entry in self._entries():
            key.update(f"\n{entry.sha256}".encode())
        file = self._manifest.file.with_suffix(f".{key.hexdigest()[:32]}.json")
        with contextlib.suppress(OSError, ValueError, TypeError, OverflowError):
            kept = np.array(read_json(file), np.int64)
            shape, values = (self.shape[3], 256), self.size // self.shape[3]
            if kept.shape == shape and (kept.sum(1) == values).all():
                self._looked = kept, {}, ""
                return self._looked
        total = np.zeros((self.shape[3], 256), np.int64)
        faults: dict[int, str] = {}
        samples: list[int] = []
        measured = in_order(self._measured, self._entries())
        for place, (counts, largest, fault) in enumerate(
            progress(measured, "channel statistics", len(self))
        ):
            total += counts
            faults |= {place: fault} if fault else {}
            samples += [] if largest is None else [largest]
        depth = depth_fault(max(samples)) if samples else ""
        if not (faults or depth):
            write_kept(file, total.tolist())
        self._looked = total, faults, depth
        return self._looked

    def _entries(self) -> Iterator[Entry]:
        return (self._all[place] for place in self._chosen.tolist())

    def _first_shape(self) -> tuple[int, int, int]:
        if self._skips_bad:
            for entry in self._entries():
                with contextlib.suppress(DataError):
                    return self._decoded(entry)[0].shape
        return self._decoded(next(self._entries()))[0].shape

    def _measured(self, entry: Entry) -> tuple[np.ndarray, int | None, str]:
        """Histograms of an image, its largest sample if it has 16 bits, and its fault, or ""."""
        try:
            pixels, largest = self._read_one(entry)
        except DataError as error:
            return np.zeros((self.shape[3], 256), np.int64), None, str(error)
        return channel_histograms(pixels[None]), largest, ""

    def _read_one(
        self, entry: Entry, generator: np.random.Generator | None = None
    ) -> tuple[np.ndarray, int | None]:
        pixels, largest = self._decoded(entry, generator)
        if pixels.shape != self.shape[1:]:
            size, first = (" x ".join(map(str, s[:2])) for s in (pixels.shape, self.shape[1:]))
            raise DataError(
                f"{self._manifest.place(entry)}: is {size} but the first image is {first}; "
                "set data.image_size to resize all images"
            )
        return pixels, largest

    def _decoded(
        self, entry: Entry, generator: np.random.Generator | None = None
    ) -> tuple[np.ndarray, int | None]:
        data = self._manifest.read(entry)
        try:
            decoded = self._manifest.store.decode(data)
        except DataError as error:
            raise DataError(f"{self._manifest.place(entry)}: {error}") from error
        return self._view(decoded.pixels, generator), decoded.largest
