"""Checkpoints: damage is found, damaged steps are passed over, and complete ones are never lost."""

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.checkpoint import __main__ as cli
from purenoise_jax.checkpoint import manifest
from purenoise_jax.checkpoint.manager import QUARANTINE, STAGING, TRASH, Checkpoints, prunable
from purenoise_jax.runtime.errors import CheckpointError, StorageError
from purenoise_jax.training.train_step import TrainState
from tests.step_folders import files_of, flip, step_folder


def make_state(step: int, scale: float = 1.0) -> TrainState:
    """Different arrays for every step."""
    values = np.random.default_rng(step).normal(size=(4, 6)).astype(np.float32) * scale
    return jax.tree.map(
        jnp.asarray,
        TrainState(
            step=np.int32(step),
            params={"head": {"kernel": values, "bias": values[0]}},
            batch_stats={"norm": {"mean": values[:, 0]}},
            opt_state=(np.int32(step), {"trace": values * 2}),
        ),
    )


def target_of(state):
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state)


TARGET = target_of(make_state(0))


def save_steps(workdir, steps, **options):
    checkpoints = Checkpoints(workdir, **{"keep": 100, **options})
    checkpoints.prepare()
    for step in steps:
        checkpoints.save(make_state(step), {"epoch": step / 10})
    checkpoints.close()


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A workdir with the checkpoints of steps 1, 2 and 3; tests copy it and do not change it."""
    workdir = tmp_path_factory.mktemp("three")
    save_steps(workdir, (1, 2, 3))
    return workdir


@pytest.fixture
def copy(three, tmp_path):
    shutil.copytree(three, tmp_path / "run")
    return tmp_path / "run"


def test_the_manifest_lists_every_file(three):
    folder = step_folder(three)
    listed = json.loads((folder / "manifest.json").read_text())["files"]
    present = {p.relative_to(folder).as_posix(): p.read_bytes() for p in files_of(folder)}
    del present["manifest.json"]
    assert json.loads((folder / "manifest.json").read_text())["name"] == "3"
    assert listed == {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in present.items()
    }
    assert len(listed) > 5 and "record.json" in listed


def test_a_saved_state_is_restored(three):
    checkpoints = Checkpoints(three)
    assert checkpoints.newest() == 3 and checkpoints.passed_over == {}
    for step in (1, 2, 3):
        chex.assert_trees_all_equal(checkpoints.restore(step, TARGET), make_state(step))
        assert checkpoints.record(step)["epoch"] == step / 10


def test_a_flipped_bit_in_any_file_is_found_and_the_file_named(copy):
    folder = step_folder(copy)
    rng = np.random.default_rng(0)
    for path in files_of(folder):
        original = path.read_bytes()
        name = path.relative_to(folder).as_posix()
        for position in {0, len(original) // 2, len(original) - 1} if original else ():
            flip(path, position, int(rng.integers(8)))
            damage = manifest.find_damage(folder)
            path.write_bytes(original)
            assert damage is not None or name == "manifest.json", (name, position)
            assert damage is None or name in damage or name == "manifest.json", damage
    assert manifest.find_damage(folder) is None


def test_a_changed_manifest_is_damaged_or_means_the_same(copy):
    path = step_folder(copy) / "manifest.json"
    original = path.read_bytes()
    listed = json.loads(original)
    found = 0
    for position in range(0, len(original), 3):
        flip(path, position, position % 8)
        if manifest.find_damage(path.parent) is None:
            assert json.loads(path.read_bytes()) == listed, position
        else:
            found += 1
        path.write_bytes(original)
    assert found > len(original) / 4


DAMAGES = {
    "truncated": lambda f: f["data"].write_bytes(f["data"].read_bytes()[:-1]),
    "emptied": lambda f: f["data"].write_bytes(b""),
    "longer": lambda f: f["data"].write_bytes(f["data"].read_bytes() + b"\0"),
    "missing": lambda f: f["data"].unlink(),
    "added": lambda f: (f["folder"] / "state/more").write_bytes(b"x"),
    "swapped": lambda f: (f["data"].rename(f["folder"] / "x"), f["other"].rename(f["data"]),
                          (f["folder"] / "x").rename(f["other"])),
    "file is a link": lambda f: (shutil.copy(f["data"], f["outside"]), f["data"].unlink(),
                                 f["data"].symlink_to(f["outside"])),
    "step is a link": lambda f: (shutil.copytree(f["folder"], f["outside"].with_name("all")),
                                 shutil.rmtree(f["folder"]),
                                 f["folder"].symlink_to(f["outside"].with_name("all"))),
    "fifo": lambda f: os.mkfifo(f["folder"] / "fifo"),
    "no manifest": lambda f: (f["folder"] / "manifest.json").unlink(),
    "empty manifest": lambda f: (f["folder"] / "manifest.json").write_text(""),
    "manifest of nothing": lambda f: (f["folder"] / "manifest.json").write_text('{"name": "3", "files": {}}'),
    "manifest is a list": lambda f: (f["folder"] / "manifest.json").write_text("[]"),
    "manifest without sums": lambda f: (f["folder"] / "manifest.json").write_text(
        json.dumps({"name": "3", "files": {"record.json": {}}})),
    "manifest nested": lambda f: (f["folder"] / "manifest.json").write_text("[" * 100_000),
    "manifest is binary": lambda f: (f["folder"] / "manifest.json").write_bytes(b"\xff\xfe" * 50),
    "manifest leads outside": lambda f: (f["folder"] / "manifest.json").write_text(
        json.dumps({"name": "3", "files": {"../../../secret": {"size": 1, "sha256": ""}}})),
    "manifest is a folder": lambda f: ((f["folder"] / "manifest.json").unlink(),
                                       (f["folder"] / "manifest.json").mkdir()),
    "manifest is a pipe": lambda f: ((f["folder"] / "manifest.json").unlink(),
                                     os.mkfifo(f["folder"] / "manifest.json")),
    "manifest is a link": lambda f: (
        (f["folder"] / "manifest.json").rename(f["outside"]),
        (f["folder"] / "manifest.json").symlink_to(f["outside"])),
    "empty": lambda f: (shutil.rmtree(f["folder"]), f["folder"].mkdir()),
    "half deleted": lambda f: shutil.rmtree(f["folder"] / "state"),
    "of another step": lambda f: (shutil.rmtree(f["folder"]), shutil.copytree(f["folder"].with_name("1"), f["folder"])),
}  # fmt: skip


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_step_is_passed_over_and_set_aside(copy, how):
    folder = step_folder(copy)
    data, other = sorted(files_of(folder / "state"), key=lambda p: p.stat().st_size)[-2:]
    outside = copy.with_name("outside")
    DAMAGES[how]({"folder": folder, "data": data, "other": other, "outside": outside})
    checkpoints = Checkpoints(copy, keep=100)
    assert checkpoints.newest() == 2
    assert list(checkpoints.passed_over) == [3] and checkpoints.passed_over[3]
    chex.assert_trees_all_equal(checkpoints.restore(2, TARGET), make_state(2))
    checkpoints.quarantine(folder)
    assert [p.name for p in (copy / "checkpoints" / QUARANTINE).iterdir()] == ["3"]
    assert checkpoints.steps() == [1, 2]
    # The same step is saved again and damaged again; the first one stays in quarantine.
    checkpoints.save(make_state(3), {"epoch": 0.3})
    checkpoints.wait()
    assert checkpoints.newest() == 3
    checkpoints.quarantine(folder)
    aside = {p.name for p in (copy / "checkpoints" / QUARANTINE).iterdir()}
    assert aside == {"3", "3.1"}
    if how.endswith("link"):
        assert outside.exists() or outside.with_name("all").exists(), (
            "the target of the link is kept"
        )


def test_hidden_files_are_ignored(copy):
    (step_folder(copy) / ".DS_Store").write_text("")
    (step_folder(copy) / "state/.nfs0001").write_text("")
    assert Checkpoints(copy).newest() == 3


def test_without_an_undamaged_step_newest_raises(copy):
    for step in (1, 2, 3):
        (step_folder(copy, step) / "record.json").unlink()
    checkpoints = Checkpoints(copy)
    with pytest.raises(
        CheckpointError, match=r"none of 3 .*3: record\.json is missing.*fresh=True"
    ):
        checkpoints.newest()
    checkpoints.quarantine(*(step_folder(copy, step) for step in (1, 2, 3)))
    with pytest.raises(CheckpointError, match=r"all checkpoints are in quarantine/ \(1, 2, 3\)"):
        checkpoints.newest()
    assert Checkpoints(copy.with_name("new")).newest() is None


def test_folders_that_are_no_steps_stay_unchanged(copy):
    folder = copy / "checkpoints"
    for name in ("0004", "foo", "4.orbax-checkpoint-tmp", "-5", "\uff16"):
        (folder / name).mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / "99").mkdir()
    checkpoints = Checkpoints(copy, keep=1)
    assert checkpoints.steps() == [1, 2, 3, 99]
    assert checkpoints.newest() == 3, "an empty folder with a number is not a checkpoint"
    checkpoints.quarantine(folder / "99")
    checkpoints.prepare()
    checkpoints.save(make_state(4), {"epoch": 0.4})
    checkpoints.close()
    assert checkpoints.steps() == [4]
    assert {"0004", "foo", "4.orbax-checkpoint-tmp", "-5", "notes.txt"} <= {p.name for p in folder.iterdir()}  # fmt: skip


def test_a_file_with_a_number_is_passed_over(copy):
    (copy / "checkpoints/8").write_text("")
    checkpoints = Checkpoints(copy)
    assert checkpoints.newest() == 3 and checkpoints.passed_over == {8: "it is not a folder"}


def test_unfinished_checkpoints_of_killed_runs_are_removed(copy):
    folder = copy / "checkpoints"
    for name in (STAGING, TRASH):
        shutil.copytree(folder / "1", folder / name / "7", dirs_exist_ok=True)
        (folder / name / "link").symlink_to(folder / "2")
    Checkpoints(copy).prepare()
    assert not any((folder / STAGING).iterdir()) and not any((folder / TRASH).iterdir())
    assert Checkpoints(copy).newest() == 3 and manifest.find_damage(folder / "2") is None


@pytest.mark.parametrize("name", [STAGING, TRASH, QUARANTINE])
def test_no_file_is_deleted_through_a_link(copy, name):
    outside = copy.with_name("outside")
    outside.mkdir()
    (outside / "file").write_text("precious")
    shutil.rmtree(copy / "checkpoints" / name, ignore_errors=True)
    (copy / "checkpoints" / name).symlink_to(outside)
    with pytest.raises(StorageError, match=f"{name} is a symbolic link"):
        Checkpoints(copy).prepare()
    assert (outside / "file").read_text() == "precious"


def test_pruning_a_link_keeps_its_target(copy):
    outside = copy.with_name("elsewhere") / "1"
    outside.parent.mkdir()
    step_folder(copy, 1).rename(outside)
    step_folder(copy, 1).symlink_to(outside)
    save_steps(copy, (4,), keep=1)
    assert Checkpoints(copy).steps() == [4]
    assert manifest.find_damage(outside) is None


def test_keep_steps_and_the_newest_survive_any_schedule():
    rng = np.random.default_rng(0)
    for _ in range(1000):
        keep = int(rng.integers(1, 5))
        keep_steps = set(rng.choice(60, rng.integers(0, 4)).tolist())
        present: list[int] = []
        saved = np.unique(rng.choice(60, rng.integers(1, 30)))
        for step in saved.tolist():
            present.append(step)
            pruned = prunable(present, keep, keep_steps)
            present = [s for s in present if s not in pruned]
            done = [s for s in saved.tolist() if s <= step]
            assert keep_steps & {*done} <= {*present}
            assert done[-keep:] == present[-len(done[-keep:]) :]
            assert len(present) <= keep + len(keep_steps)


def test_the_best_is_kept_until_another_one_is_complete(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1, keeps_best=True)
    checkpoints.prepare()
    there = []
    for step, best in ((1, None), (2, 2), (3, 2), (4, 2), (5, 5), (6, 5), (7, None)):
        checkpoints.save(make_state(step), {"epoch": 0}, best)
        checkpoints.wait()
        there.append(checkpoints.steps())
    checkpoints.close()
    assert there == [[1], [2], [2, 3], [2, 4], [5], [5, 6], [7]]


def test_a_best_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    """Also if the checkpoint before it is still being completed when the better one is saved."""
    checkpoints, commit = Checkpoints(tmp_path, keep=1, keeps_best=True), manifest.commit
    checkpoints.prepare()

    def slow_then_full(folder):
        if folder.name == "3":
            raise OSError(errno.ENOSPC, "no room")
        time.sleep(0.2)
        commit(folder)

    monkeypatch.setattr(manifest, "commit", slow_then_full)
    checkpoints.save(make_state(1), {"epoch": 0}, 1)
    checkpoints.save(make_state(2), {"epoch": 0}, 1)
    with pytest.raises(StorageError):
        checkpoints.save(make_state(3), {"epoch": 0}, 3)
        checkpoints.wait()
    assert checkpoints.steps() == [1, 2]
    checkpoints.close()


def test_foreign_folders_are_not_counted_when_pruning(tmp_path):
    """Otherwise an empty folder would be kept and the step just saved would be deleted."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.prepare()
    for step in (1, 2, 3):
        (checkpoints.folder / str(1000 + step)).mkdir()
        checkpoints.save(make_state(step), {"epoch": 0})
    checkpoints.close()
    assert checkpoints.steps() == [2, 3, 1001, 1002, 1003] and checkpoints.newest() == 3


