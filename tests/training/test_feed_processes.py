"""Feeds in real processes: two processes read their own rows; memory does not grow with the data."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from purenoise_jax.training.build import build
from tests.runtime.test_multihost import Pair, arguments
from tests.tiny import COUNTS, tiny_config, write_npz

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PURENOISE_JAX_CACHE", str(tmp_path / "cache"))


def run_alone(*command, devices=2, **environment):
    flags = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags, **environment},
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def summary(workdir):
    return json.loads((workdir / "summary.json").read_text())


def test_two_processes_compute_what_one_does_with_two_devices(tmp_path):
    npz = write_npz(tmp_path / "tiny.npz")
    resident = ("--config.eval.train=True",)
    mapped = ("--config.data.feed=mapped", "--config.data.workers=2", *resident)
    for name, feed in (("resident", resident), ("mapped", mapped)):
        more = (*arguments(npz, tmp_path / name, *feed), "--config.num_devices=2")
        run_alone("purenoise_jax.main", *more)
    with Pair(tmp_path, *[arguments(npz, tmp_path / "pair", *mapped)] * 2) as pair:
        assert pair.codes(180) == [0, 0], (pair.messages(0), pair.messages(1))
    found = {name: summary(tmp_path / name) for name in ("resident", "mapped", "pair")}
    digests = {name: each["state_digest"] for name, each in found.items()}
    assert len(set(digests.values())) == 1, digests
    for each in found.values():
        fitted = each["training_set"]
        assert sum(fitted["predicted_images"]) == sum(COUNTS)
        for name in ("predicted_images", "per_class_accuracy"):
            assert fitted[name] == found["resident"]["training_set"][name]


def test_every_process_reads_the_rows_of_its_own_devices(tmp_path):
    """All files are damaged and left out, so the lists of these show what each process has read.

    A disk damages them: their sizes and times stay, so the start does not see it.
    """
    arrays = np.load(write_npz(tmp_path / "tiny.npz"))
    for split in ("train", "test"):
        for i, image in enumerate(arrays[f"{split}_images"]):
            name = f"tree/{split}/class{arrays[f'{split}_labels'][i]}/{i:03d}.png"
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tmp_path / name)
            os.utime(tmp_path / name, (1_700_000_000, 1_700_000_000))
    options = {"data.source": "folder", "data.feed": "decoded", "data.image_size": 8}
    build(tiny_config(tmp_path / "tree", **options))
    files = sorted((tmp_path / "tree/train").rglob("*.png"))
    for file in files:
        file.write_bytes(b"?" * file.stat().st_size)
        os.utime(file, (1_700_000_000, 1_700_000_000))
    more = ("--config.data.source=folder", "--config.data.feed=decoded", "--config.num_epochs=1",
            "--config.data.on_bad=skip", "--config.data.image_size=8",
            "--config.phases.initial.methods=('erm',)", "--config.optimizer.milestones=()")  # fmt: skip
    same = arguments(tmp_path / "tree", tmp_path / "run", *more)
    with Pair(tmp_path, same, same) as pair:
        assert pair.codes(120) == [0, 0], (pair.messages(0), pair.messages(1))
    read = [
        [line.split(": ")[0] for line in (tmp_path / "run" / name).read_text().splitlines()]
        for name in ("bad_images.txt", "bad_images.1.txt")
    ]
    assert sorted(read[0] + read[1]) == [str(file) for file in files]
    assert abs(len(read[0]) - len(read[1])) <= 8


def test_memory_does_not_grow_with_the_data_set(tmp_path):
    """Ten times as many images, 276 MB more; resident images are seen in the measure."""
    peaks = {}
    for feed, count in (("mapped", 10_000), ("mapped", 100_000), ("resident", 100_000)):
        name = f"{feed}, {count}"
        command = ("tests.training.feed_memory", tmp_path / name, count, feed)
        peaks[name] = float(run_alone(*command, devices=1))
        shutil.rmtree(tmp_path / name)
    few, many, resident = peaks.values()
    assert many - few < 50 < 250 < resident - few, peaks
