"""Fault injection: the invariants hold, and runs that violate one on purpose are found."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from purenoise_jax.chaos import __main__ as command
from purenoise_jax.chaos import (
    concurrency_faults,
    config_faults,
    corruption_faults,
    crash_faults,
    inspection,
    process_control,
    resource_faults,
    signals,
)
from purenoise_jax.chaos.corruption_modes import KINDS
from purenoise_jax.chaos.corruption_worker import damage_and_start
from purenoise_jax.chaos.harness import Harness, Reference, Result, digest, records
from purenoise_jax.chaos.scenarios import QUICK_SCENARIOS, TOTAL_STEPS, config_of
from purenoise_jax.checkpoint import manifest

pytestmark = pytest.mark.slow

SHORT = [
    "--quick",
    "--kills",
    "5",
    "--damages",
    "21",
    "--races",
    "2",
    "--signals",
    "1",
    "--shortages",
    "1",
]
MODULE = [sys.executable, "-m", "purenoise_jax.chaos"]


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A short run of the command: its process, its JSON report and the folder that it kept."""
    where = tmp_path_factory.mktemp("chaos")
    done = subprocess.run(
        [*MODULE, *SHORT, "--dir", str(where), "--json", str(where / "report.json"), "--keep"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    (folder,) = where.glob("chaos-*")
    return done, json.loads((where / "report.json").read_text()), folder


@pytest.fixture(scope="module")
def references(short):
    return {
        scenario.name: Reference(
            workdir := short[2] / f"undisturbed-{scenario.name}",
            digest(workdir),
            records(workdir),
            3.0,
        )
        for scenario in QUICK_SCENARIOS
    }


def row(report, what):
    (found,) = (result for result in report["results"] if what in result["what"])
    return found


def test_all_invariants_hold(short):
    done, report, _ = short
    assert done.returncode == 0, done.stdout + done.stderr
    assert report["held"] and report["seconds"] < 500
    for result in report["results"]:
        assert result["skipped"] or (result["times"] == result["survived"] > 0), result
        assert not result["broken"]


def test_kills_lose_nothing_that_was_saved(short):
    killed = row(short[1], "SIGKILL")["numbers"]
    assert killed["kills"] == 5 and killed["runs"] == killed["runs_same"] >= 2
    assert killed["saved_steps_lost"] == killed["listed_steps_damaged"] == 0
    assert killed["steps_redone_most"] <= 3


def test_all_kinds_of_damage_are_noticed(short):
    damaged = row(short[1], "checkpoint damaged")["numbers"]
    assert {*damaged["kinds"]} == {*KINDS} and len(KINDS) == 21
    assert damaged["silent"] == damaged["unnoticed"] == damaged["not_kept"] == 0
    assert damaged["fell_back"] >= 12 and damaged["harmless"] >= 3


def test_all_bad_values_are_refused(short):
    mistyped = row(short[1], "config with a bad value")["numbers"]
    assert mistyped["fields"] > 50 and mistyped["values"] == mistyped["refused"]
    assert mistyped["values"] == 6 * mistyped["fields"]


def test_bad_values_that_are_not_refused_are_found(monkeypatch):
    for broken, why in ((lambda config: None, "accepted"), (lambda config: 1 / 0, "crashed")):
        monkeypatch.setattr(config_faults, "validate", broken)
        (result,) = config_faults.inject(SimpleNamespace(advance=lambda: None), 6)
        assert result.survived == 0 < result.times and why in result.broken[0]


def test_signals_end_a_run_in_every_phase(short):
    for phase in ("reading the data", "compiling", "training", "evaluating", "saving"):
        assert row(short[1], f"while {phase}")["numbers"]["seconds_most"] < signals.MOST_SECONDS


def test_only_one_of_the_racing_runs_trains(short):
    raced = row(short[1], "started at once")["numbers"]
    assert raced["one_winner"] == 2 and raced["refused"] >= 2


def test_the_table_has_a_row_for_each_fault(short):
    done, report, folder = short
    assert all(len(line) <= 100 for line in done.stdout.splitlines()[1:] if "│" in line)
    assert done.stdout.count(" held ") == len([r for r in report["results"] if not r["skipped"]])
    assert f"kept: {folder}" in done.stdout


@pytest.fixture(scope="module")
def saboteurs(tmp_path_factory):
    """A fork server and the file that names the invariant that its runs violate."""
    folder = tmp_path_factory.mktemp("saboteurs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process_control, "MODULE", "tests.saboteur")
        patch.setenv("SABOTAGE", str(folder / "sabotage"))
        server = process_control.ForkServer(folder / "forkserver.log")
    yield server, folder / "sabotage"
    server.close()


@pytest.fixture
def sabotaged(saboteurs, references, tmp_path, monkeypatch):
    """Makes a harness whose runs violate an invariant."""
    server, file = saboteurs
    monkeypatch.setattr(Harness, "new_server", lambda harness: server)

    def make(sabotage):
        file.write_text(sabotage)
        cache = Path(jax.config.values["jax_compilation_cache_dir"])
        harness = Harness(tmp_path, cache, seed=0, jobs=2, scenarios=QUICK_SCENARIOS)
        harness.references = references
        return harness

    return make


def test_runs_without_a_lock_are_found(sabotaged):
    (result,) = concurrency_faults.inject(sabotaged("unlocked"), 1)
    assert result.survived == 0
    assert "exit codes [" in result.broken[0] and "not one 0" in result.broken[0]


def test_runs_that_do_not_check_their_manifests_are_found(sabotaged):
    harness = sabotaged("unverified")
    kinds = ["copy_of_older", "replace_by_older", "flip_a_bit", "add_hidden"]
    result = corruption_faults._sum_up(4, [corruption_faults._start_many(harness, 0, kinds)])
    assert result.numbers["silent"] >= 2 and result.numbers["harmless"] == 1
    assert result.broken and result.survived < result.times


def test_runs_that_start_from_scratch_over_damaged_checkpoints_are_found(sabotaged):
    result = corruption_faults._sum_up_ends(
        [corruption_faults._damage_all(sabotaged("starts_from_scratch"), QUICK_SCENARIOS[0])]
    )
    assert result.survived == 0
    assert result.broken[0].startswith("exit code 0 with all steps damaged")
    assert result.broken[1] == "with all steps damaged it trained from scratch, or removed them"


@pytest.mark.parametrize(
    ("sabotage", "instant", "number", "problem"),
    [
        ("committed_too_late", "just saved", "listed_steps_damaged", "never completed"),
        ("deletes_before_it_saves", "in save", "saved_steps_lost", "was saved and is missing"),
    ],
)
def test_saves_that_a_kill_can_break_are_found(
    sabotaged, monkeypatch, sabotage, instant, number, problem
):
    monkeypatch.setattr(crash_faults, "INSTANTS", (instant,))
    result = crash_faults._sum_up(crash_faults._use_up(sabotaged(sabotage), 0, 6))
    assert result.numbers[number] > 0 and result.survived < result.times
    assert any(problem in line for line in result.broken)


def test_runs_that_ignore_signals_are_found(sabotaged):
    harness = sabotaged("ignores_signals")
    answer = signals._signal_in_phase(harness, "epoch", signal.SIGTERM, 0)
    assert "exit code 0" in answer.problems[0]


def test_a_wrong_exit_code_on_a_full_disk_is_found(sabotaged):
    harness = sabotaged("wrong_exit_code")
    problems, _ = resource_faults.OTHERS["files cut off in mid-run (EFBIG)"](
        harness, harness.server, harness.new_folder("starved")
    )
    assert any("exit code 7 instead of 5" in line for line in problems)
    assert any("newest, but the message was: error: something is wrong" in p for p in problems)


def test_a_run_that_hangs_is_killed_and_reported(sabotaged, monkeypatch):
    monkeypatch.setattr(process_control, "PATIENCE_SECONDS", 6.0)
    harness = sabotaged("hangs")
    (result,) = concurrency_faults.inject(harness, 1)
    assert result.broken == ("hung: a run was still at 'saving' after 6 s",)
    assert all(subject.dead.is_set() for subject in harness.server._requested.values())


def test_damage_that_the_run_does_not_check_for_is_found_by_its_effects(
    references, tmp_path, monkeypatch
):
    scenario = QUICK_SCENARIOS[0]
    monkeypatch.setattr(manifest, "find_damage", lambda folder, only=None: None)
    workdir = references[scenario.name].workdir
    kinds = ["add_hidden", "copy_of_older", "add", "replace_by_older"]
    found = damage_and_start(
        config_of(scenario), workdir, tmp_path / "scratch", random.Random(0), kinds
    )
    assert (found.harmless, found.silent, found.unnoticed) == (1, 2, 1)
    assert (
        "copy_of_older: took step 99, whose values are not those that were saved" in found.problems
    )


def test_lost_steps_are_distinguished_from_deleted_ones():
    assert inspection.lost([3, 4, 5], [3, 5, 6]) == []
    assert inspection.lost([3, 4, 5], [3, 4]) == [5]
    assert inspection.lost([3, 4, 5], [4, 5]) == [3], "a step that is never pruned"
    assert inspection.lost([1, 2], [2]) == [1], "nothing newer replaced it"


def test_a_violated_invariant_gives_exit_code_1_and_keeps_the_runs(tmp_path, monkeypatch, capsys):
    broken = Result("killed (SIGKILL)", 3, 2, "lost: 1", {}, ("step 5 was saved and is missing",))
    monkeypatch.setattr(command, "_inject_all", lambda *args: [broken])
    assert command.main(["--dir", str(tmp_path), "--json", str(tmp_path / "report.json")]) == 1
    out = capsys.readouterr()
    (folder,) = tmp_path.glob("chaos-*")
    assert "killed (SIGKILL): step 5 was saved and is missing" in out.out
    assert f"kept: {folder}" in out.out and "not all invariants held" in out.err
    assert not json.loads((tmp_path / "report.json").read_text())["held"]


def test_if_all_invariants_hold_nothing_is_left_behind(tmp_path, monkeypatch, capsys):
    held = [
        Result("killed (SIGKILL)", 3, 3, "lost: 0"),
        Result("disk full", skipped="no file system can be mounted here"),
    ]
    monkeypatch.setattr(command, "_inject_all", lambda *args: held)
    assert command.main(["--dir", str(tmp_path / "new/deep")]) == 0
    assert not [*tmp_path.iterdir()]
    out = capsys.readouterr().out
    assert "skipped" in out and "held" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--kills", "-1"], "--kills=-1 is not legal; legal: at least 0"),
        (["--only", "kill"], "--only='kill' is unknown; legal: kills, .*; did you mean 'kills'"),
        (["--kills", "many"], "invalid int value: 'many'; see --help"),
        (["more"], "unrecognized arguments: more"),
    ],
)
def test_usage_errors_take_one_line(args, message, capsys):
    assert command.main(args) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_file_as_dir_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert command.main(["--dir", str(tmp_path / "file")]) == 5
    assert "file cannot be used" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_an_interruption_no_process_and_no_file_is_left(tmp_path, number):
    process = subprocess.Popen(
        [*MODULE, "--dir", str(tmp_path / "new"), "--only", "races"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    end = time.monotonic() + 60
    while not [*tmp_path.glob("new/chaos-*/told/*.jsonl")] and time.monotonic() < end:
        time.sleep(0.05)
    assert _processes(str(tmp_path))
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err.strip().splitlines()[-1]) == (130, "interrupted")
    assert not (tmp_path / "new").exists() and not _processes(str(tmp_path))


def _processes(folder):
    """Lists the open files in a folder of all running processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(path).startswith(folder):
                found.append(path)
        except OSError:
            continue
    return found


def test_reference_runs_train_all_steps(references):
    for reference in references.values():
        assert reference.digest and inspection.steps(reference.workdir)[-1] == TOTAL_STEPS