def test_an_unreadable_step_does_not_count_as_damaged(copy, monkeypatch):
    """Otherwise a short failure of a file server would lose the newest step."""

    def unavailable(path, sync=False):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(manifest, "_entry", unavailable)
    with pytest.raises(StorageError, match=r"/3: cannot be read: .*Input/output"):
        Checkpoints(copy).newest()
    assert Checkpoints(copy).steps() == [1, 2, 3]


def test_still_to_come_counts_the_checkpoints_that_a_run_adds(tmp_path):
    def count(step, last, **options):
        return Checkpoints(tmp_path, **options).still_to_come(step, last)

    assert count(0, 100, keep=2, keep_steps=[50, 100]) == 2 + 2 + 1
    assert count(0, 100, keep=2, keep_steps=[50, 100], keeps_best=True) == 2 + 2 + 1 + 1
    assert count(60, 100, keep=2, keep_steps=[50, 100]) == 2 + 1 + 1
    assert count(100, 100, keep=2, keep_steps=[100]) == 0
    save_steps(tmp_path, (1, 50))
    assert count(50, 100, keep=2, keep_steps=[50, 100]) == 1 + 1 + 1
    again = Checkpoints(tmp_path, keep=2, keep_steps=[50, 100])
    assert again.still_to_come(0, 100, without=[1, 50]) == 2 + 2 + 1


