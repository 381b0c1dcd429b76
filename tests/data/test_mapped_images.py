"""Images in a file: the same values, statistics and digest as the array; damage is found."""

import dataclasses

import numpy as np
import pytest

from purenoise_jax.data import host_images
from purenoise_jax.data.dataset import Dataset, check_dataset, limit_test
from purenoise_jax.data.host_images import chunks, num_chunks, subset
from purenoise_jax.data.mapped_images import MappedImages, image_digest, stored
from purenoise_jax.data.sources.by_feed import in_cache, load_for
from purenoise_jax.data.sources.npz import npz_bytes
from purenoise_jax.data.statistics import channel_moments
from purenoise_jax.data.training_set import make_training_set
from purenoise_jax.runtime.errors import ConfigError, DataError, StorageError
from tests.tiny import write_npz

IMAGES = np.random.default_rng(0).integers(0, 200, (23, 4, 5, 3), np.uint8)
NPZ = dict(name="", train_split="", test_split="")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PURENOISE_JAX_CACHE", str(tmp_path / "cache"))
    # Several pieces, of which the last is shorter.
    monkeypatch.setattr(host_images, "CHUNK_BYTES", 5 * IMAGES[0].size)
    return tmp_path / "cache"


def test_a_file_has_the_values_of_the_array(cache):
    images = stored(IMAGES, cache)
    np.testing.assert_array_equal(images[:], IMAGES)
    order = np.array([5, 1, 1, 22, 0])
    np.testing.assert_array_equal(subset(images, order)[1:], IMAGES[order][1:])
    twice = subset(subset(images, order), np.array([3, 0]))
    np.testing.assert_array_equal(twice[:], IMAGES[[22, 5]])
    assert images.nbytes == IMAGES.nbytes and images.shape == IMAGES.shape
    assert num_chunks(images) == 5 and [len(x) for x in chunks(images)] == [5, 5, 5, 5, 3]
    assert image_digest(images) == image_digest(IMAGES)
    for got, wanted in zip(channel_moments(images), channel_moments(IMAGES), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_a_training_set_in_files_is_that_in_memory(tmp_path):
    labels = np.arange(23, dtype=np.int32) % 2
    dataset = check_dataset(Dataset("two", IMAGES, labels, IMAGES[:8], labels[:8], ("a", "b")))
    dataset = dataclasses.replace(dataset, val_images=IMAGES[8:12], val_labels=labels[8:12])
    options = dict(
        imbalance_ratio=3.0, profile="exp", rule="cao", seed=0, indices="",
        normalize="full_train", normalize_mean=(), normalize_std=(),
    )  # fmt: skip
    array, file = (
        make_training_set(limit_test(check_dataset(d), 3), **options)
        for d in (dataset, in_cache(dataset))
    )
    assert isinstance(file.images, MappedImages)
    np.testing.assert_array_equal(file.images[:], array.images)
    assert (file.content, file.fingerprint) == (array.content, array.fingerprint)
    for field in dataclasses.fields(array.stats):
        got, wanted = (getattr(x.stats, field.name) for x in (file, array))
        np.testing.assert_array_equal(got, wanted)


def test_a_file_that_is_there_is_used_unless_it_is_damaged(cache):
    stored(IMAGES, cache, "a")
    (file,) = (cache / "mapped").glob("*.u8")
    before = file.stat().st_mtime_ns, file.stat().st_ino

    class Unread:
        shape = IMAGES.shape

    stored(Unread(), cache, "a")
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == before
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    np.testing.assert_array_equal(stored(IMAGES, cache, "a")[:], IMAGES)
    assert file.stat().st_ino != before[1]
    assert {p.suffix for p in (cache / "mapped").iterdir()} == {".u8", ".sha256"}


def test_a_file_that_is_cut_short_under_a_run_is_a_fault_of_its_images(cache):
    images = stored(IMAGES, cache)
    (file,) = (cache / "mapped").glob("*.u8")
    with file.open("rb+") as opened:
        opened.truncate(20 * IMAGES[0].size + 1)
    out = np.ones((3, 4, 5, 3), np.uint8)
    faults = images.read(np.array([20, 19, 22]), out)
    assert [place for place, _ in faults] == [0, 2]
    assert f"{file}: image 20 cannot be read (the file is cut short)" == faults[0][1]
    np.testing.assert_array_equal(out[1], IMAGES[19])
    assert not out[0].any() and not out[2].any()
    with pytest.raises(DataError, match="bytes, expected"):
        MappedImages(file, IMAGES.shape)


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"needs 0\.0 GiB there; PURENOISE_JAX_CACHE"):
        stored(IMAGES, tmp_path / "file")


@pytest.mark.parametrize("compressed", [False, True])
def test_an_npz_is_read_in_place_unless_it_is_compressed(tmp_path, cache, compressed):
    npz = write_npz(tmp_path / "a.npz")
    if compressed:
        np.savez_compressed(npz, **np.load(npz))
    options = dict(name="", path=str(npz), image_size=0, train_split="", test_split="")
    array, file = (load_for(feed, "npz", **options) for feed in ("resident", "mapped"))
    assert isinstance(file.train_images, MappedImages)
    np.testing.assert_array_equal(file.train_images[:], array.train_images)
    np.testing.assert_array_equal(file.test_images[:], array.test_images)
    assert cache.exists() == compressed
    assert npz_bytes(str(npz)) - 256 <= array.train_images.nbytes + array.test_images.nbytes


def test_an_npz_with_a_wrong_checksum_is_refused(tmp_path):
    npz = write_npz(tmp_path / "a.npz")
    content = bytearray(npz.read_bytes())
    content[1000] ^= 1
    npz.write_bytes(content)
    with pytest.raises(DataError, match="Bad CRC-32"):
        load_for("mapped", "npz", **NPZ, path=str(npz))


def test_an_npz_that_is_resized_is_judged_by_its_size_in_memory(tmp_path):
    npz = write_npz(tmp_path / "a.npz")
    dataset = load_for("auto", "npz", 4 * npz_bytes(str(npz)), **NPZ, path=str(npz), image_size=64)
    assert isinstance(dataset.train_images, MappedImages)


def test_splits_are_refused_as_in_memory(tmp_path):
    npz = write_npz(tmp_path / "a.npz")
    for feed in ("resident", "mapped"):
        with pytest.raises(ConfigError, match=r"data.train_split=.foo. is not read"):
            load_for(feed, "npz", name="", path=str(npz), train_split="foo", test_split="")


def test_images_that_do_not_fit_stay_on_the_host(tmp_path):
    npz = write_npz(tmp_path / "a.npz")
    size = npz_bytes(str(npz))
    for room, mapped in ((2 * size, False), (2 * size - 2, True)):
        dataset = load_for("auto", "npz", room, **NPZ, path=str(npz))
        assert isinstance(dataset.train_images, MappedImages) == mapped
        digits = load_for("auto", "digits", 2 * 1797 * 256 - 2 * mapped, name="digits", path="")
        assert isinstance(digits.train_images, MappedImages) == mapped


def test_a_source_without_image_files_is_not_decoded(tmp_path):
    with pytest.raises(ConfigError, match=r"data.source=digits has not; .* sources folder"):
        load_for("decoded", "digits", name="", path="")
