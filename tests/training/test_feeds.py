"""Whole runs with each feed: the same state to the last bit, and one line where data fail."""

import json
import os
import shutil
import signal
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from purenoise_jax.checkpoint.digest import state_digest
from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.config.phase_fields import make_phase
from purenoise_jax.data.mapped_images import MappedImages
from purenoise_jax.data.original_crop import Draws
from purenoise_jax.inference.runs import load_runs
from purenoise_jax.runtime.errors import CheckpointError, ConfigError, DataError, Stopped
from purenoise_jax.training.build import build
from purenoise_jax.training.loop import train_and_evaluate
from purenoise_jax.training.metric_writer import read_metrics
from purenoise_jax.training.run import TrainingRun
from tests.data.sources.test_tfds import prepare
from tests.notes import Notes
from tests.tiny import tiny_config, write_npz

SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PURENOISE_JAX_CACHE", str(tmp_path_factory.getbasetemp() / "feeds_cache"))


@pytest.fixture(scope="module")
def tree(npz, tmp_path_factory):
    """The images of the file as PNGs."""
    root, arrays = tmp_path_factory.mktemp("tree"), np.load(npz)
    for split in ("train", "test"):
        labels = arrays[f"{split}_labels"]
        for i, image in enumerate(arrays[f"{split}_images"]):
            path = root / split / f"class{labels[i]}" / f"{i:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return root


def train(config, workdir, notes=None):
    state = train_and_evaluate(config, workdir, notes)
    return state_digest(jax.device_get(state))


def numbers(workdir):
    """All that was recorded, without the speed."""
    return [
        {k: v for k, v in record.items() if "per_second" not in k}
        for record in read_metrics(workdir / "metrics.jsonl")
    ]