def test_a_background_failure_is_raised_and_older_steps_stay_complete(copy, monkeypatch):
    def full(folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoints = Checkpoints(copy, keep=1)
    checkpoints.prepare()
    monkeypatch.setattr(manifest, "commit", full)
    checkpoints.save(make_state(4), {"epoch": 0.4})
    with pytest.raises(StorageError, match=r"/4: could not be .*No space .* step 3 is complete"):
        while True:
            checkpoints.check()
    monkeypatch.undo()
    assert checkpoints.steps() == [1, 2, 3] and checkpoints.newest() == 3
    assert not any((copy / "checkpoints" / STAGING).iterdir())
    # After room is made, saving works again.
    checkpoints.save(make_state(4), {"epoch": 0.4})
    checkpoints.close()
    assert checkpoints.steps() == [4]


def test_a_step_is_listed_only_after_its_manifest_is_written(copy, monkeypatch):
    listed = []
    commit = manifest.commit
    monkeypatch.setattr(
        manifest, "commit", lambda f: (listed.append(Checkpoints(copy).steps()), commit(f))
    )
    save_steps(copy, (4,), keep=1)
    assert listed == [[1, 2, 3]], "no step is pruned before"


OTHERS = {
    "another shape": (lambda p: {"head": {"kernel": p["kernel"][:, :3], "bias": p["bias"]}},
                      r"head/kernel: float32\[4, 3\] there, float32\[4, 6\] here"),
    "transposed": (lambda p: {"head": {"kernel": p["kernel"].T, "bias": p["bias"]}}, r"\[6, 4\] there"),
    "renamed": (lambda p: {"head": {"weight": p["kernel"], "bias": p["bias"]}}, "head/kernel: absent there"),
    "missing": (lambda p: {"head": {"kernel": p["kernel"]}}, "head/bias: absent there"),
    "one more": (lambda p: {"head": {**p, "extra": p["bias"]}}, r"head/extra: float32\[6\] there, absent here"),
    "narrower": (lambda p: {"head": jax.tree.map(lambda x: x.astype(jnp.bfloat16), dict(p))}, "bfloat16"),
    "integers": (lambda p: {"head": jax.tree.map(lambda x: x.astype(jnp.int32), dict(p))}, "int32"),
}  # fmt: skip


@pytest.mark.parametrize("forged", [False, True])
@pytest.mark.parametrize("how", OTHERS)
def test_only_arrays_of_the_target_are_restored(tmp_path, how, forged):
    """Forged: the record and the manifest are valid but describe other arrays."""
    change, message = OTHERS[how]
    state = make_state(1)
    other = state.replace(params=change(state.params["head"]))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.prepare()
    checkpoints.save(other, {"epoch": 0.1})
    checkpoints.wait()
    if forged:
        save_steps(tmp_path / "honest", (1,))
        folder = step_folder(tmp_path, 1)
        shutil.copy(step_folder(tmp_path / "honest", 1) / "record.json", folder)
        manifest.commit(folder)
    with pytest.raises(CheckpointError, match="is of another model or optimiser") as error:
        checkpoints.restore(1, TARGET)
    if not forged:
        assert error.match(message)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_arrays_are_refused(tmp_path, value):
    state = make_state(1)
    bias = state.params["head"]["bias"].at[2].set(value)
    state = state.replace(params={"head": {**state.params["head"], "bias": bias}})
    checkpoints = Checkpoints(tmp_path)
    checkpoints.prepare()
    checkpoints.save(state, {"epoch": 0.1})
    checkpoints.wait()
    with pytest.raises(CheckpointError, match=r"params/head/bias is not finite"):
        checkpoints.restore(1, TARGET)


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"leaves": 3}', '{"leaves": {}}', "not json", "[" * 100_000]
)
def test_a_record_of_another_program_is_refused(copy, text):
    folder = step_folder(copy)
    (folder / "record.json").write_text(text)
    manifest.commit(folder)
    with pytest.raises(CheckpointError, match=r"record\.json"):
        Checkpoints(copy).record(3)


