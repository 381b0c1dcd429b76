"""Resource faults: real shortages of disk space, permissions or file size."""

import contextlib
import errno
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

from purenoise_jax.chaos import inspection
from purenoise_jax.chaos.harness import Harness, Result, differences
from purenoise_jax.chaos.process_control import ForkServer, Hung, Refused, Subject, until
from purenoise_jax.chaos.scenarios import Scenario
from purenoise_jax.runtime.errors import StorageError

MOST_SECONDS = 10.0
MOUNT_BYTES = 32 * 2**20
# Less than the arrays of a checkpoint, more than any other file.
FILE_BYTES = 100 * 1024
FAILED = re.compile(r"checkpoints/(\d+): could not be written")
Trial = Callable[[Harness, ForkServer, Path], tuple[list[str], str]]


def inject(harness: Harness, times: int) -> list[Result]:
    """Injects each shortage.

    Args:
        harness: a harness with its reference runs done.
        times: number of times for each.
    """
    mounts = {name: harness.folder / f"mount-{name}" for name in MOUNTED}
    server, refused = harness.server, ""
    for folder in mounts.values():
        folder.mkdir()
    try:
        server = harness.new_server({str(path): MOUNT_BYTES for path in mounts.values()})
    except Refused as reason:
        refused = str(reason)

    def inject_one(name: str) -> Result:
        problems: list[str] = []
        outcome, survived = "", 0
        for _ in range(times):
            if name in MOUNTED and refused:
                return Result(name, skipped=refused)
            try:
                if name in MOUNTED:
                    workdir = server.path_seen(mounts[name] / "run")
                    found, outcome = MOUNTED[name](harness, server, mounts[name])
                else:
                    workdir = harness.new_folder("starved")
                    found, outcome = OTHERS[name](harness, harness.server, workdir)
            except Hung as hung:
                found = [f"hung: {hung}"]
            problems += found
            survived += not found
            harness.done(workdir, found)
        return Result(name, times, survived, outcome, {}, tuple(problems))

    return harness.at_once(inject_one, [*MOUNTED, *OTHERS])


def count(times: int) -> int:
    """The number of runs that get a shortage."""
    return times * (len(MOUNTED) + len(OTHERS))


def _disk_full(harness: Harness, server: ForkServer, mount: Path) -> tuple[list[str], str]:
    """The disk becomes full while the run trains."""
    scenario, workdir = harness.scenarios[0], mount / "run"
    seen, filler = server.path_seen(workdir), server.path_seen(mount / "filler")
    subject = harness.start(scenario, workdir, server=server)
    until(lambda: len(inspection.steps(seen)) >= 2, subject)
    _fill(filler)
    full = time.monotonic()
    # Repeatedly, because the deletion of older steps makes room again.
    until(lambda: _fill(filler), subject, MOST_SECONDS)
    problems = _refused(subject, full)
    problems += _names_failed_step(subject, seen)
    filler.unlink()
    problems += _continues(harness, scenario, workdir, server)
    return (
        problems,
        f"exit code 5 after {subject.died_at - full:.1f} s; continued once there was room",
    )


def _no_room(harness: Harness, server: ForkServer, mount: Path) -> tuple[list[str], str]:
    """The disk is full at the start, or has too little room for the first checkpoint."""
    scenario, workdir = harness.scenarios[1], mount / "run"
    filler = server.path_seen(mount / "filler")
    problems = []
    for room in (0, 400 * 1024):
        _fill(filler)
        with filler.open("r+b") as file:
            file.truncate(filler.stat().st_size - room)
        problems += _refused_before_compiling(harness.start(scenario, workdir, server=server))
    filler.unlink()
    problems += _continues(harness, scenario, workdir, server)
    return problems, "exit code 5 before compiling"


def _read_only(harness: Harness, server: ForkServer, mount: Path) -> tuple[list[str], str]:
    """The file system is read-only when the run is continued."""
    scenario, workdir = harness.scenarios[0], mount / "run"
    problems = _stop_after_two(harness, scenario, workdir, server)
    server.remount(mount, True)
    subject = harness.start(scenario, workdir, server=server)
    problems += _refused_before_compiling(subject)
    server.remount(mount, False)
    problems += _continues(harness, scenario, workdir, server)
    return problems, "exit code 5 before compiling; continued once it was writable"


def _no_permission(harness: Harness, server: ForkServer, workdir: Path) -> tuple[list[str], str]:
    """The workdir is not writable when the run is continued."""
    scenario = harness.scenarios[1]
    problems = _stop_after_two(harness, scenario, workdir, server)
    with _mode(workdir, 0o555):
        subject = harness.start(scenario, workdir, unprivileged=True)
        problems += _refused_before_compiling(subject)
    problems += _continues(harness, scenario, workdir, server)
    return problems, "exit code 5 before compiling; continued once it was writable"


