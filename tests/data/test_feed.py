"""Feeds: the same rows from the devices and from the host, by any number of threads and devices."""

import threading
import time

import jax
import numpy as np
import pytest

from purenoise_jax.data.feed import AHEAD, ResidentFeed, StreamingFeed
from purenoise_jax.data.host_images import HostImages
from purenoise_jax.data.rows import StreamedRows
from purenoise_jax.runtime import threads
from purenoise_jax.runtime.errors import DataError
from purenoise_jax.runtime.sharding import Placement

IMAGES = np.random.default_rng(0).integers(0, 256, (37, 4, 5, 3), np.uint8)
LABELS = np.random.default_rng(1).integers(0, 3, 37).astype(np.int32)
INDEX = np.random.default_rng(2).integers(0, 37, (5, 8)).astype(np.int32)
VALID = np.ones((5, 8), bool)
VALID[-1, 5:] = False
INDEX[-1, 5:] = 0


class InMemory(HostImages):
    """Images in an array; some are damaged, and the first read may have to wait."""

    def __init__(self, images=IMAGES, bad=(), gate=None):
        super().__init__(images.shape)
        self.images, self.bad, self.gate, self.seen, self.draws = images, bad, gate, [], []

    def read(self, index, out, draws=None):
        self.draws.append(draws)
        if self.gate is not None:
            self.gate.wait()
        self.seen += index.tolist()
        out[:] = self.images[index]
        faults = [i for i, place in enumerate(index.tolist()) if place in self.bad]
        out[faults] = 0
        return [(i, f"image {index[i]} is damaged") for i in faults]

    def subset(self, index):
        return InMemory(self.images[index])


def stream(images=None, devices=1, workers=1, skip=None):
    return StreamingFeed(images or InMemory(), LABELS, Placement(8, devices), workers, skip)


@pytest.mark.parametrize("devices", [1, 2, 8])
@pytest.mark.parametrize("workers", [1, 2, 4, 11])
def test_a_streamed_step_has_the_rows_that_a_resident_step_looks_up(devices, workers):
    feed, placement = stream(devices=devices, workers=workers), Placement(8, devices)
    resident = ResidentFeed(placement).epoch(INDEX, VALID)
    ahead = feed.epoch(INDEX, VALID)
    for row in range(len(INDEX)):
        rows = ahead.take(row)
        np.testing.assert_array_equal(rows.images, IMAGES[np.asarray(resident.index[row])])
        np.testing.assert_array_equal(rows.labels, LABELS[INDEX[row]])
        np.testing.assert_array_equal(rows.valid, np.asarray(resident.valid[row]))
        for part in jax.tree.leaves(rows):
            assert part.sharding == placement.batch
    feed.close()


def test_an_epoch_can_begin_at_any_step():
    whole, part = stream(), stream()
    first = whole.epoch(INDEX, VALID)
    rows = [first.take(row) for row in range(5)]
    later = part.epoch(INDEX, VALID, 3)
    for row in (3, 4):
        jax.tree.map(np.testing.assert_array_equal, later.take(row), rows[row])
    assert set(part.images.seen) == {*INDEX[3], *INDEX[4]}


@pytest.mark.parametrize(
    ("step", "augments", "changed"), [(4, True, True), (4, False, False), (None, True, False)]
)
def test_images_are_read_as_they_are_stored_in_evaluations_and_where_it_is_asked_for(
    step, augments, changed
):
    feed = stream()
    feed.epoch(INDEX, VALID, step=step, augments=augments).take(0)
    assert [draws is not None for draws in feed.images.draws[:1]] == [changed]


def test_only_the_next_batch_and_one_more_are_read_early():
    feed = stream()
    ahead = feed.epoch(INDEX, VALID)
    for row in range(5):
        ahead.wait(row)
        feed.pool.submit(int).result()
        assert len(feed.images.seen) == 8 * min(row + AHEAD, 5)
        assert isinstance(ahead.take(row), StreamedRows)


