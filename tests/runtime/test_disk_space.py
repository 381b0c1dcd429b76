"""Disks that are full, refuse writes, or fail during a run; and odd things in a workdir."""

import errno
import json
import math
import os
import resource
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.inference.runs import load_runs
from purenoise_jax.main import main, write_report
from purenoise_jax.runtime import disk_space, files
from purenoise_jax.runtime.console import Display
from purenoise_jax.runtime.errors import ConfigError, StorageError
from purenoise_jax.training import metric_writer, metrics
from purenoise_jax.training.accumulators import EpochMetrics
from purenoise_jax.training.loop import train_and_evaluate
from tests.fake_runs import diagonal, write_run
from tests.notes import Notes
from tests.tiny import tiny_config, write_npz

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


def test_check_writable_leaves_no_files(tmp_path):
    disk_space.check_writable(tmp_path / "new/er")
    assert list((tmp_path / "new/er").iterdir()) == []


def test_a_folder_that_cannot_be_created_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"workdir=.*file/run cannot be written to: Not a dir"):
        disk_space.check_writable(tmp_path / "file/run")


def test_a_folder_without_permission_is_exit_code_5(npz, tmp_path):
    """The check runs as another user, who may not write there."""
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    code = (
        "import os, sys; from purenoise_jax.runtime import disk_space; from pathlib import Path\n"
        "os.getuid() == 0 and os.setuid(65534)\n"
        "try: disk_space.check_writable(Path(sys.argv[1]))\n"
        "except disk_space.StorageError as error: print(error); sys.exit(error.exit_code)"
    )
    for parent in folder.parents:
        # Folders of pytest are closed to other users.
        if parent.stat().st_uid == folder.stat().st_uid and parent.parts[1:2] == ("tmp",):
            parent.chmod(parent.stat().st_mode | 0o555)
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    assert done.returncode == 5 and "Permission denied" in done.stdout, done.stderr


def test_too_little_room_is_refused_before_anything_is_compiled(npz, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10, 10, 5000))
    arguments = ["--config", f"tests/tiny_cli.py:{npz}", "--workdir", str(tmp_path / "run")]
    assert main(["main", *arguments]) == 5
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    # Two rolling ones, those of epochs 2 and 4, and one before another is deleted.
    assert "has 0.0 MB free, but 5 checkpoints of 0.0 MB are still to come" in error
    assert not (tmp_path / "run").exists()