@pytest.mark.parametrize("number", [0, 3, "1", None, 1.0, True])
def test_an_unknown_format_is_refused_and_named(copy, number):
    folder = step_folder(copy)
    record = json.loads((folder / "record.json").read_text())
    assert record["format"] == 2
    (folder / "record.json").write_text(json.dumps({**record, "format": number}))
    manifest.commit(folder)
    with pytest.raises(CheckpointError, match=rf"has format {number!r}; this version reads 1 to 2"):
        Checkpoints(copy).record(3)


def test_a_collection_without_arrays_is_not_stored(tmp_path):
    """Otherwise a new empty collection would make older checkpoints unreadable."""
    save_steps(tmp_path, (1,))
    wider = make_wider(make_state(1), {})
    checkpoints = Checkpoints(tmp_path)
    restored = checkpoints.restore(1, target_of(wider))
    assert restored.added == {} and isinstance(restored, WiderState)
    chex.assert_trees_all_equal(restored.params, make_state(1).params)
    with pytest.raises(CheckpointError, match=r"added/mean: absent there, float32\[2\] here"):
        checkpoints.restore(1, target_of(make_wider(make_state(1), {"mean": jnp.zeros(2)})))


@flax.struct.dataclass
class WiderState(TrainState):
    added: Any = None