def _permission_lost(harness: Harness, server: ForkServer, workdir: Path) -> tuple[list[str], str]:
    """The workdir loses all permissions while the run trains."""
    scenario = harness.scenarios[0]
    subject = harness.start(scenario, workdir, unprivileged=True)
    until(lambda: len(inspection.steps(workdir)) >= 2, subject)
    with _mode(workdir, 0):
        taken = time.monotonic()
        with contextlib.suppress(Hung):
            subject.wait(MOST_SECONDS * 3)
    problems = _refused(subject, taken)
    problems += [f"afterwards {why}" for why in inspection.damages(workdir)]
    problems += _continues(harness, scenario, workdir, server)
    return (
        problems,
        f"exit code 5 after {subject.died_at - taken:.1f} s; continued once they were restored",
    )


def _file_too_large(harness: Harness, server: ForkServer, workdir: Path) -> tuple[list[str], str]:
    """No file may become as large as the arrays of a checkpoint (RLIMIT_FSIZE, like a quota)."""
    import resource

    scenario = harness.scenarios[1]
    subject = harness.start(scenario, workdir)
    until(lambda: len(inspection.steps(workdir)) >= 2, subject)
    limited = time.monotonic()
    resource.prlimit(subject.pid, resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    problems = _refused(subject, limited)
    problems += _names_failed_step(subject, workdir)
    problems += _continues(harness, scenario, workdir, server)
    return (
        problems,
        f"exit code 5 after {subject.died_at - limited:.1f} s; continued without the limit",
    )


def _no_metrics(harness: Harness, server: ForkServer, workdir: Path) -> tuple[list[str], str]:
    """metrics.jsonl becomes unwritable while the run trains."""
    scenario = harness.scenarios[0]
    subject = harness.start(scenario, workdir)
    until(lambda: subject.last("step") is not None, subject)
    (workdir / "metrics.jsonl").unlink()
    (workdir / "metrics.jsonl").mkdir()
    code = subject.wait()
    problems = []
    if code != 0 or "metrics cannot be written" not in subject.notes():
        problems.append(f"exit code {code} instead of 0 with a warning: {subject.last_line()}")
    (workdir / "metrics.jsonl").rmdir()
    found = differences(workdir, harness.references[scenario.name])
    problems += [line for line in found if "metrics" not in line]
    return problems, "a warning; the run ended bitwise like the undisturbed one"


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
    """Enlarges a file until the disk is full; always False, so that `until` repeats it."""
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
    """Context manager that changes the permissions of a folder."""

    def __init__(self, path: Path, mode: int) -> None:
        self._path, self._mode = path, mode

    def __enter__(self) -> None:
        self._path.chmod(self._mode)

    def __exit__(self, *error: object) -> None:
        self._path.chmod(0o755)


def _refused(subject: Subject, since: float) -> list[str]:
    code = subject.wait()
    seconds = subject.died_at - since
    if code != StorageError.exit_code:
        return [f"exit code {code} instead of {StorageError.exit_code}: {subject.last_line()}"]
    if seconds > MOST_SECONDS:
        return [f"ended only after {seconds:.0f} s"]
    return []


def _refused_before_compiling(subject: Subject) -> list[str]:
    problems = _refused(subject, time.monotonic())
    if any(value == "compiling" for _, _, value in subject.events()):
        problems.append("it compiled before it noticed that nothing can be saved")
    return problems


def _names_failed_step(subject: Subject, workdir: Path) -> list[str]:
    problems = [f"afterwards {why}" for why in inspection.damages(workdir)]
    failed, newest = FAILED.search(subject.notes()), max(inspection.steps(workdir), default=0)
    if not failed or int(failed[1]) != newest + 1:
        problems.append(f"step {newest} is the newest, but the message was: {subject.last_line()}")
    return problems


def _stop_after_two(
    harness: Harness, scenario: Scenario, workdir: Path, server: ForkServer
) -> list[str]:
    subject = harness.start(scenario, workdir, server=server)
    until(lambda: len(inspection.steps(server.path_seen(workdir))) >= 2, subject)
    subject.send(signal.SIGTERM)
    code = subject.wait()
    return [] if code == 143 else [f"exit code {code} after SIGTERM: {subject.last_line()}"]


def _continues(
    harness: Harness, scenario: Scenario, workdir: Path, server: ForkServer
) -> list[str]:
    """Lists the problems of the same command after the fault is removed."""
    seen = server.path_seen(workdir)
    saved = max(inspection.steps(seen), default=0)
    subject = harness.start(scenario, workdir, server=server)
    code = subject.wait()
    if code != 0:
        return [f"afterwards the same command ended with exit code {code}: {subject.last_line()}"]
    problems = differences(seen, harness.references[scenario.name])
    if subject.last("start") != saved:
        problems.append(
            f"continued from step {subject.last('start')}, although step {saved} was saved"
        )
    return problems