@pytest.fixture(scope="module")
def resident(npz, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("resident") / "run"
    return train(tiny_config(npz), workdir), workdir


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_mapped_run_is_the_resident_run(npz, resident, tmp_path, workers):
    config = tiny_config(npz, **{"data.feed": "mapped", "data.workers": workers})
    assert isinstance(build(config).training.images, MappedImages)
    assert train(config, tmp_path / "run") == resident[0]
    assert numbers(tmp_path / "run") == numbers(resident[1])
    mine, other = (
        json.loads((w / "summary.json").read_text()) for w in (tmp_path / "run", resident[1])
    )
    for volatile in ("seconds", "images_per_second"):
        mine.pop(volatile), other.pop(volatile)
    assert mine == other


@pytest.mark.slow
@pytest.mark.parametrize("feed", ["mapped", "decoded"])
def test_a_run_of_files_is_the_resident_run(tree, tmp_path, feed):
    same = {"data.source": "folder", "data.augment": ("flip", "crop")}
    one = train(tiny_config(tree, **same), tmp_path / "resident")
    config = tiny_config(tree, **same, **{"data.feed": feed, "data.workers": 3})
    assert train(config, tmp_path / "run") == one
    assert numbers(tmp_path / "run") == numbers(tmp_path / "resident")


@pytest.fixture(scope="module")
def lists(tree, tmp_path_factory):
    """Lists of the tree, in an order that is not that of its names."""
    folder, given = tmp_path_factory.mktemp("lists"), {}
    for split in ("train", "test"):
        files = sorted((tree / split).rglob("*.png"), key=lambda file: file.name)
        lines = [f"{file.relative_to(tree)} {file.parent.name[-1]}\n" for file in files]
        (folder / f"{split}.txt").write_text("".join(lines))
        given[f"data.{split}_list"] = str(folder / f"{split}.txt")
    return given


@pytest.mark.slow
@pytest.mark.parametrize("feed", ["mapped", "decoded"])
def test_a_run_of_listed_files_is_the_resident_run(tree, lists, resident, tmp_path, feed):
    same = {"data.source": "list", **lists}
    config = tiny_config(tree, **same, **{"data.feed": feed, "data.workers": 3})
    # The lists have the order of the .npz file.
    assert train(config, tmp_path / "run") == resident[0]
    assert numbers(tmp_path / "run") == numbers(resident[1])


@pytest.mark.slow
def test_a_run_continues_with_moved_lists_but_not_with_others(tree, lists, tmp_path):
    options = {"data.source": "list", "data.feed": "decoded", **lists}
    train(tiny_config(tree, **options, num_epochs=4), tmp_path / "run")
    text = Path(lists["data.train_list"]).read_text()
    moved = options | {"data.train_list": str(tmp_path / "moved.txt"), "num_epochs": 5}
    (tmp_path / "moved.txt").write_text(text.replace("class0", "./class0"))
    train(tiny_config(tree, **moved), tmp_path / "run")
    first, second, *others = text.splitlines(keepends=True)
    (tmp_path / "moved.txt").write_text("".join([second, first, *others]))
    with pytest.raises(CheckpointError, match="dataset_content"):
        train(tiny_config(tree, **moved | {"num_epochs": 6}), tmp_path / "run")


@pytest.mark.slow
def test_a_run_of_records_is_the_resident_run(tmp_path):
    prepare(tmp_path / "tfds", encoded=True, shape=(8, 8, 3))
    same = {"data.source": "tfds", "data.name": "tiny", "num_epochs": 1}
    digests = []
    for feed in ("resident", "decoded"):
        config = tiny_config(tmp_path / "tfds", **same, **{"data.feed": feed})
        del config.phases["deferred"]
        digests.append(train(config, tmp_path / feed))
    assert digests[0] == digests[1]
    assert numbers(tmp_path / "resident") == numbers(tmp_path / "decoded")


class Stop(Exception):
    """Stands for the end of the process."""


@pytest.mark.slow
def test_a_run_continues_with_either_feed(npz, resident, tmp_path, monkeypatch):
    """Killed within epochs; nothing about the position of a loader is saved."""
    advance = TrainingRun.advance

    def killed_at(step):
        def until(self, count, metrics_before):
            advance(self, count, metrics_before)
            if self.step == step:
                raise Stop

        return until

    every = {"checkpoint.every_steps": 1, "checkpoint.keep": 100}
    for step, feed in ((2, "mapped"), (7, "resident"), (10, "mapped")):
        monkeypatch.setattr(TrainingRun, "advance", killed_at(step))
        with pytest.raises(Stop):
            train(tiny_config(npz, **every, **{"data.feed": feed}), tmp_path / "run")
    monkeypatch.setattr(TrainingRun, "advance", advance)
    config = tiny_config(npz, **every, **{"data.feed": "mapped"})
    assert train(config, tmp_path / "run") == resident[0]
    assert numbers(tmp_path / "run") == numbers(resident[1])


@pytest.mark.slow
def test_a_mapped_run_on_two_devices_is_the_resident_run(npz, tmp_path):
    one, two = (
        train(tiny_config(npz, num_devices=2, **{"data.feed": feed}), tmp_path / feed)
        for feed in ("resident", "mapped")
    )
    assert one == two


def spoil(file):
    """Other pixels in a whole PNG of the same size, so that any decoder accepts it.

    Its time stays as well, as where a disk fails.
    """
    before = file.stat()
    image = np.asarray(Image.open(file))
    for change in range(1, 255):
        Image.fromarray(image ^ np.uint8(change)).save(file)
        if file.stat().st_size == before.st_size:
            break
    file.write_bytes(file.read_bytes().ljust(before.st_size, b"\0"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture
def own_tree(tree, tmp_path):
    shutil.copytree(tree, tmp_path / "tree")
    for file in (tmp_path / "tree").rglob("*.png"):
        os.utime(file, (1_700_000_000, 1_700_000_000))
    return tmp_path / "tree"


@pytest.mark.slow
@pytest.mark.parametrize("feed", ["mapped", "decoded"])
def test_a_run_does_not_continue_with_changed_files_and_a_new_one_has_them(
    own_tree, tmp_path, feed
):
    def config(feed, **more):
        folder = {"data.source": "folder", "data.feed": feed, **more}
        made = tiny_config(own_tree, **{"num_epochs": 1, **folder})
        del made.phases["deferred"]
        return made

    train(config(feed), tmp_path / "run")
    file = sorted((own_tree / "train/class0").iterdir())[5]
    content = file.read_bytes()

    def refused():
        with pytest.raises(CheckpointError, match=r"of other data; .*dataset_content") as end:
            train(config(feed, num_epochs=2), tmp_path / "run")
        assert "\n" not in str(end.value)
        resident, here = (build(config(kind)) for kind in ("resident", feed))
        if feed == "mapped":
            assert here.identity == resident.identity
        for name in ("class_counts", "dataset_fingerprint", "normalize_mean"):
            assert here.identity[name] == resident.identity[name]

    spoil(file)
    os.utime(file)
    refused()
    file.unlink()
    refused()
    (own_tree / "train/class3/999.png").write_bytes(content)
    refused()
    (own_tree / "train/class3/999.png").unlink()
    file.write_bytes(content)
    train(config(feed, num_epochs=2), tmp_path / "run")


def test_a_file_that_changes_ends_the_run_with_file_and_step(own_tree, tmp_path, monkeypatch):
    options = {"data.source": "folder", "data.feed": "decoded", "checkpoint.every_steps": 1}
    config = tiny_config(own_tree, **options)
    file = sorted((own_tree / "train").rglob("*.png"))[5]
    advance = TrainingRun.advance

    def spoiled(self, count, metrics_before):
        advance(self, count, metrics_before)
        if self.step == 3:
            spoil(file)

    monkeypatch.setattr(TrainingRun, "advance", spoiled)
    with pytest.raises(DataError, match=r"is damaged or has changed.*read for step \d+\)") as end:
        train(config, tmp_path / "run")
    assert str(file) in str(end.value) and "\n" not in str(end.value)
    kept = Checkpoints(tmp_path / "run").steps()
    assert kept and load_runs([tmp_path / "run"])[0].state().step == kept[-1]


@pytest.mark.slow
def test_an_image_that_is_skipped_is_counted_and_listed(own_tree, tmp_path):
    options = {"data.source": "folder", "data.feed": "decoded", "data.on_bad": "skip"}
    config = tiny_config(own_tree, **options, num_epochs=1)
    del config.phases["deferred"]
    file = sorted((own_tree / "train").rglob("*.png"))[5]
    whole = train(config, tmp_path / "whole")
    spoil(file)
    notes = Notes()
    assert train(config, tmp_path / "run", notes) != whole
    (line,) = (tmp_path / "run/bad_images.txt").read_text().splitlines()
    assert str(file) in line and "(read for step " in line
    assert notes.warnings == [f"left out, 1 so far: {line}"]
    assert not (tmp_path / "whole/bad_images.txt").exists()


def test_a_run_that_waits_for_a_hanging_disk_stops_at_a_signal(npz, tmp_path, monkeypatch):
    """A read that takes a minute; the run does not wait for it."""
    read, gate = MappedImages.read, threading.Event()
    calls = []

    def hanging(self, index, *more):
        calls.append(1)
        if len(calls) == 4:
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        if len(calls) >= 4:
            gate.wait(60)
        return read(self, index, *more)

    config = tiny_config(npz, **{"data.feed": "mapped", "data.workers": 1})
    build(config)
    monkeypatch.setattr(
        MappedImages,
        "read",
        lambda self, i, *more: (hanging if len(i) == 16 else read)(self, i, *more),
    )
    with pytest.raises(Stopped, match="saved at step 3 of 12"):
        train(config, tmp_path / "run")
    gate.set()
    assert Checkpoints(tmp_path / "run").steps()[-1] == 3


@pytest.mark.slow
@pytest.mark.parametrize("crop", ["original_crop", pytest.param("random_crop", marks=SLOW)])
def test_crops_of_originals_do_not_depend_on_threads(tree, tmp_path, crop):
    options = {
        "data.source": "folder",
        "data.image_size": 8,
        "data.resize_shorter": 10 if crop == "random_crop" else 0,
        "data.augment": (crop, "flip"),
        "num_epochs": 1,
    }
    config = tiny_config(tree, **options)
    del config.phases["deferred"]
    digests = []
    for workers in (1, 3):
        config.data.workers = workers
        digests.append(train(config, tmp_path / f"run{workers}"))
    config.data.augment = ("flip",)
    assert digests[0] == digests[1] != train(config, tmp_path / "whole")
    images = build(tiny_config(tree, **options)).training.images
    plain = np.empty((5, 8, 8, 3), np.uint8)
    images.read(np.arange(5), plain)
    np.testing.assert_array_equal(images[:5], plain)
    images.read(np.arange(5), plain, Draws(0, 0, np.arange(5)))
    assert (images[:5] != plain).any((1, 2, 3)).all()


@pytest.mark.slow
@pytest.mark.parametrize("feed", ["resident", "decoded"])
def test_class_means_are_those_of_every_stored_image_once(npz, tree, tmp_path, feed):
    """Crops and flips of the training, on the host or in the step, do not change them."""
    crop = "original_crop" if feed == "decoded" else "crop"
    config = tiny_config(
        npz if feed == "resident" else tree,
        **{
            "data.source": "npz" if feed == "resident" else "folder",
            "data.image_size": 8,
            "data.feed": feed,
            "data.augment": (crop, "flip"),
            "num_epochs": 2,
        },
    )
    config.phases.deferred = make_phase(1, ("ncm",))
    state = jax.device_get(train_and_evaluate(config, tmp_path / "run", None))
    experiment = build(config)
    training, builder = experiment.training, experiment.batch_builder
    images = builder.normalize(jnp.asarray(training.images[np.arange(45)], jnp.float32) / 255)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    _, outputs = experiment.model.apply(variables, images, train=False)
    one_hot = np.eye(4)[training.labels]
    np.testing.assert_array_equal(state.extra["ncm"]["count"], one_hot.sum(axis=0))
    expected = np.asarray(outputs["features"], float).T @ one_hot
    np.testing.assert_allclose(state.extra["ncm"]["sums"], expected, rtol=1e-5, atol=1e-5)


def test_a_method_that_draws_images_within_a_step_needs_them_on_the_devices(npz):
    config = tiny_config(npz, **{"data.feed": "mapped"})
    config.phases.deferred.methods = ("meta_sampler",)
    with pytest.raises(ConfigError, match=r"meta_sampler .* legal: data.feed=resident"):
        build(config)
