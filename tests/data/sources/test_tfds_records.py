"""TFDS records that are decoded at every read: the images of the TFDS source; every damage is found."""

import hashlib
import io
import json
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from purenoise_jax.data.decoded_images import DecodedImages
from purenoise_jax.data.original_crop import Draws
from purenoise_jax.data.sources import tfds_records
from purenoise_jax.data.sources.by_feed import load_for
from purenoise_jax.data.sources.tfds import load_tfds
from purenoise_jax.data.statistics import channel_moments
from purenoise_jax.data.view import View
from purenoise_jax.runtime.errors import ConfigError, DataError
from tests.data.sources.test_tfds import COUNTS, image_feature, prepare
from tests.encoded import encode

OPTIONS = dict(name="tiny", image_size=0, train_split="", test_split="")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PURENOISE_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/manifests"


def load(path, **more):
    return load_for("decoded", "tfds", path=str(path), **{**OPTIONS, **more})


def kept(folder):
    """The manifest; the other files beside it hold statistics."""
    (file,) = [p for p in folder.glob("*.json") if "." not in p.stem]
    return file


ALL = ("train", "test", "validation")
KINDS = {
    "pixels": dict(splits=ALL),
    "png": dict(encoded=True, splits=ALL),
    "png, without ids": dict(encoded=True, with_id=False),
    "one channel": dict(
        image=image_feature(1),
        stored=lambda split, i: io.BytesIO(encode(np.full((5, 4), 6 * i, np.uint8), "PNG")),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("image_size", [0, 6])
def test_records_have_the_images_of_the_source_in_its_order(tmp_path, kind, image_size):
    prepare(tmp_path, **KINDS[kind])
    wanted = load_tfds(name="tiny", path=str(tmp_path), image_size=image_size)
    found = load(tmp_path, image_size=image_size)
    assert (found.name, found.class_names) == (wanted.name, wanted.class_names)
    for split in ("train", "test", "val"):
        images, expected = (getattr(d, f"{split}_images") for d in (found, wanted))
        assert (images is None) == (expected is None)
        if images is None:
            continue
        assert isinstance(images, DecodedImages)
        np.testing.assert_array_equal(images[:], expected)
        labels = [getattr(d, f"{split}_labels") for d in (found, wanted)]
        np.testing.assert_array_equal(*labels)
    for got, expected in zip(
        channel_moments(found.train_images), channel_moments(wanted.train_images), strict=True
    ):
        np.testing.assert_array_equal(got, expected)


def test_the_manifest_has_the_sha256_of_every_record_and_is_made_once(tmp_path, cache, monkeypatch):
    folder = prepare(tmp_path, encoded=True)
    first = load(tmp_path)
    content = json.loads(kept(cache).read_text())
    assert content["digest"] == first.content
    raw = tfds.builder_from_directory(str(folder)).as_data_source(
        "train", deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    rows = content["splits"]["train"]
    assert sorted(path for path, *_ in rows) == sorted(f"train[{i}]" for i in range(len(raw)))
    for path, size, label, sha256 in rows:
        record = raw[int(path[len("train[") : -1])]
        assert (size, sha256) == (len(record), hashlib.sha256(record).hexdigest())
        assert 0 <= label < 3

    def again(*_):
        raise AssertionError("is made a second time")

    monkeypatch.setattr(tfds_records.Records, "entry", again)
    assert load(tmp_path).content == first.content


def test_data_that_were_prepared_again_have_another_manifest(tmp_path):
    folder = prepare(tmp_path, encoded=True)
    before = load(tmp_path).content
    shutil.rmtree(folder)
    assert prepare(tmp_path, encoded=True, shape=(6, 4, 3)) == folder
    after = load(tmp_path)
    assert after.content != before and after.train_images[:].shape == (40, 6, 4, 3)


def test_a_byte_that_changes_under_a_run_is_named(tmp_path):
    """Within a record, which array_record compresses, the reader itself may notice."""
    folder = prepare(tmp_path, encoded=True)
    images = load(tmp_path).train_images
    whole = images[:]
    (file,) = folder.glob("*train*.array_record*")
    content = bytearray(file.read_bytes())
    found = 0
    # The rest of its blocks is empty.
    used = np.flatnonzero(np.frombuffer(content, np.uint8))
    for place in used[len(used) // 3 : len(used) * 2 // 3 : len(used) // 12]:
        changed = bytearray(content)
        changed[place] ^= 255
        file.write_bytes(changed)
        try:
            fresh = load(tmp_path).train_images
        except DataError as error:
            assert str(folder) in str(error)
            found += 1
            continue
        out = np.empty_like(whole)
        faults = fresh.read(np.arange(len(fresh)), out)
        assert all(f"{folder}/train[" in fault for _, fault in faults)
        good = np.setdiff1d(np.arange(len(fresh)), [row for row, _ in faults])
        np.testing.assert_array_equal(out[good], whole[good])
        found += bool(faults)
    assert found


def test_a_record_of_another_content_is_refused(tmp_path, cache):
    prepare(tmp_path, encoded=True)
    load(tmp_path)
    content = json.loads(kept(cache).read_text())
    images = load(tmp_path).train_images
    first, second, *_ = content["splits"]["train"]
    manifest = images._manifest
    for changes, message in (
        ({"size": first[1] + 1}, "bytes instead of"),
        ({"sha256": second[3]}, "is damaged or has changed: it has another sha256"),
        ({"path": "train[999]"}, "train\\[999\\]: cannot be read"),
    ):
        entry = tfds_records.Entry(*first)
        wrong = tfds_records.Entry(**{**{k: getattr(entry, k) for k in entry.__slots__}, **changes})
        with pytest.raises(DataError, match=message):
            manifest.read(wrong)
    manifest.read(tfds_records.Entry(*first))


def test_damaged_images_are_named_together_or_skipped(tmp_path):
    def stored(split, index):
        whole = encode(np.full((5, 4, 3), 9, np.uint8), "PNG")
        return io.BytesIO(whole[:-20] if split == "train" and index < 2 else whole)

    folder = prepare(tmp_path, image=image_feature(), stored=stored)
    with pytest.raises(DataError, match=f"^{folder}: 2 faults: .*train\\[\\d+\\]: cannot be read"):
        load(tmp_path, image_size=5)
    images = load(tmp_path, image_size=5, skips_bad=True).train_images
    faults = images.read(np.arange(len(images)), np.empty(images.shape, np.uint8))
    # By their ids, the damaged ones are the first.
    assert [row for row, _ in faults] == [0, 1]


def test_crops_are_cut_from_the_stored_images(tmp_path):
    prepare(tmp_path, encoded=True, shape=(12, 10, 3))
    images = load(tmp_path, image_size=6, crop="original_crop").train_images
    out = np.empty(images.shape, np.uint8)
    rows = np.arange(len(images))
    assert images.read(rows, out, Draws(0, 0, rows)) == []
    assert (out != images[:]).any((1, 2, 3)).all()


def test_views_are_those_of_files(tmp_path):
    """The shorter side resized to 8, and the central square of 6 cut out."""
    prepare(tmp_path, encoded=True, shape=(16, 12, 3))
    found = load(tmp_path, image_size=6, resize_shorter=8)
    whole = load_tfds(name="tiny", path=str(tmp_path))
    view = View(6, 8)
    np.testing.assert_array_equal(found.test_images[:], [view(x) for x in whole.test_images])
    with pytest.raises(ConfigError, match=r"data\.resize_shorter=8 is for image files"):
        load_for("resident", "tfds", path=str(tmp_path), **{**OPTIONS, "resize_shorter": 8})


def test_parquet_is_refused(tmp_path):
    folder = prepare(tmp_path, file_format="parquet")
    with pytest.raises(DataError, match=f"^{folder}: .* use data.feed=mapped, or prepare it with"):
        load(tmp_path)


def test_unlabelled_splits_are_refused(tmp_path):
    prepare(tmp_path, splits=ALL, unlabelled=("test",))
    with pytest.raises(DataError, match=r"labels of the split test are -1.* set data\.test_split"):
        load(tmp_path)
    found = load(tmp_path, test_split="validation")
    assert len(found.test_images) == COUNTS["validation"]