def test_a_text_is_appended_completely_or_not_at_all(tmp_path):
    path = tmp_path / "lines"
    metric_writer.append_whole(path, "one\n")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limit[1]))
    try:
        with pytest.raises(OSError) as error:
            metric_writer.append_whole(path, "two two two two\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert error.value.errno == errno.EFBIG
    assert path.read_text() == "one\n"
    metric_writer.append_whole(path, "three\n")
    assert path.read_text() == "one\nthree\n"


def test_metrics_that_cannot_be_written_cause_one_warning_and_are_written_later(tmp_path):
    warnings = []
    log = metric_writer.MetricsWriter(tmp_path, 0, warnings.append)
    log.write(1, {"train/loss": 1.0})
    log.path.rename(tmp_path / "aside")
    log.path.mkdir()
    for step in (2, 3):
        log.write(step, {"train/loss": 1.0})
    assert len(warnings) == 1 and "metrics cannot be written, training goes on" in warnings[0]
    log.path.rmdir()
    (tmp_path / "aside").rename(log.path)
    log.write(4, {"train/loss": 1.0})
    log.close()
    assert [r["step"] for r in metric_writer.read_metrics(log.path)] == [1, 2, 3, 4]


@pytest.mark.slow
def test_metrics_that_cannot_be_read_at_the_start_cause_a_warning(npz, tmp_path, monkeypatch):
    """Once they can be read, records of repeated steps do not appear twice."""
    config = tiny_config(npz, num_epochs=3)
    train_and_evaluate(config, tmp_path)
    shutil.rmtree(tmp_path / "checkpoints/9")
    read_bytes, broken = metric_writer.read_bytes, [True]

    def read(path):
        if broken and path.name == metric_writer.METRICS:
            raise OSError(errno.EIO, "broken", str(path))
        return read_bytes(path)

    monkeypatch.setattr(metric_writer, "read_bytes", read)

    class Mender(Notes):
        def doing(self, what):
            if what.startswith("evaluating"):
                broken.clear()

    display = Mender()
    train_and_evaluate(config, tmp_path, display)
    assert len(display.warnings) == 1 and "metrics cannot be written" in display.warnings[0]
    assert [r["step"] for r in metric_writer.read_metrics(tmp_path / "metrics.jsonl")] == [3, 6, 9]


@pytest.mark.slow
def test_a_start_without_room_changes_no_files(npz, tmp_path, monkeypatch):
    train_and_evaluate(tiny_config(npz, num_epochs=3), tmp_path)
    before = sorted(tmp_path.rglob("*"))
    fresh = tiny_config(npz, num_epochs=3, fresh=True)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: Usage(10, 10, 5000))
        with pytest.raises(StorageError, match="still to come"):
            train_and_evaluate(fresh, tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    train_and_evaluate(tiny_config(npz, num_epochs=4), tmp_path)


FULL = """
import resource, sys
from pathlib import Path
from purenoise_jax.training.metric_writer import MetricsWriter
log = MetricsWriter(Path(sys.argv[1]), 0, print)
log.write(1, {f"number/{i}": 1.0 for i in range(20)})
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
for step in range(2, 40):
    log.write(step, {f"number/{i}": 1.0 for i in range(20)})
log.close()
print("done")
"""


def test_a_run_continues_when_the_disk_is_full_for_its_metrics(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and lines[0].startswith("warning: metrics") and lines[1] == "done"
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line)


@pytest.mark.slow
def test_an_incomplete_line_of_a_killed_run_is_removed_and_each_step_is_there_once(npz, tmp_path):
    train_and_evaluate(tiny_config(npz, num_epochs=3), tmp_path)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    shutil.rmtree(tmp_path / "checkpoints/9")
    train_and_evaluate(tiny_config(npz, num_epochs=3), tmp_path)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [3, 6, 9]


def test_a_workdir_path_that_is_too_long_is_one_line(npz, tmp_path, capsys):
    arguments = ["--config", f"tests/tiny_cli.py:{npz}", "--workdir", str(tmp_path / ("x" * 300))]
    assert main(["main", *arguments]) == 5
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_lines_that_are_not_json_are_removed(npz, tmp_path):
    path = tmp_path / "metrics.jsonl"
    train_and_evaluate(tiny_config(npz, num_epochs=3), tmp_path)
    bad = ['{"step": 1, "x": NaN}', "[" * 100_000, '{"step": 2, "x": -Infinity}', "\x00", "null"]
    path.write_text("\n".join([*bad, path.read_text()]))
    train_and_evaluate(tiny_config(npz), tmp_path)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [3, 6, 9, 12]


def test_a_likelihood_that_is_not_finite_is_left_out_and_the_run_continues(
    npz, tmp_path, monkeypatch, capsys
):
    """Finite parameters can give an image a logarithm of minus infinity."""
    summarize = metrics.summarize

    def infinite(confusion, nll, bins, class_counts):
        return {**summarize(confusion, nll, bins, class_counts), "nll": math.inf, "ece": math.nan}

    monkeypatch.setattr(metrics, "summarize", infinite)
    train_and_evaluate(tiny_config(npz), tmp_path, Display())
    assert "- " in capsys.readouterr().out
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["test_nll"] is None and summary["test_accuracy"] > 0
    assert not any("test/nll" in r for r in metric_writer.read_metrics(tmp_path / "metrics.jsonl"))


def test_sums_that_are_not_finite_can_be_saved():
    sums = EpochMetrics.zero(3).sums._replace(row_loss=np.float32(np.inf), steps=np.int32(2))
    totals = EpochMetrics(sums, np.array([False, True, False]))
    again = EpochMetrics.zero(3).from_json(
        json.loads(json.dumps(totals.to_json(), allow_nan=False))
    )
    chex.assert_trees_all_equal(again, jax.tree.map(jnp.asarray, totals))


@pytest.mark.slow
def test_a_run_reports_that_its_checkpoints_are_gone(npz, tmp_path):
    first, second = Notes(), Notes()
    train_and_evaluate(tiny_config(npz, num_epochs=3), tmp_path, first)
    assert not any("from scratch" in line for line in first.lines)
    shutil.rmtree(tmp_path / "checkpoints")
    train_and_evaluate(tiny_config(npz, num_epochs=3), tmp_path, second)
    assert any(
        "there is no checkpoint in" in line and "written metrics" in line for line in second.lines
    )


DAMAGED = [
    '{"fixed": []}',
    '{"fixed": [{}]}',
    '{"fixed": null}',
    "{}",
    "[]",
    "null",
    "[" * 100_000,
    "{",
]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_config_file_is_one_line(npz, tmp_path, capsys, text):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text(text)
    arguments = ["--config", f"tests/tiny_cli.py:{npz}", "--workdir", str(tmp_path / "run")]
    assert main(["main", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "config.json is damaged" in error
    with pytest.raises(ConfigError, match=r"config\.json is damaged"):
        load_runs([tmp_path / "run"])


def test_a_folder_of_the_user_is_not_removed(npz, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10, 10, 5000))
    (tmp_path / "mine").mkdir()
    arguments = ["--config", f"tests/tiny_cli.py:{npz}", "--workdir", str(tmp_path / "mine")]
    assert main(["main", *arguments]) == 5
    assert (tmp_path / "mine").is_dir()


ODD = {
    "a pipe for config.json": ("config.json", os.mkfifo, "config.json is a named pipe"),
    "a pipe for metrics.jsonl": ("metrics.jsonl", os.mkfifo, "metrics.jsonl is a named pipe"),
    "a folder for metrics.jsonl": ("metrics.jsonl", Path.mkdir, "metrics.jsonl is a folder"),
    "a pipe for skipped.jsonl": ("skipped.jsonl", os.mkfifo, "skipped.jsonl is a named pipe"),
    "a link for tensorboard": (
        "tensorboard", lambda path: path.symlink_to(".."), "tensorboard is a symbolic link"
    ),
    "a link for checkpoints": (
        "checkpoints", lambda path: path.symlink_to(".."), "checkpoints is a symbolic link"
    ),
    "a pipe for the lock": ("run.lock", os.mkfifo, "run.lock is a named pipe"),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_a_workdir_with_pipes_and_links_is_refused_in_one_line(npz, tmp_path, capsys, case):
    name, make, message = ODD[case]
    (tmp_path / "run").mkdir()
    make(tmp_path / "run" / name)
    # All but the lock are refused before the data are read.
    path = npz if name == "run.lock" else "absent"
    arguments = ["--config", f"tests/tiny_cli.py:{path}", "--workdir", str(tmp_path / "run")]
    assert main(["main", *arguments]) == 5
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
    assert {p.name for p in (tmp_path / "run").iterdir()} <= {name, "run.lock"}


@pytest.mark.slow
def test_targets_of_links_in_a_workdir_are_never_written(npz, tmp_path):
    """This holds for links in place of files and in place of temporary files of a killed run."""
    workdir = tmp_path / "disk/run"
    workdir.mkdir(parents=True)
    # Users link the workdir or a folder above it to a larger disk, so these links are followed.
    (tmp_path / "runs").symlink_to("disk")
    names = ("metrics.jsonl", "summary.json", "skipped.jsonl", "report.html", "config.json.tmp",
             "metrics.jsonl.tmp", "summary.json.tmp", "report.html.tmp")  # fmt: skip
    for name in names:
        (tmp_path / f"target.{name}").write_text("precious")
        (workdir / name).symlink_to(f"../../target.{name}")
    left = workdir / f".config.json.{'0' * 16}.tmp"
    left.write_text("half")
    config = tiny_config(npz, num_epochs=3)
    display = Notes()
    train_and_evaluate(
        config,
        tmp_path / "runs/run",
        display,
        lambda experiment: write_report(workdir, display, False, experiment),
    )
    for name in names:
        assert (tmp_path / f"target.{name}").read_text() == "precious"
    for name in ("config.json", "metrics.jsonl", "summary.json", "report.html"):
        assert not (workdir / name).is_symlink() and (workdir / name).stat().st_size > 100
    assert not left.exists()
    assert sum("no records" in line for line in display.warnings) <= 1


def test_an_error_of_a_full_disk_names_config_json(npz, tmp_path, capsys, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    write_json = files.write_json

    def write(path, value):
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            write_json(path, value)

    monkeypatch.setattr(files, "write_json", write)
    arguments = ["--config", f"tests/tiny_cli.py:{npz}", "--workdir", str(tmp_path / "run")]
    assert main(["main", *arguments]) == 5
    error = capsys.readouterr().err
    assert error == f"error: {tmp_path / 'run/config.json'}: No space left on device\n"


def test_a_workdir_of_another_run_is_exit_code_4(tmp_path, capsys):
    workdir = write_run(tmp_path / "run", counts=[9, 3], evaluations={4: diagonal([0.5, 0.5])})
    config = ["--config", "tests/tiny_cli.py:absent", "--workdir", str(workdir)]
    assert main(["main", *config]) == 4
    assert "is of another run; " in capsys.readouterr().err
    (workdir / "config.json").unlink()
    (workdir / "checkpoints/3").mkdir(parents=True)
    assert main(["main", *config]) == 4
    assert "has checkpoints but no config.json" in capsys.readouterr().err
