"""Runs with damaged checkpoints: the step that they start from, and their messages."""

import json
import shutil

import pytest

from purenoise_jax.checkpoint import __main__ as cli
from purenoise_jax.checkpoint import manifest
from purenoise_jax.checkpoint.digest import state_digest
from purenoise_jax.checkpoint.manager import QUARANTINE, Checkpoints
from purenoise_jax.inference.runs import load_runs
from purenoise_jax.runtime.errors import CheckpointError
from purenoise_jax.training.loop import train_and_evaluate
from purenoise_jax.training.metric_writer import read_metrics
from tests.notes import Notes
from tests.step_folders import files_of, flip, step_folder
from tests.tiny import tiny_config, write_npz


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    npz = write_npz(folder / "tiny.npz")
    config = tiny_config(npz, **{"checkpoint.every_steps": 1, "checkpoint.keep": 100})
    return config, folder / "run", train_and_evaluate(config, folder / "run")


@pytest.fixture
def run_copy(finished, tmp_path):
    shutil.copytree(finished[1], tmp_path / "run")
    return tmp_path / "run"


def test_a_run_continues_from_the_newest_undamaged_step(finished, run_copy):
    config, undisturbed, state = finished
    for step in (10, 12):
        largest = max(
            files_of(step_folder(run_copy, step) / "state"), key=lambda p: p.stat().st_size
        )
        flip(largest, 40)
    shutil.rmtree(step_folder(run_copy, 11))
    notes = Notes()
    again = train_and_evaluate(config, run_copy, notes)
    assert state_digest(again) == state_digest(state)
    assert sum("passed over the checkpoint of step" in line for line in notes.lines) == 2
    assert any("step 12: state/" in line and "sha256" in line for line in notes.lines)
    assert any("continues at step 9" in line for line in notes.lines)
    assert sorted(p.name for p in (run_copy / "checkpoints" / QUARANTINE).iterdir()) == ["10", "12"]

    def without_rates(path):
        return [
            {k: v for k, v in r.items() if "per_second" not in k}
            for r in read_metrics(path / "metrics.jsonl")
        ]

    assert without_rates(run_copy) == without_rates(undisturbed)


def test_a_run_starts_from_scratch_only_on_request(finished, run_copy):
    config, _, state = finished
    for step in Checkpoints(run_copy).steps():
        (step_folder(run_copy, step) / "manifest.json").unlink()
    before = sorted(p for p in run_copy.rglob("*"))
    with pytest.raises(CheckpointError, match=r"was never completed.*fresh=True"):
        train_and_evaluate(config, run_copy)
    assert sorted(p for p in run_copy.rglob("*")) == before, "nothing is moved or deleted"
    fresh = config.copy_and_resolve_references()
    fresh.fresh = True
    notes = Notes()
    again = train_and_evaluate(fresh, run_copy, notes)
    assert state_digest(again) == state_digest(state)
    assert any("starts from scratch" in line for line in notes.lines)
    aside = {p.name for p in (run_copy / "checkpoints" / QUARANTINE).iterdir()}
    assert {"1", "12", "metrics.jsonl", "summary.json"} <= aside
    assert [r["step"] for r in read_metrics(run_copy / "metrics.jsonl")] == [3, 6, 9, 12]


def rewind(run, step):
    """Takes a finished run back to a step, as if it had been killed there."""
    for later in [s for s in Checkpoints(run).steps() if s > step]:
        shutil.rmtree(step_folder(run, later))
    (run / "summary.json").unlink()


