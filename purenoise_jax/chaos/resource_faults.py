"""Runs that get no room, no permission or no file as large as they need, in earnest."""

import contextlib
import errno
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

from purenoise_jax.chaos import inspection
from purenoise_jax.chaos.harness import Result, Scene, differences
from purenoise_jax.chaos.process_control import ForkServer, Hung, Refused, Victim, until
from purenoise_jax.chaos.scenarios import Case
from purenoise_jax.runtime.errors import StorageError

MOST_SECONDS = 10.0
MOUNT_BYTES = 32 * 2**20
# Less than the arrays of a step, more than every other file.
FILE_BYTES = 100 * 1024
FAILED = re.compile(r"checkpoints/(\d+): could not be written")
Trial = Callable[[Scene, ForkServer, Path], tuple[list[str], str]]


def torment(scene: Scene, times: int) -> list[Result]:
    """Each shortage, so many times.

    Args:
      scene: with references.
      times: how often.
    """
    mounts = {name: scene.folder / f"mount-{name}" for name in MOUNTED}
    server, refused = scene.server, ""
    for folder in mounts.values():
        folder.mkdir()
    try:
        server = scene.new_server({str(path): MOUNT_BYTES for path in mounts.values()})
    except Refused as reason:
        refused = str(reason)

    def starve(name: str) -> Result:
        problems: list[str] = []
        told, survived = "", 0
        for _ in range(times):
            if name in MOUNTED and refused:
                return Result(name, skipped=refused)
            try:
                if name in MOUNTED:
                    workdir = server.path_seen(mounts[name] / "run")
                    found, told = MOUNTED[name](scene, server, mounts[name])
                else:
                    workdir = scene.new_folder("starved")
                    found, told = OTHERS[name](scene, scene.server, workdir)
            except Hung as hung:
                found = [f"hung: {hung}"]
            problems += found
            survived += not found
            scene.done(workdir, found)
        return Result(name, times, survived, told, {}, tuple(problems))

    return scene.at_once(starve, [*MOUNTED, *OTHERS])


def count(times: int) -> int:
    """How many runs are starved."""
    return times * (len(MOUNTED) + len(OTHERS))


def _disk_full(scene: Scene, server: ForkServer, mount: Path) -> tuple[list[str], str]:
    """The disk fills up while it trains."""
    case, workdir = scene.cases[0], mount / "run"
    seen, filler = server.path_seen(workdir), server.path_seen(mount / "filler")
    victim = scene.start(case, workdir, server=server)
    until(lambda: len(inspection.steps(seen)) >= 2, victim)
    _fill(filler)
    full = time.monotonic()
    # Older steps are deleted, which makes room again.
    until(lambda: _fill(filler), victim, MOST_SECONDS)
    problems = _refused(victim, full)
    problems += _names_failed_step(victim, seen)
    filler.unlink()
    problems += _goes_on(scene, case, workdir, server)
    return problems, f"exit code 5 after {victim.died_at - full:.1f} s; went on when there was room"


def _no_room(scene: Scene, server: ForkServer, mount: Path) -> tuple[list[str], str]:
    """There is none from the start, or too little for what is to come."""
    case, workdir = scene.cases[1], mount / "run"
    filler = server.path_seen(mount / "filler")
    problems = []
    for room in (0, 400 * 1024):
        _fill(filler)
        with filler.open("r+b") as file:
            file.truncate(filler.stat().st_size - room)
        problems += _refused_before_compiling(scene.start(case, workdir, server=server))
    filler.unlink()
    problems += _goes_on(scene, case, workdir, server)
    return problems, "exit code 5 before compiling"


def _read_only(scene: Scene, server: ForkServer, mount: Path) -> tuple[list[str], str]:
    """The file system is read-only when it is to go on."""
    case, workdir = scene.cases[0], mount / "run"
    problems = _stop_after_two(scene, case, workdir, server)
    server.remount(mount, True)
    victim = scene.start(case, workdir, server=server)
    problems += _refused_before_compiling(victim)
    server.remount(mount, False)
    problems += _goes_on(scene, case, workdir, server)
    return problems, "exit code 5 before compiling; went on when it was writable"


def _no_permission(scene: Scene, server: ForkServer, workdir: Path) -> tuple[list[str], str]:
    """The workdir may not be written to when it is to go on."""
    case = scene.cases[1]
    problems = _stop_after_two(scene, case, workdir, server)
    with _mode(workdir, 0o555):
        victim = scene.start(case, workdir, unprivileged=True)
        problems += _refused_before_compiling(victim)
    problems += _goes_on(scene, case, workdir, server)
    return problems, "exit code 5 before compiling; went on when it was writable"


