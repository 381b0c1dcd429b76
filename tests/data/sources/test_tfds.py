"""The TFDS source: features, splits, versions and damage."""

import io
import json
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from purenoise_jax.data.sources import tfds as tfds_source
from purenoise_jax.data.sources.decode import decode_image
from purenoise_jax.data.sources.tfds import load_tfds
from purenoise_jax.data.sources.tfds_prepared import find_prepared
from purenoise_jax.runtime.errors import ConfigError, DataError
from tests.encoded import encode, png16

COUNTS = {"train": 40, "test": 12, "validation": 9}


def example(split: str, index: int, shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    seed = [list(COUNTS).index(split), index]
    image = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return image, (index * 7) % 3


def prepare(
    data_dir: pathlib.Path,
    *,
    splits: tuple[str, ...] = ("train", "test"),
    version: str = "1.0.0",
    with_id: bool = True,
    encoded: bool = False,
    shape: tuple[int, ...] = (5, 4, 3),
    odd_shape: tuple[int, ...] | None = None,
    file_format: str = "array_record",
    extra: dict[str, Any] | None = None,
    image: Any = None,
    stored: Callable[[str, int], Any] | None = None,
    unlabelled: tuple[str, ...] = (),
) -> pathlib.Path:
    """Prepares a data set called `tiny` with TFDS and returns its folder.

    `image` is the feature of another kind of image, and `stored` says what it stores for one.
    """

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(version)

        def _info(self) -> tfds.core.DatasetInfo:
            usual = (
                tfds.features.Image(shape=(None, None, shape[2]))
                if encoded
                else tfds.features.Tensor(shape=shape, dtype=np.uint8)
            )
            features = {
                "image": image or usual,
                "label": tfds.features.ClassLabel(names=["x", "y", "z"]),
            }
            if with_id:
                features["id"] = tfds.features.Text()
            features.update(extra or {})
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
            order = np.random.default_rng(5).permutation(COUNTS[split])
            for key, index in enumerate(order):
                last = index == COUNTS[split] - 1
                image, label = example(split, index, odd_shape if last and odd_shape else shape)
                fields: dict[str, Any] = {"image": image, "label": label}
                if split in unlabelled:
                    fields["label"] = -1
                if stored:
                    fields["image"] = stored(split, index)
                elif encoded:
                    fields["image"] = io.BytesIO()
                    Image.fromarray(image).save(fields["image"], format="PNG")
                    fields["image"].seek(0)
                if with_id:
                    fields["id"] = f"{split}_{index:05d}"
                for name in extra or {}:
                    fields[name] = fields["label"] if "label" in name else fields["image"]
                yield key, fields

    builder = Tiny(data_dir=str(data_dir), file_format=file_format)
    builder.download_and_prepare()
    return pathlib.Path(builder.data_dir)


def expected(split: str, shape: tuple[int, ...] = (5, 4, 3)) -> tuple[np.ndarray, np.ndarray]:
    pairs = [example(split, index, shape) for index in range(COUNTS[split])]
    return np.stack([image for image, _ in pairs]), np.array([label for _, label in pairs])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return prepare(tmp_path_factory.mktemp("tfds"))


@pytest.fixture
def copied(prepared: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the prepared data set that a test may damage."""
    return pathlib.Path(shutil.copytree(prepared, tmp_path / "tiny" / "1.0.0"))


def test_examples_come_back_sorted_by_id(
    prepared: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = tfds.builder_from_directory(str(prepared)).as_data_source("train")
    ids = [stored[i]["id"] for i in range(len(stored))]
    assert ids != sorted(ids)

    data_dir = prepared.parents[1]
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    for name, path in (
        ("tiny", str(data_dir)),
        ("tiny", ""),
        ("tiny:1.0.0", str(data_dir)),
        ("tiny", str(prepared)),
    ):
        dataset = load_tfds(name=name, path=path)
        assert dataset.class_names == ("x", "y", "z")
        assert dataset.val_images is None
        for images, labels, split in (
            (dataset.train_images, dataset.train_labels, "train"),
            (dataset.test_images, dataset.test_labels, "test"),
        ):
            wanted_images, wanted_labels = expected(split)
            np.testing.assert_array_equal(images, wanted_images)
            np.testing.assert_array_equal(labels, wanted_labels)
            assert labels.dtype == np.int32
    assert "tensorflow" not in sys.modules


def test_parquet(tmp_path: pathlib.Path) -> None:
    prepare(tmp_path, file_format="parquet")
    dataset = load_tfds(name="tiny", path=str(tmp_path))
    np.testing.assert_array_equal(dataset.train_images, expected("train")[0])


def test_validation_beside_test(tmp_path: pathlib.Path) -> None:
    prepare(tmp_path, splits=("train", "test", "validation"))
    dataset = load_tfds(name="tiny", path=str(tmp_path))
    assert dataset.val_images is not None
    np.testing.assert_array_equal(dataset.val_images, expected("validation")[0])
    np.testing.assert_array_equal(dataset.test_images, expected("test")[0])


def test_validation_instead_of_test(tmp_path: pathlib.Path) -> None:
    prepare(tmp_path, splits=("train", "validation"))
    dataset = load_tfds(name="tiny", path=str(tmp_path))
    assert dataset.val_images is None
    np.testing.assert_array_equal(dataset.test_images, expected("validation")[0])


def test_missing_split(tmp_path: pathlib.Path) -> None:
    prepare(tmp_path, splits=("train",))
    with pytest.raises(DataError, match="lacks the split validation, has train"):
        load_tfds(name="tiny", path=str(tmp_path))


def test_png_images_without_ids(tmp_path: pathlib.Path) -> None:
    prepare(tmp_path, with_id=False, encoded=True)
    dataset = load_tfds(name="tiny", path=str(tmp_path))
    wanted, _ = expected("test")
    assert dataset.test_images.shape == wanted.shape
    # Without ids TFDS determines the order, so only the set of images is known.
    assert sorted(x.tobytes() for x in dataset.test_images) == sorted(x.tobytes() for x in wanted)


def test_images_of_different_size(tmp_path: pathlib.Path) -> None:
    prepare(tmp_path, encoded=True, odd_shape=(8, 8, 3))
    with pytest.raises(DataError, match=r"set data\.image_size"):
        load_tfds(name="tiny", path=str(tmp_path))
    dataset = load_tfds(name="tiny", path=str(tmp_path), image_size=8)
    assert dataset.train_images.shape == (40, 8, 8, 3)
    np.testing.assert_array_equal(dataset.train_images[-1], example("train", 39, (8, 8, 3))[0])


def test_newest_version_is_taken(tmp_path: pathlib.Path) -> None:
    for version, count in (("1.9.0", 40), ("1.10.0", 12)):
        split = "train" if count == 40 else "test"
        prepare(tmp_path, version=version, splits=(split,))
    assert find_prepared("tiny", str(tmp_path)) == tmp_path / "tiny" / "1.10.0"
    assert find_prepared("tiny:1.9.0", str(tmp_path)) == tmp_path / "tiny" / "1.9.0"
    assert find_prepared("tiny:1.9.1", str(tmp_path)) is None


def test_configurations(copied: pathlib.Path, tmp_path: pathlib.Path) -> None:
    data_dir = tmp_path / "configs"
    shutil.copytree(copied, data_dir / "named" / "small" / "1.0.0")
    assert load_tfds(name="named/small", path=str(data_dir)).num_classes == 3
    assert load_tfds(name="named", path=str(data_dir)).num_classes == 3
    shutil.copytree(copied, data_dir / "named" / "large" / "1.0.0")
    with pytest.raises(DataError, match=r"set data\.name to named/large, named/small"):
        load_tfds(name="named", path=str(data_dir))


def test_not_prepared(tmp_path: pathlib.Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(
            DataError, match=r"'mnist' is not prepared.*tfds build mnist --file_format=array_record"
        ):
            load_tfds(name="mnist", path=str(path))


@pytest.mark.parametrize("name", ["", "..", "../tiny", "a/b/c", "/tiny", "tiny:latest", "a b"])
def test_odd_names(tmp_path: pathlib.Path, name: str) -> None:
    with pytest.raises(ConfigError, match="is not a TFDS name"):
        load_tfds(name=name, path=str(tmp_path))


def test_the_message_about_tfrecord_tells_how_to_prepare_the_data_again(
    copied: pathlib.Path,
) -> None:
    info = json.loads((copied / "dataset_info.json").read_text())
    for stored in ("tfrecord", None):
        info["fileFormat"] = stored
        (copied / "dataset_info.json").write_text(
            json.dumps({key: value for key, value in info.items() if value is not None})
        )
        with pytest.raises(DataError, match=r"without random access.*--file_format=array_record"):
            load_tfds(name="tiny", path=str(copied))


def test_foreign_feature_class_is_refused_and_not_imported(
    copied: pathlib.Path, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "hostile_module.py").write_text(f"open({str(marker)!r}, 'w').close()")
    monkeypatch.syspath_prepend(str(tmp_path))
    text = (copied / "features.json").read_text()
    changed = text.replace(
        "tensorflow_datasets.core.features.tensor_feature.Tensor", "hostile_module.Tensor"
    )
    assert changed != text
    (copied / "features.json").write_text(changed)
    with pytest.raises(DataError, match=r"refused the class 'hostile_module\.Tensor'"):
        load_tfds(name="tiny", path=str(copied))
    assert not marker.exists()


def test_two_candidate_features(tmp_path: pathlib.Path) -> None:
    extra = {"label_coarse": tfds.features.ClassLabel(num_classes=3)}
    prepare(tmp_path, extra=extra)
    dataset = load_tfds(name="tiny", path=str(tmp_path))
    assert dataset.class_names == ("x", "y", "z")


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("content", ["", "[]", "{", '{"fileFormat": "array_record"}'])
def test_damaged_description(copied: pathlib.Path, file: str, content: str) -> None:
    (copied / file).write_text(content)
    with pytest.raises(DataError, match="tiny"):
        load_tfds(name="tiny", path=str(copied))


def test_missing_and_truncated_records(copied: pathlib.Path) -> None:
    (records,) = copied.glob("*train.array_record*")
    good = records.read_bytes()
    for length in (0, 100, len(good) // 2, len(good) - 1):
        records.write_bytes(good[:length])
        with pytest.raises(DataError, match="tiny"):
            load_tfds(name="tiny", path=str(copied))
    records.unlink()
    with pytest.raises(DataError, match="tiny"):
        load_tfds(name="tiny", path=str(copied))


def test_flipped_bytes_are_detected_or_harmless(copied: pathlib.Path) -> None:
    (records,) = copied.glob("*train.array_record*")
    good = records.read_bytes()
    wanted_images, wanted_labels = expected("train")
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, len(good), 60):
        damaged = bytearray(good)
        damaged[place] ^= int(rng.integers(1, 256))
        records.write_bytes(damaged)
        try:
            dataset = load_tfds(name="tiny", path=str(copied))
        except DataError:
            refused += 1
            continue
        np.testing.assert_array_equal(dataset.train_images, wanted_images)
        np.testing.assert_array_equal(dataset.train_labels, wanted_labels)
    assert refused


def test_the_message_about_wrong_labels_names_the_folder(
    prepared: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(dataset: object) -> None:
        raise DataError("tiny, split train: 2 labels are outside 0..2")

    monkeypatch.setattr(tfds_source, "check_dataset", refuse)
    with pytest.raises(DataError, match=rf"^{prepared}: tiny, split train: 2 labels"):
        load_tfds(name="tiny", path=str(prepared))


def image_feature(channels: int = 3, dtype: type = np.uint8) -> Any:
    return tfds.features.Image(shape=(None, None, channels), dtype=dtype)


def test_encoded_images_follow_the_rules_of_files(tmp_path: pathlib.Path) -> None:
    scene = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    deep = np.random.default_rng(1).integers(0, 65536, (6, 6, 3)).astype(np.uint16)
    exif = Image.Exif()
    exif[0x112] = 6
    rgba = np.dstack([scene, np.full((6, 6), 51, np.uint8)])
    kinds = [
        (encode(scene, "PNG"), scene),
        (encode(scene, "PNG", exif=exif), scene.swapaxes(0, 1)[:, ::-1]),
        (encode(scene, "WEBP", lossless=True), scene),
        (encode(rgba, "PNG"), np.floor(scene * 0.2 + 0.5)),
        (encode(scene[..., 0], "PNG"), np.repeat(scene[..., :1], 3, axis=2)),
        (png16(deep), np.floor(deep / 257 + 0.5)),
    ]
    prepare(tmp_path, image=image_feature(), stored=lambda _, i: io.BytesIO(kinds[i % 6][0]))
    dataset = load_tfds(name="tiny", path=str(tmp_path))
    for index, image in enumerate(dataset.test_images):
        np.testing.assert_array_equal(image, kinds[index % 6][1])


def test_images_of_one_channel_keep_one_channel(tmp_path: pathlib.Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (12, 6, 6), dtype=np.uint8)
    files = [io.BytesIO(encode(image, "PNG")) for image in grey]
    prepare(tmp_path / "a", image=image_feature(1), stored=lambda _, i: files[i % 12].getvalue())
    dataset = load_tfds(name="tiny", path=str(tmp_path / "a"))
    np.testing.assert_array_equal(dataset.test_images[..., 0], grey)
    assert dataset.test_images.shape == (12, 6, 6, 1)
    colour = encode(np.dstack([grey[0], grey[1], grey[2]]), "PNG")
    prepare(tmp_path / "b", image=image_feature(1), stored=lambda *_: colour)
    with pytest.raises(DataError, match=r"example 0 of split train: is coloured, but its feature"):
        load_tfds(name="tiny", path=str(tmp_path / "b"))


def test_one_message_has_all_damaged_images(tmp_path: pathlib.Path) -> None:
    y, x = np.mgrid[:32, :32]
    good = encode((127 + 90 * np.sin(x / 3) * np.cos(y / 4)).astype(np.uint8), "JPEG", quality=95)
    middle = len(good) // 2
    bad = good[:middle] + good[middle + 100 :]
    with pytest.raises(DataError, match="cannot be read as an image"):
        decode_image(bad)

    def stored(split: str, index: int) -> bytes:
        return bad if split == "test" and index % 2 else good

    prepare(tmp_path, image=image_feature(), stored=stored)
    message = (
        r"tiny.1\.0\.0: 6 faults, the first 5: example \d+ of split test: cannot be read as an "
    )
    with pytest.raises(DataError, match=message):
        load_tfds(name="tiny", path=str(tmp_path))


def test_sixteen_bit_images_that_use_fewer_bits_are_refused(tmp_path: pathlib.Path) -> None:
    data = png16(np.full((6, 6, 1), 4_000, np.uint16))
    prepare(tmp_path, image=image_feature(1, np.uint16), stored=lambda *_: data)
    with pytest.raises(DataError, match=r"split train: no 16-bit image .* above 4000 .* 12 bits"):
        load_tfds(name="tiny", path=str(tmp_path))


def test_unlabelled_splits(tmp_path: pathlib.Path) -> None:
    splits = ("train", "test", "validation")
    prepare(tmp_path / "a", splits=splits, unlabelled=("test",))
    message = r"all labels of the split test are -1.*set data\.test_split .* there is validation"
    with pytest.raises(DataError, match=message):
        load_tfds(name="tiny", path=str(tmp_path / "a"))
    dataset = load_tfds(name="tiny", path=str(tmp_path / "a"), test_split="validation")
    np.testing.assert_array_equal(dataset.test_images, expected("validation")[0])
    assert dataset.val_images is None
    prepare(tmp_path / "b", splits=splits, unlabelled=("validation",))
    dataset = load_tfds(name="tiny", path=str(tmp_path / "b"))
    assert dataset.val_images is None  # an unlabelled split cannot be evaluated
    np.testing.assert_array_equal(dataset.test_images, expected("test")[0])
    swapped = load_tfds(
        name="tiny", path=str(tmp_path / "b"), train_split="test", test_split="train"
    )
    np.testing.assert_array_equal(swapped.train_images, dataset.test_images)


def test_missing_splits_are_refused(prepared: pathlib.Path) -> None:
    with pytest.raises(
        DataError, match=r"lacks the split dev, has test, train; choose others with data\.train_s"
    ):
        load_tfds(name="tiny", path=str(prepared), test_split="dev")
    with pytest.raises(ConfigError, match="both 'test'"):
        load_tfds(name="tiny", path=str(prepared), train_split="test")


ODD = [5, -1, 10**30, 1.5, True, None, "x", "", [], [5], {"a": 1}, "-1", "9" * 40, [[]]]


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key in node if isinstance(node, dict) else range(len(node) if type(node) is list else 0):
        yield from places(node[key], (*path, key))


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
def test_odd_values_in_descriptions_are_refused_or_harmless(
    copied: pathlib.Path, file: str
) -> None:
    info = json.loads((copied / "dataset_info.json").read_text())
    info["alternativeFileFormats"] = ["parquet"]
    (copied / "dataset_info.json").write_text(json.dumps(info))
    good = json.loads((copied / file).read_text())
    refused = 0
    for number, path in enumerate(places(good)):
        for odd in (ODD[number % len(ODD)], ODD[(5 * number + 3) % len(ODD)]):
            changed = json.loads(json.dumps(good))
            node = changed
            for key in path[:-1]:
                node = node[key]
            if path:
                node[path[-1]] = odd
            (copied / file).write_text(json.dumps(changed if path else odd))
            try:
                dataset = load_tfds(name="tiny", path=str(copied))
                np.testing.assert_array_equal(dataset.train_images, expected("train")[0])
                np.testing.assert_array_equal(dataset.test_labels, expected("test")[1])
            except DataError as error:
                refused += 1
                assert str(error).isprintable() and len(str(error)) < 1000
    assert refused > 10


def test_an_alternative_format_that_is_not_a_list_is_refused(copied: pathlib.Path) -> None:
    for odd in (5, "parquet", {"a": 1}):
        info = {"name": "tiny", "version": "1.0.0", "fileFormat": "tfrecord"}
        (copied / "dataset_info.json").write_text(
            json.dumps(info | {"alternativeFileFormats": odd})
        )
        with pytest.raises(DataError, match=r"alternativeFileFormats is .*, must be a list"):
            load_tfds(name="tiny", path=str(copied))


@pytest.mark.parametrize("file_format", ["array_record", "parquet"])
@pytest.mark.parametrize("claim", ["5", "39", "41", "0"])
def test_a_description_with_another_number_of_examples_is_refused(
    tmp_path: pathlib.Path, file_format: str, claim: str
) -> None:
    folder = prepare(tmp_path, file_format=file_format)
    info = json.loads((folder / "dataset_info.json").read_text())
    assert info["splits"][0]["shardLengths"] == ["40"]
    info["splits"][0]["shardLengths"] = [claim]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(
        DataError,
        match=rf"declares {claim} examples in split train, but 40 are|lacks the split train",
    ):
        load_tfds(name="tiny", path=str(tmp_path))
