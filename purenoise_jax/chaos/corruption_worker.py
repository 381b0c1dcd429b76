"""Starts many times from damaged checkpoints in one process and compares with the saved values."""

import dataclasses
import json
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from purenoise_jax.chaos.corruption_modes import KINDS
from purenoise_jax.chaos.run_spec import RunSpec
from purenoise_jax.chaos.scenarios import TOTAL_STEPS, config_of, scenario_named
from purenoise_jax.checkpoint import manifest
from purenoise_jax.checkpoint.manager import FOLDER, QUARANTINE, Checkpoints
from purenoise_jax.training import resume
from purenoise_jax.training.build import build
from purenoise_jax.training.experiment import Experiment


@dataclasses.dataclass
class Damages:
    """Outcome of starts from damaged checkpoints.

    Attributes:
        times: number of starts.
        fell_back: number of starts from an older step that was as written.
        harmless: number of starts from the newest step, all of which was as written.
        silent: number of starts with values other than those saved.
        unnoticed: number of starts from a step with a changed file but the right values.
        not_kept: number of starts after which the damaged step was not in quarantine.
        kinds: kind of damage -> number of times.
        problems: a line for each violated invariant.
    """

    times: int = 0
    fell_back: int = 0
    harmless: int = 0
    silent: int = 0
    unnoticed: int = 0
    not_kept: int = 0
    kinds: dict[str, int] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)


def damage_and_start(
    config: ConfigDict,
    workdir: Path,
    scratch: Path,
    rng: random.Random,
    kinds: Sequence[str],
    advance: Callable[[int], None] = lambda done: None,
) -> Damages:
    """Damages copies of a run's checkpoints and finds the restore point that a start would use.

    Args:
        config: config of the run.
        workdir: workdir of a finished run, which is not changed.
        scratch: a folder for the copies, which does not exist yet.
        rng: draws the place of the damage.
        kinds: names from `KINDS`, one for each start.
        advance: called with the number of starts done.
    """
    experiment = build(config)
    steps = Checkpoints(workdir).steps()
    complete = {
        step: (_start_from(experiment, workdir, step), _contents(workdir / FOLDER / str(step)))
        for step in steps
    }
    found = Damages()
    scratch.mkdir()
    for done, kind in enumerate(kinds):
        copy, elsewhere = scratch / "run", scratch / "elsewhere"
        for folder in (copy, elsewhere):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        shutil.copytree(workdir / FOLDER, copy / FOLDER)
        KINDS[kind](copy / FOLDER, rng, elsewhere)
        found.kinds[kind] = found.kinds.get(kind, 0) + 1
        found.times += 1
        problem = _try_start(experiment, copy, complete, found)
        if problem:
            found.problems.append(f"{kind}: {problem}")
        advance(done + 1)
    shutil.rmtree(scratch)
    return found


def work(spec: RunSpec, advance: Callable[[int], None]) -> None:
    """Runs `damage_and_start` for a specification and writes the outcome to a JSON file."""
    more = spec.arguments
    found = damage_and_start(
        config_of(scenario_named(spec.scenario)),
        Path(spec.workdir),
        Path(more["scratch"]),
        random.Random(more["seed"]),
        more["kinds"],
        advance,
    )
    Path(more["result"]).write_text(json.dumps(dataclasses.asdict(found)))


Taken = tuple[dict[str, bytes], dict[str, Any]]
Contents = dict[str, bytes] | None


def _taken(start: resume.RestorePoint) -> Taken:
    """The bytes of every array and the other fields of a restore point."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(start.state)
    arrays = {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}
    fields = {f.name: getattr(start, f.name) for f in dataclasses.fields(start)}
    return arrays, {name: value for name, value in fields.items() if name != "state"}


def _start_from(experiment: Experiment, workdir: Path, step: int) -> Taken:
    """The contents of the restore point of an undamaged step."""
    checkpoints = Checkpoints(workdir)
    record = checkpoints.record(step)
    fields = {f.name for f in dataclasses.fields(resume.RestorePoint)} - {"state"}
    return _taken(
        resume.RestorePoint(
            state=checkpoints.restore(step, experiment.target()),
            **{name: record[name] for name in fields},
        )
    )


def _try_start(
    experiment: Experiment,
    workdir: Path,
    complete: Mapping[int, tuple[Taken, Contents]],
    found: Damages,
) -> str:
    """Finds a restore point as a run does; returns the problem with it, "" if there is none."""
    before = {path.name: _contents(path) for path in (workdir / FOLDER).iterdir()}
    checkpoints = Checkpoints(workdir)
    listed = checkpoints.steps()
    try:
        start = resume.find_restore_point(
            experiment, checkpoints, init_from="", init_epoch=1, init_aux_bn="fresh"
        )()
        resume.set_aside(checkpoints, workdir, False)
    except Exception as error:
        return f"it cannot be started from, although a step is complete: {error!r}"
    finally:
        checkpoints.close()
    if start.state is None:
        found.silent += 1
        return "a start from scratch, although a step is complete"
    took = max(step for step in listed if step not in checkpoints.passed_over)
    if took not in complete or complete[took][0] != _taken(start):
        found.silent += 1
        return f"took step {took}, whose values are not those that were saved"
    if not _same(before[str(took)], complete[took][1]):
        found.unnoticed += 1
        return f"took step {took}, of which a file was changed"
    best = max(step for step in complete if _same(before.get(str(step)), complete[step][1]))
    if took != best:
        return f"took step {took}, although step {best} is complete"
    for name in map(str, checkpoints.passed_over):
        if before[name] != _contents(workdir / FOLDER / QUARANTINE / name):
            found.not_kept += 1
            return f"step {name} was passed over, but is not unchanged in {QUARANTINE}/"
    found.fell_back += took != TOTAL_STEPS
    found.harmless += took == TOTAL_STEPS
    return ""


def _contents(path: Path) -> Contents:
    """All files of a folder by name, except hidden ones; a link or file itself has the name ""."""
    if path.is_symlink():
        return {"": bytes(path.readlink())}
    if not path.is_dir():
        return {"": path.read_bytes()} if path.exists() else None
    files = {}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if file.is_symlink():
            files[f"{name}@"] = bytes(file.readlink())
        elif file.is_file() and not any(part.startswith(".") for part in Path(name).parts):
            files[name] = file.read_bytes()
    return files


def _same(there: Contents, written: Contents) -> bool:
    """True if a step is as written; only the white space of its manifest's JSON may differ."""
    if there is None or written is None or {*there} != {*written}:
        return False
    if any(there[name] != written[name] for name in written if name != manifest.NAME):
        return False
    try:
        return bool(json.loads(there[manifest.NAME]) == json.loads(written[manifest.NAME]))
    except ValueError:
        return False
