"""Small files: only plain files are read, and writes are atomic and follow no link."""

import os
import resource
import socket
import stat
import threading

import pytest

from purenoise_jax.runtime import files
from purenoise_jax.runtime.errors import StorageError
from purenoise_jax.training.metric_writer import MetricsWriter, read_metrics


def make_odd(path, kind):
    if kind == "a folder":
        path.mkdir()
    elif kind == "a named pipe (FIFO)":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(os.path.relpath(path))
    else:
        path.symlink_to("/dev/zero")


KINDS = ["a folder", "a named pipe (FIFO)", "a socket", "a device"]


def refusal(call, *arguments):
    """Returns the message of the StorageError of a call, which must not wait for a writer."""
    messages = []

    def work():
        try:
            call(*arguments)
        except StorageError as error:
            messages.append(str(error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it waits"
    return messages[0]


@pytest.mark.parametrize("kind", KINDS)
def test_things_other_than_plain_files_are_refused_by_name(tmp_path, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "odd.json"
    make_odd(path, kind)
    for read in (files.open_plain, files.read_bytes, files.read_json, read_metrics):
        assert refusal(read, path) == f"{path} is {kind}, not a plain file"


def test_a_link_to_a_plain_file_is_read(tmp_path):
    (tmp_path / "there").write_text('{"a": 1}')
    (tmp_path / "link").symlink_to("there")
    assert files.read_json(tmp_path / "link") == {"a": 1}
    with pytest.raises(ValueError, match="8 bytes are too many"):
        files.read_json(tmp_path / "link", largest=7)
    with pytest.raises(FileNotFoundError, match="absent"):
        files.read_bytes(tmp_path / "absent")


def test_a_file_is_replaced_and_the_target_of_its_links_is_kept(tmp_path):
    target = tmp_path / "target"
    for hard in (False, True):
        target.write_text("precious")
        (tmp_path / "config.json").unlink(missing_ok=True)
        if hard:
            os.link(target, tmp_path / "config.json")
        else:
            (tmp_path / "config.json").symlink_to(target)
        files.write_json(tmp_path / "config.json", {"a": 1})
        assert target.read_text() == "precious"
        assert files.read_json(tmp_path / "config.json") == {"a": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "target"]


def made(folder, name):
    path, file = files.create(folder, name)
    file.close()
    return path


def test_temporary_names_are_unpredictable_and_never_reused(tmp_path, monkeypatch):
    assert len({made(tmp_path, "config.json") for _ in range(20)}) == 20
    monkeypatch.setattr(files.secrets, "token_hex", lambda size: "0" * 16)
    (tmp_path / "target").write_text("precious")
    (tmp_path / f".config.json.{'0' * 16}.tmp").symlink_to(tmp_path / "target")
    with pytest.raises(FileExistsError, match=r"config\.json"):
        files.write_json(tmp_path / "config.json", 1)
    assert (tmp_path / "target").read_text() == "precious"


def test_a_new_file_has_the_permissions_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_atomically(tmp_path / "a", "text")
        files.append_whole(tmp_path / "b", "text")
    finally:
        os.umask(before)
    for name in "ab":
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o640


def test_undecodable_bytes_in_text_are_escaped(tmp_path):
    files.write_atomically(tmp_path / "report.html", "caf\udce9 größer")
    assert (tmp_path / "report.html").read_bytes() == rb"caf\udce9 " + "größer".encode()
    files.write_json(tmp_path / "a.json", {"name": "caf\udce9 größer"})
    assert files.read_json(tmp_path / "a.json") == {"name": "caf\udce9 größer"}


@pytest.mark.parametrize("write", [files.write_atomically, files.append_whole])
def test_an_error_of_a_full_disk_names_the_file_and_changes_nothing(tmp_path, write):
    (tmp_path / "config.json").write_text("old")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limit[1]))
    try:
        with pytest.raises(OSError) as error:
            write(tmp_path / "config.json", "much more than that")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert error.value.filename == str(tmp_path / "config.json")
    assert (tmp_path / "config.json").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_nothing_is_appended_to_a_link_or_a_pipe(tmp_path):
    (tmp_path / "target").write_text("precious\n")
    (tmp_path / "link").symlink_to("target")
    assert "link is a symbolic link, not a plain file" in refusal(
        files.append_whole, tmp_path / "link", "line\n"
    )
    os.mkfifo(tmp_path / "pipe")
    assert "pipe is a named pipe" in refusal(files.append_whole, tmp_path / "pipe", "line\n")
    assert (tmp_path / "target").read_text() == "precious\n"


def test_temporary_files_and_links_of_killed_runs_are_removed(tmp_path):
    (tmp_path / "target").write_text("precious")
    left, link, foreign = (made(tmp_path, n) for n in ("config.json", "metrics.jsonl", "mine"))
    link.unlink()
    link.symlink_to(tmp_path / "target")
    names = {".config.json.swp", "config.json.tmp", ".config.json.0123.tmp"}
    for name in names:
        (tmp_path / name).write_text("")
    files.remove_leftovers(tmp_path, ("config.json", "metrics.jsonl"))
    assert {p.name for p in tmp_path.iterdir()} == {"target", foreign.name, *names}
    assert (tmp_path / "target").read_text() == "precious"
    assert not left.exists()
    files.remove_leftovers(tmp_path / "absent", ("config.json",))


def test_a_workdir_with_odd_things_is_refused(tmp_path):
    files.refuse_odd(tmp_path / "absent", ("config.json",), ("tensorboard",))
    (tmp_path / "config.json").symlink_to("nowhere")
    (tmp_path / "tensorboard").mkdir()
    files.refuse_odd(tmp_path, ("config.json", "metrics.jsonl"), ("tensorboard",))
    (tmp_path / "checkpoints").symlink_to("nowhere")
    with pytest.raises(StorageError, match="checkpoints is a symbolic link"):
        files.refuse_odd(tmp_path, ("config.json",), ("tensorboard", "checkpoints"))
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(StorageError, match=r"metrics\.jsonl is a named pipe"):
        files.refuse_odd(tmp_path, ("config.json", "metrics.jsonl"), ("checkpoints",))


def test_a_record_with_a_number_beyond_the_range_of_floats_is_removed(tmp_path):
    """The json module reads it as infinity, which it cannot write again."""
    lines = ['{"step": 1}', '{"step": 2, "x": [-1e999]}', '{"step": true}', '{"step": 3}', '{"st']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    warnings = []
    MetricsWriter(tmp_path, 9, warnings.append).close()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 3}\n'
    (warning,) = warnings
    assert "metrics.jsonl: 2 lines are no records and are left out" in warning


def test_a_record_is_completed_in_its_place_and_only_if_it_lacks_something(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 3, "val/nll": 2.0}\n{"step": 6, "val/nll": 1.0}\n')
    log, warnings = MetricsWriter(tmp_path, 6, lambda line: warnings.append(line)), []
    before = path.stat().st_ino
    log.complete(6, {"val/nll": 1.0})
    assert path.stat().st_ino == before, "nothing is written"
    log.complete(6, {"val/nll": 1.0, "test/nll": 1.5})
    assert read_metrics(path) == [
        {"step": 3, "val/nll": 2.0},
        {"step": 6, "val/nll": 1.0, "test/nll": 1.5},
    ]
    for _ in range(2):
        log.complete(9, {"test/nll": 1.5})
        assert read_metrics(path)[2:] == [{"step": 9, "test/nll": 1.5}], "it becomes a record, once"
    path.unlink()
    path.mkdir()
    log.complete(6, {"test/nll": 1.0})
    log.close()
    assert len(warnings) == 1 and "metrics cannot be written" in warnings[0]
