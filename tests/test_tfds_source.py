import io
import json
import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from purenoise_jax.data import tfds_source
from purenoise_jax.data.tfds_source import find_prepared, load_tfds
from purenoise_jax.errors import ConfigError, DataError

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
) -> pathlib.Path:
    """Prepares a data set called `tiny` with TFDS and returns its folder."""

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(version)

        def _info(self) -> tfds.core.DatasetInfo:
            image = (
                tfds.features.Image(shape=(None, None, shape[2]))
                if encoded
                else tfds.features.Tensor(shape=shape, dtype=np.uint8)
            )
            features = {"image": image, "label": tfds.features.ClassLabel(names=["x", "y", "z"])}
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
                if encoded:
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
    # Without ids the order is TFDS's own, so only the set of images is known.
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


def test_tfrecord_says_how_to_prepare_again(copied: pathlib.Path) -> None:
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


def test_flipped_bytes_are_noticed_or_harmless(copied: pathlib.Path) -> None:
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


def test_wrong_labels_are_told_with_the_folder(
    prepared: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(dataset: object) -> None:
        raise DataError("tiny, split train: 2 labels are outside 0..2")

    monkeypatch.setattr(tfds_source, "check_dataset", refuse)
    with pytest.raises(DataError, match=rf"^{prepared}: tiny, split train: 2 labels"):
        load_tfds(name="tiny", path=str(prepared))