def make_wider(state, added):
    fields = {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}
    return WiderState(**fields, added=added)


def test_a_record_of_gigabytes_is_not_read(copy):
    folder = step_folder(copy)
    with (folder / "record.json").open("ab") as file:
        file.truncate(2**26)
    manifest.commit(folder)
    with pytest.raises(CheckpointError, match="too many"):
        Checkpoints(copy).record(3)


def test_restoring_runs_no_code(three):
    """It unpickles, imports, compiles and starts nothing."""
    code = """
import sys, tests.checkpoint.test_manager as t
from purenoise_jax.checkpoint.manager import Checkpoints
checkpoints = Checkpoints(sys.argv[1])
checkpoints.restore(1, t.TARGET)  # Orbax imports some modules late.
seen = []
watched = ("pickle.find_class", "os.system", "subprocess.Popen", "exec", "compile", "import",
           "os.exec", "os.posix_spawn", "marshal.loads")
sys.addaudithook(lambda event, args: seen.append((event, args)) if event in watched else None)
checkpoints.restore(checkpoints.newest(), t.TARGET)
print(seen)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(three)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_relative_workdirs_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_steps(Path("run"), (1,))
    assert Checkpoints("run").newest() == 1


def test_verify_ignores_a_step_that_is_pruned_meanwhile(copy, capsys, monkeypatch):
    find = manifest.find_damage

    def late(folder, only=None):
        if folder.name == "1" and only is None:
            shutil.rmtree(folder)
        return find(folder, only)

    monkeypatch.setattr(manifest, "find_damage", late)
    assert cli.main(["checkpoint", "verify", str(copy)]) == 0
    assert capsys.readouterr().out.count("complete") == 2