def test_a_process_reads_only_the_rows_of_its_devices(monkeypatch):
    feed = stream(devices=2)
    mine = np.arange(4, 8)
    monkeypatch.setattr(Placement, "local_rows", lambda self, size: mine)
    seen = []
    monkeypatch.setattr(Placement, "split_batch", lambda self, local, size: seen.append(local))
    feed.epoch(INDEX, VALID).take(0)
    np.testing.assert_array_equal(seen[0], IMAGES[INDEX[0, 4:]])
    assert set(feed.images.seen) <= set(INDEX[:3, 4:].ravel().tolist())


def test_the_rows_of_a_process_are_those_of_its_devices():
    placement = Placement(16, 8)
    np.testing.assert_array_equal(placement.local_rows(16), np.arange(16))
    one = np.arange(16).reshape(16, 1)
    np.testing.assert_array_equal(placement.split_batch(one, 16), one)


def test_a_damaged_image_ends_the_run_with_its_name_and_step():
    bad = int(INDEX[3, 2])
    feed = stream(InMemory(bad=[bad]))
    first = min(row for row in range(5) if bad in INDEX[row])
    ahead = feed.epoch(INDEX, VALID, step=100)
    with pytest.raises(
        DataError, match=rf"image {bad} is damaged \(read for step {100 + first}\).*=stop,.*=skip"
    ):
        for row in range(5):
            ahead.take(row)


def test_a_damaged_image_that_is_skipped_is_padding_and_is_listed():
    bad, lines = int(INDEX[1, 0]), []
    ahead = stream(InMemory(bad=[bad]), workers=3, skip=lines.append).epoch(INDEX, VALID)
    for row in range(5):
        rows = ahead.take(row)
        np.testing.assert_array_equal(rows.valid, VALID[row] & (INDEX[row] != bad))
        assert not np.asarray(rows.images)[INDEX[row] == bad].any()
    assert len(lines) == (VALID & (bad == INDEX)).sum() and all(f"image {bad}" in x for x in lines)


def test_a_thread_that_raises_ends_the_run_with_one_line():
    class Broken(InMemory):
        def read(self, index, out, draws=None):
            raise ZeroDivisionError("by\nzero")

    ahead = stream(Broken(), workers=2).epoch(INDEX, VALID, step=None)
    with pytest.raises(DataError, match=r"read in an evaluation \(ZeroDivisionError: by zero\)"):
        ahead.take(0)


def test_a_read_that_hangs_can_be_interrupted_and_is_left_behind(monkeypatch):
    gate, calls = threading.Event(), []

    def poll():
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    feed = stream(InMemory(gate=gate))
    ahead = feed.epoch(INDEX, VALID)
    with pytest.raises(KeyboardInterrupt):
        ahead.wait(0, poll)
    hurried = threading.Event()
    monkeypatch.setattr(threads, "_hurried", hurried)
    feed.close()
    gate.set()
    # The process may not wait for the thread when it ends.
    assert hurried.is_set()


def test_after_a_hang_the_rows_are_those_without_it():
    gate = threading.Event()
    ahead = stream(InMemory(gate=gate), workers=2).epoch(INDEX, VALID)
    threading.Timer(0.2, gate.set).start()
    ahead.wait(0, lambda: None)
    np.testing.assert_array_equal(ahead.take(0).images, IMAGES[INDEX[0]])


def test_a_feed_that_has_read_everything_leaves_nothing_behind(monkeypatch):
    monkeypatch.setattr(threads, "_hurried", threading.Event())
    feed = stream()
    ahead = feed.epoch(INDEX, VALID)
    for row in range(5):
        ahead.take(row)
    feed.close()
    assert not threads._hurried.is_set()


def test_an_epoch_that_is_broken_off_is_not_read_further():
    feed = stream()
    feed.epoch(INDEX, VALID)
    feed.epoch(INDEX[::-1], VALID).take(0)
    feed.close()
    time.sleep(0.05)
    assert len(feed.images.seen) <= 8 * (1 + 1 + AHEAD + 1)


def test_images_in_files_are_indexed_as_arrays_are():
    images = InMemory()
    for index in (3, -1, slice(2, 9, 3), [4, 4, 0], np.array([[1, 2], [3, 4]]), LABELS == 1):
        np.testing.assert_array_equal(images[index], IMAGES[index])
    with pytest.raises(IndexError):
        images[37]
    with pytest.raises(DataError, match="image 3 is damaged"):
        InMemory(bad=[3])[2:5]
