"""The table of sources, and the order in which `auto` tries them."""

import inspect
import json
import pathlib

import numpy as np
import pytest

from purenoise_jax.data.sources import registry
from purenoise_jax.data.sources.cifar import LAYOUTS
from purenoise_jax.runtime.errors import ConfigError, DataError
from tests import cifar_files as files


def test_every_loader_has_the_same_signature() -> None:
    assert list(registry.SOURCES) == [
        "auto",
        "tfds",
        "cifar_dir",
        "npz",
        "folder",
        "list",
        "idx",
        "svhn",
        "tiny_imagenet",
        "tiered_imagenet",
        "digits",
    ]
    for name, loader in registry.SOURCES.items():
        parameters = inspect.signature(loader).parameters
        splits = ["train_split", "test_split"] if name in registry.SPLIT_SOURCES else []
        lists = ["lists"] if name in registry.LIST_SOURCES else []
        resize = ["resize"] if splits or lists else []
        assert list(parameters) == ["name", "path", "image_size", *splits, *lists, *resize]
        assert all(p.kind is p.KEYWORD_ONLY for p in parameters.values())


def test_unknown_source_names_the_legal_ones_and_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"auto, tfds, cifar_dir, npz, folder, list, idx, svhn, .*'cifar_dir'"
    ):
        registry.load("cifar-dir", name="cifar10", path="")
    with pytest.raises(ConfigError, match=r"digits$"):
        registry.load("zzz", name="cifar10", path="")


@pytest.mark.parametrize("source", sorted({*registry.SOURCES} - {"auto", "tfds", "digits"}))
def test_path_is_required(source: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.path is empty"):
        registry.load(source, name="cifar10", path="")


def test_images_are_resized_where_a_source_has_not_done_so(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 6, 4, 3), dtype=np.uint8)
    # Smooth columns: the mean of two is what a filter of twice the width makes of them inside.
    images[:, :, :] = np.arange(6)[:, None, None] * 40
    labels = np.array([0, 1])
    file = tmp_path / "x.npz"
    np.savez(file, train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    stored = registry.load("npz", name="", path=str(file))
    assert stored.train_images.shape == (2, 6, 4, 3)
    small = registry.load("npz", name="", path=str(file), image_size=3)
    for split in (small.train_images, small.test_images):
        assert split.shape == (2, 3, 3, 3) and split.dtype == np.uint8
        np.testing.assert_allclose(split[:, 1], 100, atol=1)
    assert small.val_images is None and small.train_labels.tolist() == [0, 1]
    with pytest.raises(ConfigError, match=r"data\.image_size is -1"):
        registry.load("npz", name="", path=str(file), image_size=-1)


@pytest.mark.parametrize("field", ["train_split", "test_split"])
@pytest.mark.parametrize(
    ("source", "name"),
    [("npz", "x"), ("cifar_dir", "cifar10"), ("digits", "digits"), ("auto", "digits"), ("auto", "cifar10")],
)  # fmt: skip
def test_chosen_splits_are_refused_by_sources_with_fixed_splits(
    source: str, name: str, field: str
) -> None:
    with pytest.raises(
        ConfigError, match=rf"data\.{field}='val' is not read: data\..* no splits to"
    ):
        registry.load(source, name=name, path="", **{field: "val"})


def test_chosen_splits_reach_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def record(**arguments: object) -> object:
        seen.append((arguments["train_split"], arguments["test_split"]))
        raise DataError("stop here")

    monkeypatch.setattr(registry, "load_tfds", record)  # what auto calls
    for source in ("tfds", "folder", "tiered_imagenet"):
        monkeypatch.setitem(registry.SPLIT_SOURCES, source, record)
    for source in registry.SPLIT_SOURCES:
        with pytest.raises(DataError, match="stop here"):
            registry.load(source, name="x", path="y", train_split="dev", test_split="val")
    assert seen == [("dev", "val")] * 4


@pytest.fixture
def small_cifar(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> pathlib.Path:
    """Makes CIFAR-10 small; the TFDS directory and the cache are empty folders of this test."""
    monkeypatch.setitem(LAYOUTS, "cifar10", files.small_layout("cifar10"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("PURENOISE_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_auto_reads_a_given_path(small_cifar: pathlib.Path) -> None:
    layout = LAYOUTS["cifar10"]
    files.write_folder(small_cifar, layout.forms[0], files.binary_files(layout))
    dataset = registry.load("auto", name="cifar10", path=str(small_cifar))
    assert dataset.train_images.shape == (60, 32, 32, 3)


def test_auto_without_anything_asks_for_the_archive(
    small_cifar: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetch(archive: object) -> pathlib.Path:
        asked.append(archive)
        layout = LAYOUTS["cifar10"]
        path = small_cifar / "a.tar.gz"
        return files.write_archive(path, layout.forms[0], files.binary_files(layout))

    monkeypatch.setattr(registry, "cached_archive", fetch)
    # A data set in TFDS's default format cannot be read, so it must be skipped.
    prepared = small_cifar / "tfds" / "cifar10" / "3.0.2"
    prepared.mkdir(parents=True)
    (prepared / "dataset_info.json").write_text(json.dumps({"fileFormat": "tfrecord"}))
    assert len(registry.load("auto", name="cifar10", path="").train_images) == 60
    assert asked == [registry.ARCHIVES["cifar10"]]


def test_auto_prefers_a_prepared_tfds_data_set(
    small_cifar: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = small_cifar / "tfds" / "cifar10" / "3.0.2"
    prepared.mkdir(parents=True)
    (prepared / "dataset_info.json").write_text(json.dumps({"fileFormat": "array_record"}))
    seen = {}

    def load_tfds(**arguments: object) -> object:
        seen.update(arguments)
        raise DataError("stop here")

    monkeypatch.setattr(registry, "load_tfds", load_tfds)
    with pytest.raises(DataError, match="stop here"):
        registry.load("auto", name="cifar10", path="")
    assert seen == {"name": "cifar10", "path": "", "image_size": 0, "resize": "squash"}


def test_auto_for_other_names(small_cifar: pathlib.Path) -> None:
    assert registry.load("auto", name="digits", path="").name == "digits"
    with pytest.raises(DataError, match=r"'mnist' is not prepared in .*tfds"):
        registry.load("auto", name="mnist", path="")


def test_slow_libraries_are_not_imported_at_start() -> None:
    import subprocess
    import sys

    code = (
        "import sys; import purenoise_jax.data.sources.registry; "
        "print([m for m in ('tensorflow_datasets', 'sklearn', 'scipy.io', 'tensorflow') if m in sys.modules])"
    )
    root = pathlib.Path(registry.__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
