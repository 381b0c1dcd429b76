"""The benchmarks of feeds, on a few small images."""

import numpy as np
import pytest
from PIL import Image

from benchmarks import feeds
from benchmarks.image_trees import write_tree
from purenoise_jax.data.host_images import HostImages

pytestmark = pytest.mark.slow


class Slow(HostImages):
    """Images that take a given time to read."""

    def __init__(self, seconds):
        super().__init__((8, 2, 2, 3))
        self.seconds = seconds

    def read(self, index, out, draws=None):
        feeds.time.sleep(self.seconds)
        out[:] = 0
        return []

    def subset(self, index):
        return self


def test_a_tree_has_every_class_and_a_long_tail(tmp_path):
    paths = write_tree(tmp_path, 60, 4, sides=(8, 12), distinct=3)
    counts = [len(list((tmp_path / "train").glob(f"{label:04d}/*.jpg"))) for label in range(4)]
    assert sum(counts) == len(paths) == 60 and counts[0] > counts[-1] >= 1
    assert {path.parent.name for path in (tmp_path / "test").glob("*/*")} == {
        f"{label:04d}" for label in range(4)
    }
    for path in paths:
        with Image.open(path) as image:
            assert set(image.size) <= set(range(8, 13))


def test_a_feed_that_takes_twice_as_long_as_the_steps_doubles_an_epoch():
    index = feeds.order_of(8, 4, 10)
    row = feeds.share_of_epoch(Slow(0.1), index, 1, 0.05, rounds=1)
    # Less two batches, which are read before. A busy machine can only take longer.
    assert row["share"] > 0.5 and row["step_ms"] == 50


def test_both_loaders_read_the_images_of_a_tree(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is not installed; pip install -e '.[bench]'")
    monkeypatch.setattr(feeds, "SIDE", 16)
    paths = write_tree(tmp_path / "tree", 20, 2, sides=(20, 30), distinct=3)
    index = feeds.order_of(20, 4, 3)
    with feeds.cache_in(tmp_path / "cache"):
        images = feeds.decoded_images(tmp_path / "tree")
        assert images.shape == (20, 16, 16, 3)
        feeds.reading(images, index, 2).run()
    feeds.torch_reading(paths, index, 0).run()


def test_windows_of_the_loader_are_within_the_image():
    torch_loader = pytest.importorskip("benchmarks.torch_loader", reason="PyTorch is not installed")
    boxes = np.array([torch_loader._window(30, 20) for _ in range(200)])
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= 30).all() and (boxes[:, 3] <= 20).all()
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / 600
    assert 0.05 < areas.min() < 0.2 and areas.max() > 0.6


def test_mapped_images_and_draws(tmp_path):
    images = feeds.mapped_images(tmp_path / "pixels", 3)
    assert images.shape == (3, 224, 224, 3) and images[np.array([2])].std() > 50
    row = feeds.balanced_epoch(40, 3, rounds=1, batch_size=8)
    assert row["images"] == 40 and row["ms"] > 0


def test_the_second_start_finds_the_manifest():
    rows = feeds.first_steps(300, 2, (8, 12))
    assert [row["name"] for row in rows] == ["first start", "second start"]
    assert all(row["first_step_seconds"] > 0 for row in rows)
