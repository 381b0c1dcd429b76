"""Starts from damaged checkpoints, compared with what was saved, many in one process."""

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
from purenoise_jax.chaos.scenarios import TOTAL_STEPS, case_named, config_of
from purenoise_jax.checkpoint import manifest
from purenoise_jax.checkpoint.manager import FOLDER, QUARANTINE, Checkpoints
from purenoise_jax.training import resume
from purenoise_jax.training.experiment import Experiment, build


@dataclasses.dataclass
class Damages:
    """What starts from damaged checkpoints came to.

    Attributes:
        times: how many.
        fell_back: an older step was taken, which was as it was written.
        harmless: the newest step was taken, and all of it was as it was written.
        silent: values were taken that were not those of the step.
        unnoticed: a step was taken with a file changed, although its values were right.
        not_kept: the damaged step is not in quarantine.
        kinds: what was done -> how often.
        problems: a line for each broken promise.
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
    """Damages a copy of a run's checkpoints and finds out what would be started from.

    Args:
        config: of the run.
        workdir: of a finished run; stays as it is.
        scratch: a folder for the copies, which is not there yet.
        rng: chooses where the damage is.
        kinds: names from `KINDS`, one after the other.
        advance: told how many are done.
    """
    experiment = build(config)
    steps = Checkpoints(workdir).steps()
    whole = {
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
        problem = _try_start(experiment, copy, whole, found)
        if problem:
            found.problems.append(f"{kind}: {problem}")
        advance(done + 1)
    shutil.rmtree(scratch)
    return found


def work(order: RunSpec, advance: Callable[[int], None]) -> None:
    """As `damage_and_start`, on order; what came of it goes to a JSON file."""
    more = order.arguments
    found = damage_and_start(
        config_of(case_named(order.case)),
        Path(order.workdir),
        Path(more["scratch"]),
        random.Random(more["seed"]),
        more["kinds"],
        advance,
    )
    Path(more["result"]).write_text(json.dumps(dataclasses.asdict(found)))


Taken = tuple[dict[str, bytes], dict[str, Any]]
Contents = dict[str, bytes] | None


def _taken(start: resume.RestorePoint) -> Taken:
    """The bits of every array, and all that is known beside."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(start.state)
    arrays = {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}
    fields = {f.name: getattr(start, f.name) for f in dataclasses.fields(start)}
    return arrays, {name: value for name, value in fields.items() if name != "state"}


def _start_from(experiment: Experiment, workdir: Path, step: int) -> Taken:
    """What a start from one step gives, before anything is damaged."""
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
    whole: Mapping[int, tuple[Taken, Contents]],
    found: Damages,
) -> str:
    """Starts as a run does; returns what is wrong with that, "" if nothing is."""
    before = {path.name: _contents(path) for path in (workdir / FOLDER).iterdir()}
    checkpoints = Checkpoints(workdir)
    listed = checkpoints.steps()
    try:
        start = resume.find_restore_point(
            experiment, checkpoints, init_from="", init_epoch=1, init_aux_bn="fresh"
        )()
        resume.set_aside(checkpoints, workdir, False)
    except Exception as error:
        return f"it cannot be started from, although a step is whole: {error!r}"
    finally:
        checkpoints.close()
    if start.state is None:
        found.silent += 1
        return "a start from scratch, although a step is whole"
    took = max(step for step in listed if step not in checkpoints.passed_over)
    if took not in whole or whole[took][0] != _taken(start):
        found.silent += 1
        return f"took step {took}, whose values are not those that were saved"
    if not _same(before[str(took)], whole[took][1]):
        found.unnoticed += 1
        return f"took step {took}, of which a file was changed"
    best = max(step for step in whole if _same(before.get(str(step)), whole[step][1]))
    if took != best:
        return f"took step {took}, although {best} is whole"
    for name in map(str, checkpoints.passed_over):
        if before[name] != _contents(workdir / FOLDER / QUARANTINE / name):
            found.not_kept += 1
            return f"step {name} was passed over, and is not as it was in {QUARANTINE}/"
    found.fell_back += took != TOTAL_STEPS
    found.harmless += took == TOTAL_STEPS
    return ""


def _contents(path: Path) -> Contents:
    """Every file in a folder by name, hidden ones apart; a link or file is one without name."""
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
    """Whether a step is as it was written; its manifest may be spelled another way."""
    if there is None or written is None or {*there} != {*written}:
        return False
    if any(there[name] != written[name] for name in written if name != manifest.NAME):
        return False
    try:
        return bool(json.loads(there[manifest.NAME]) == json.loads(written[manifest.NAME]))
    except ValueError:
        return False