@pytest.mark.every(4)
@pytest.mark.parametrize(
    ("step", "kept", "message"),
    [
        (6, [], "has no line for 2 of the epochs before (1, 2)"),
        # Step 5 lies within epoch 2, which has no line yet.
        (5, [], "has no line for 1 of the epochs before (1)"),
        (9, [1, 3], "has no line for 1 of the epochs before (2)"),
        (9, [1, 2, 3], None),
    ],
)
def test_lost_metrics_are_reported(finished, run_copy, step, kept, message):
    rewind(run_copy, step)
    lines = (run_copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    if kept:
        (run_copy / "metrics.jsonl").write_text("".join(lines[epoch - 1] for epoch in kept))
    else:
        (run_copy / "metrics.jsonl").unlink()
    notes = Notes()
    train_and_evaluate(finished[0], run_copy, notes)
    found = [line for line in notes.lines if "has no line for" in line]
    assert bool(found) == bool(message) and all(message in line for line in found)


@pytest.mark.slow
def test_metrics_of_the_run_in_init_from_are_not_reported_as_lost(finished, tmp_path):
    config, first, _ = finished
    second = config.copy_and_resolve_references()
    second.update_from_flattened_dict({"init_from": str(first), "init_epoch": 2})
    notes = Notes()
    train_and_evaluate(second, tmp_path / "run", notes)
    rewind(tmp_path / "run", 9)
    train_and_evaluate(second, tmp_path / "run", notes)
    assert not any("has no line for" in line for line in notes.lines)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"totals": None}, r"record has totals=None, which is not legal; legal: an object"),
        ({"totals": {}}, r"totals of a checkpoint's epoch: KeyError"),
        ({"totals": {"loss": "high"}}, r"totals=\{'loss': 'high'\}"),
        ({"seconds": "9"}, r"seconds='9'"),
        ({"steps_per_epoch": 3.0}, r"steps_per_epoch=3.0"),
        ({"epoch_ended": 1}, r"epoch_ended=1"),
        ({"init_from": {"workdir": "/x"}}, r"init_from="),
        ({"environment": []}, r"environment="),
        ({"skipped_steps": True}, r"skipped_steps=True"),
        ({"format": 7}, r"has format 7; this version reads 1 to"),
        ("seconds", r"record lacks seconds, so another version"),
        ("environment", r"record lacks environment"),
    ],
)
def test_an_undamaged_record_of_another_version_is_refused_in_one_line(
    finished, run_copy, change, message
):
    path = step_folder(run_copy, 12) / "record.json"
    record = json.loads(path.read_text())
    if isinstance(change, str):
        del record[change]
    else:
        record |= change
    path.write_text(json.dumps(record))
    manifest.commit(path.parent)
    with pytest.raises(CheckpointError, match=message):
        train_and_evaluate(finished[0], run_copy)


def test_a_damaged_checkpoint_in_init_from_is_refused(finished, tmp_path):
    config, first, _ = finished
    shutil.copytree(first, tmp_path / "source")
    flip(max(files_of(step_folder(tmp_path / "source", 6)), key=lambda p: p.stat().st_size), 40)
    second = config.copy_and_resolve_references()
    second.update_from_flattened_dict({"init_from": str(tmp_path / "source"), "init_epoch": 2})
    with pytest.raises(CheckpointError, match=r"/6: state/.* has another sha256"):
        train_and_evaluate(second, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_verify_command(finished, run_copy, capsys):
    assert cli.main(["checkpoint", "verify", str(run_copy)]) == 0
    assert cli.main(["checkpoint", "verify", str(run_copy / "checkpoints")]) == 0
    capsys.readouterr()
    flip(step_folder(run_copy, 5) / "record.json", 3)
    before = {p: p.stat().st_mtime_ns for p in run_copy.rglob("*")}
    assert cli.main(["checkpoint", "verify", str(run_copy)]) == 4
    out = capsys.readouterr().out
    assert "record.json has another sha256" in " ".join(out.split()) and out.count("complete") == 11
    assert {p: p.stat().st_mtime_ns for p in run_copy.rglob("*")} == before
    assert cli.main(["checkpoint", "verify", str(run_copy / "nowhere")]) == 4
    assert "there is no checkpoint" in capsys.readouterr().err
    assert cli.main(["checkpoint", "repair", str(run_copy)]) == 2
    assert cli.main(["checkpoint"]) == 2


def test_verify_shows_file_names_literally(finished, run_copy, capsys):
    """Square brackets are not markup, and control characters do not reach the terminal."""
    (step_folder(run_copy, 5) / "[b]x[@]\x1b[2J").write_text("x")
    (run_copy / "checkpoints/quarantine").mkdir()
    (run_copy / "checkpoints/quarantine/[red]7\x1b]0;\n").mkdir()
    assert cli.main(["checkpoint", "verify", str(run_copy)]) == 4
    out = capsys.readouterr().out
    assert r"[b]x[@]\x1b[2J is not in manifest.json" in " ".join(out.split())
    assert "set aside in quarantine/: [red]7\\x1b]0;\n" in out and "\x1b" not in out


def test_loading_a_run_names_the_damaged_checkpoint(finished, run_copy, capsys):
    (step_folder(run_copy, 12) / "record.json").unlink()
    assert int(load_runs([run_copy])[0].state().step) == 11
    error = capsys.readouterr().err
    assert "passed over the checkpoint of step 12 for that of step 11" in error
