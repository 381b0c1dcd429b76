"""Leaves the images of a prepared TFDS data set in their records, which are read at every step."""

import dataclasses
import hashlib
from typing import Any

from purenoise_jax.data.dataset import Dataset
from purenoise_jax.data.decoded_images import DecodedImages
from purenoise_jax.data.manifest import Entries, Entry, Manifest, Splits, find_manifest
from purenoise_jax.data.progress import progress
from purenoise_jax.data.sources.decode import Decoded
from purenoise_jax.data.sources.download import cache_folder
from purenoise_jax.data.sources.tfds import dataset_of, decode_example, id_of
from purenoise_jax.data.sources.tfds_prepared import INFO_FILE, Prepared, first_line
from purenoise_jax.data.view import View
from purenoise_jax.runtime.errors import DataError, all_faults
from purenoise_jax.runtime.files import read_bytes
from purenoise_jax.runtime.threads import in_order

FORMAT = "array_record"


class Records:
    """A `Store` of records, named `split[i]` by their place in the files of their split.

    Args:
        prepared: the data set.

    Raises:
        DataError: it is not in the format array_record, or its files lack examples.
    """

    def __init__(self, prepared: Prepared) -> None:
        import tensorflow_datasets as tfds

        info = prepared.builder.info
        if info.file_format.value != FORMAT:
            raise DataError(
                f"{prepared.folder}: data.feed=decoded reads {FORMAT}, and this data set is in "
                f"{info.file_format.value}; use data.feed=mapped, or prepare it with "
                f"--file_format={FORMAT}"
            )
        self.root, self.channels = prepared.folder, 1 if prepared.channels == 1 else 3
        self._prepared = prepared
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        try:
            # Their readers may be shared by threads.
            self._sources = {
                split: prepared.examples(split, deserialize_method=raw) for split in prepared.splits
            }
        except DataError:
            raise
        # All errors, because the reader of the format has its own for damaged files.
        except Exception as error:
            raise DataError(f"{self.root}: cannot be read ({first_line(error)})") from error

    def __len__(self) -> int:
        return sum(map(len, self._sources.values()))

    def names(self, split: str) -> list[str]:
        """The names of all records of a split, in the order of its files."""
        return [f"{split}[{i}]" for i in range(len(self._sources[split]))]

    def read(self, path: str) -> bytes:
        """See `Store.read`."""
        split, _, number = path.rstrip("]").rpartition("[")
        try:
            record: bytes = self._sources[split][int(number)]
        except Exception as error:
            raise OSError(first_line(error)) from error
        return record

    def decode(self, data: bytes) -> Decoded:
        """See `Store.decode`."""
        return decode_example(self._prepared, self.example(data))

    def example(self, data: bytes) -> dict[str, Any]:
        """The features of a record.

        Raises:
            DataError: it is damaged.
        """
        features = self._prepared.builder.info.features
        try:
            found: dict[str, Any] = features.deserialize_example_np(
                data, decoders=self._prepared.decoders()
            )
        except Exception as error:
            raise DataError(f"is no example of the data set ({first_line(error)})") from error
        return found

    def entry(self, path: str) -> tuple[Entry, bytes | None]:
        """The entry of a record in a manifest, and its `id`.

        Raises:
            DataError: it cannot be read; the message names it.
        """
        try:
            data = self.read(path)
            example = self.example(data)
        except (OSError, DataError) as error:
            raise DataError(f"{path}: cannot be read ({error})") from error
        label = int(example[self._prepared.label_key])
        return Entry(path, len(data), label, hashlib.sha256(data).hexdigest()), id_of(example)


def leave_in_records(prepared: Prepared, view: View, skips_bad: bool = False) -> Dataset:
    """Loads what `load_tfds` does, in its order, but leaves the images in their records.

    Args:
        prepared: the data set.
        view: of the stored images; random crops are only those of the training images.
        skips_bad: see `DecodedImages`.

    Raises:
        DataError: see `load_tfds`; or the data set is not in the format array_record.
        StorageError: the cache cannot be written.
    """
    manifest = _manifest(prepared, Records(prepared))
    plain = dataclasses.replace(view, crop="")
    splits = {}
    for split, entries in manifest.splits.items():
        own = view if split == prepared.train else plain
        images = DecodedImages(manifest, entries, own, skips_bad)
        # Whether the samples of 16 bits fill them is seen in a whole split only.
        images.histograms()
        splits[split] = images, entries.labels
    return dataclasses.replace(dataset_of(prepared, splits), content=manifest.digest)


def _manifest(prepared: Prepared, records: Records) -> Manifest:
    def make(_kept: Splits) -> tuple[Splits, list[str]]:
        made: Splits = {}
        faults: list[str] = []

        def read(path: str) -> tuple[Entry, bytes | None] | str:
            try:
                return records.entry(path)
            except DataError as error:
                return str(error)

        paths = (path for split in prepared.splits for path in records.names(split))
        found = iter(progress(in_order(read, paths), "checksums", len(records)))
        for split in prepared.splits:
            rows = []
            for _ in records.names(split):
                row = next(found)
                if isinstance(row, str):
                    faults.append(row)
                else:
                    rows.append(row)
            if all(number is not None for _, number in rows):
                rows.sort(key=lambda row: row[1] or b"")
            made[split] = Entries(entry for entry, _ in rows)
        if faults:
            raise all_faults(prepared.folder, faults)
        return made, []

    def is_current(kept: Splits) -> bool:
        lengths = {split: len(records.names(split)) for split in prepared.splits}
        return {split: len(rows) for split, rows in kept.items()} == lengths

    features = (prepared.image_key, prepared.label_key)
    # It has the number of bytes of every split, so it changes with the examples.
    info = hashlib.sha256(read_bytes(prepared.folder / INFO_FILE)).hexdigest()
    key = f"{sorted(prepared.splits)} {features} {info}"
    return find_manifest(records, key, cache_folder(), is_current, make)