def _permission_lost(scene: Scene, server: ForkServer, workdir: Path) -> tuple[list[str], str]:
    """The workdir may not be entered any more while it trains."""
    case = scene.cases[0]
    victim = scene.start(case, workdir, unprivileged=True)
    until(lambda: len(inspection.steps(workdir)) >= 2, victim)
    with _mode(workdir, 0):
        taken = time.monotonic()
        with contextlib.suppress(Hung):
            victim.wait(MOST_SECONDS * 3)
    problems = _refused(victim, taken)
    problems += [f"afterwards {why}" for why in inspection.damages(workdir)]
    problems += _goes_on(scene, case, workdir, server)
    return problems, f"exit code 5 after {victim.died_at - taken:.1f} s; went on when it was back"


def _file_too_large(scene: Scene, server: ForkServer, workdir: Path) -> tuple[list[str], str]:
    """No file may be as large as the arrays of a step (RLIMIT_FSIZE, as with a quota)."""
    import resource

    case = scene.cases[1]
    victim = scene.start(case, workdir)
    until(lambda: len(inspection.steps(workdir)) >= 2, victim)
    limited = time.monotonic()
    resource.prlimit(victim.pid, resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    problems = _refused(victim, limited)
    problems += _names_failed_step(victim, workdir)
    problems += _goes_on(scene, case, workdir, server)
    return problems, f"exit code 5 after {victim.died_at - limited:.1f} s; went on without limit"


def _no_metrics(scene: Scene, server: ForkServer, workdir: Path) -> tuple[list[str], str]:
    """metrics.jsonl cannot be written any more while it trains."""
    case = scene.cases[0]
    victim = scene.start(case, workdir)
    until(lambda: victim.last("step") is not None, victim)
    (workdir / "metrics.jsonl").unlink()
    (workdir / "metrics.jsonl").mkdir()
    code = victim.wait()
    problems = []
    if code != 0 or "metrics cannot be written" not in victim.notes():
        problems.append(f"exit code {code}, and not 0 with a warning: {victim.last_line()}")
    (workdir / "metrics.jsonl").rmdir()
    found = differences(workdir, scene.references[case.name])
    problems += [line for line in found if "metrics" not in line]
    return problems, "a warning; the run ended bitwise as if left alone"


MOUNTED: dict[str, Trial] = {
    "disk full in mid-run (ENOSPC)": _disk_full,
    "no room at the start": _no_room,
    "file system read-only": _read_only,
}
OTHERS: dict[str, Trial] = {
    "workdir read-only (chmod 555)": _no_permission,
    "workdir closed in mid-run (chmod 0)": _permission_lost,
    "files cut off in mid-run (EFBIG)": _file_too_large,
    "metrics.jsonl lost in mid-run": _no_metrics,
}


def _fill(path: Path) -> bool:
    """Makes a file as large as it will go; False, always, as there may be more room later."""
    with path.open("ab", buffering=0) as file:
        for size in (2**20, 2**12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    return False


class _mode:
    """A folder has other permissions for as long as this is entered."""

    def __init__(self, path: Path, mode: int) -> None:
        self._path, self._mode = path, mode

    def __enter__(self) -> None:
        self._path.chmod(self._mode)

    def __exit__(self, *error: object) -> None:
        self._path.chmod(0o755)


def _refused(victim: Victim, since: float) -> list[str]:
    code = victim.wait()
    seconds = victim.died_at - since
    if code != StorageError.exit_code:
        return [f"exit code {code} and not {StorageError.exit_code}: {victim.last_line()}"]
    if seconds > MOST_SECONDS:
        return [f"gone after {seconds:.0f} s only"]
    return []


def _refused_before_compiling(victim: Victim) -> list[str]:
    problems = _refused(victim, time.monotonic())
    if any(value == "compiling" for _, _, value in victim.events()):
        problems.append("it compiled before it saw that nothing can be saved")
    return problems


def _names_failed_step(victim: Victim, workdir: Path) -> list[str]:
    problems = [f"afterwards {why}" for why in inspection.damages(workdir)]
    told, newest = FAILED.search(victim.notes()), max(inspection.steps(workdir), default=0)
    if not told or int(told[1]) != newest + 1:
        problems.append(f"step {newest} is the newest, and it said: {victim.last_line()}")
    return problems


def _stop_after_two(scene: Scene, case: Case, workdir: Path, server: ForkServer) -> list[str]:
    victim = scene.start(case, workdir, server=server)
    until(lambda: len(inspection.steps(server.path_seen(workdir))) >= 2, victim)
    victim.send(signal.SIGTERM)
    code = victim.wait()
    return [] if code == 143 else [f"exit code {code} after SIGTERM: {victim.last_line()}"]


def _goes_on(scene: Scene, case: Case, workdir: Path, server: ForkServer) -> list[str]:
    """The same command, now that nothing is in its way."""
    seen = server.path_seen(workdir)
    saved = max(inspection.steps(seen), default=0)
    victim = scene.start(case, workdir, server=server)
    code = victim.wait()
    if code != 0:
        return [f"the same command ended with {code} afterwards: {victim.last_line()}"]
    problems = differences(seen, scene.references[case.name])
    if victim.last("start") != saved:
        problems.append(f"went on at step {victim.last('start')}, although {saved} was saved")
    return problems
