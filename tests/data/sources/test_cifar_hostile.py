"""Malicious and damaged files: each is refused with a message and runs nothing."""

import builtins
import contextlib
import gzip
import os
import pathlib
import pickle
import tarfile
import zlib

import numpy as np
import pytest

from purenoise_jax.data.sources.cifar import read_cifar
from purenoise_jax.data.sources.safe_unpickle import unpickle_arrays
from purenoise_jax.runtime.errors import DataError
from tests import cifar_files as files

pytestmark = pytest.mark.slow

LAYOUT = files.small_layout("cifar10")
BINARY, PYTHON = LAYOUT.forms


class Call:
    """Pickles as a call of `function(*arguments)`."""

    def __init__(self, function: object, *arguments: object):
        self.call = (function, arguments)

    def __reduce__(self) -> object:
        return self.call


def hostile_pickles(marker: pathlib.Path) -> dict[str, tuple[bytes, str]]:
    command = f"touch {marker}"
    python = f'open("{marker}", "w").close()'
    dump = pickle.dumps
    shell = os.system.__module__ + ".system"
    return {
        "system": (dump(Call(os.system, command)), shell),
        "eval": (dump(Call(builtins.eval, python)), "builtins.eval"),
        "exec": (dump(Call(builtins.exec, python)), "builtins.exec"),
        "text protocol": (dump(Call(os.system, command), protocol=0), shell),
        "python 2 name": (b"c__builtin__\neval\n(S'%s'\ntR." % python.encode(), "__builtin__.eval"),
        "nested in a dict": (dump({b"data": {b"x": [Call(os.system, command)]}}), shell),
        "as a key": (dump({(1, Call(os.system, command)): 1}), shell),
        "after good data": (
            dump({b"data": np.zeros((7, 3072), np.uint8), b"x": Call(os.system, command)}, 3),
            shell,
        ),
        "inside an array call": (
            b"cnumpy.core.multiarray\n_reconstruct\n(cposix\nsystem\n(S'%s'\ntRtR."
            % command.encode(),
            "posix.system",
        ),
        "dotted name": (b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.", "ndarray.tofile"),
        "numpy loader": (dump(Call(np.load, "x")), "numpy"),
        "codecs": (b"c_codecs\nencode\n(S'x'\nS'zip'\ntR.", "_codecs.encode"),
        "persistent": (b"Pname\n.", "persistent object"),
        "instance": (b"(S'%s'\niposix\nsystem\n." % command.encode(), "posix.system"),
        "extension": (b"\x80\x02\x82\x01.", "extension"),
    }


@pytest.mark.parametrize("case", hostile_pickles(pathlib.Path("marker")))
def test_hostile_pickle_is_refused_and_runs_nothing(tmp_path: pathlib.Path, case: str) -> None:
    marker = tmp_path / "marker"
    data, named = hostile_pickles(marker)[case]
    with pytest.raises(DataError, match=f"batch: .*{named}"):
        unpickle_arrays(data, "batch")
    assert not marker.exists()


def test_the_hostile_pickles_would_do_harm(tmp_path: pathlib.Path) -> None:
    for case in ("system", "python 2 name", "after good data", "instance"):
        marker = tmp_path / case.replace(" ", "_")
        pickle.loads(hostile_pickles(marker)[case][0])
        assert marker.exists(), case


def test_hostile_pickle_in_a_batch(tmp_path: pathlib.Path) -> None:
    marker = tmp_path / "marker"
    contents = files.python_files(LAYOUT)
    batch = pickle.loads(contents["data_batch_5"])
    batch[b"filenames"] = [Call(os.system, f"touch {marker}")]
    contents["data_batch_5"] = pickle.dumps(batch, protocol=3)
    folder = files.write_folder(tmp_path, PYTHON, contents)
    archive = files.write_archive(tmp_path / "a.tar.gz", PYTHON, contents)
    for path in (folder, archive):
        with pytest.raises(DataError, match=r"data_batch_5.*system, which is refused"):
            read_cifar(path, LAYOUT)
    assert not marker.exists()


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps({b"data": np.zeros(3, np.float32)}, protocol=3),
        pickle.dumps({b"data": np.array([{}], object)}, protocol=3),
        pickle.dumps({b"data": np.asfortranarray(np.zeros((3, 2), np.uint8))}, protocol=3),
        pickle.dumps([1, 2]),
        b"(dS'data'\n" + ARRAY + b"s.",  # an array that is never filled
        b"(dS'data'\n" + ARRAY + b"(I1\n(I9\ntcnumpy\ndtype\n(S'u1'\ntRI00\nS'ab'\ntbs.",
        b"(dS'data'\n" + ARRAY + b"(I1\n(I-1\nI-2\ntcnumpy\ndtype\n(S'u1'\ntRI00\nS'ab'\ntbs.",
        b"(dS'data'\n" + ARRAY + b"I1\nbs.",
        b"(dS'data'\n"
        + ARRAY
        + b"(I1\n(I999999999\n(I1\nttcnumpy\ndtype\n(S'u1'\ntRI00\nS''\ntbs.",
        b"cnumpy\nndarray\n(I99999999999\ntR.",
        b"]r\xff\xff\xff\xff.",  # a memo index of four billion
        b"\x80\x05\x96\x00\x00\x00\x00\x10\x00\x00\x00.",  # a byte array of 64 GB
        b"",
        b"\x80",
        b"\xff\xfe",
    ],
)
def test_odd_pickle_is_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="batch: "):
        unpickle_arrays(data, "batch")


def test_damaged_pickles_raise_only_data_errors() -> None:
    good = files.python_files(LAYOUT)["test_batch"]
    start = good[:300] + good[-200:]
    rng = np.random.default_rng(0)
    for cut in range(0, len(start), 7):
        with pytest.raises(DataError):
            unpickle_arrays(start[:cut], "batch")
    for _ in range(500):
        damaged = bytearray(good)
        # Flips in the pixels cannot be detected, so only those around them are tested.
        place = int(rng.choice([rng.integers(0, 300), rng.integers(len(good) - 200, len(good))]))
        damaged[place] ^= 1 << int(rng.integers(8))
        with contextlib.suppress(DataError):
            unpickle_arrays(bytes(damaged), "batch")


SYMLINK, HARDLINK = tarfile.SYMTYPE, tarfile.LNKTYPE
FOLDER = BINARY.folder

HOSTILE_MEMBERS = {
    "parent": files.member("../escaped", b"x"),
    "parent inside": files.member(f"{FOLDER}/../../escaped", b"x"),
    "parent as name": files.member(f"{FOLDER}/..", b"x"),
    "absolute": files.member("/tmp/escaped", b"x"),
    "absolute windows": files.member("C:\\escaped", b"x"),
    "backslash": files.member(f"{FOLDER}/..\\escaped", b"x"),
    "symlink": files.member(f"{FOLDER}/link", type=SYMLINK, linkname="/etc/passwd"),
    "symlink to wanted": files.member(f"{FOLDER}/link", type=SYMLINK, linkname="data_batch_1.bin"),
    "hardlink": files.member(f"{FOLDER}/link", type=HARDLINK, linkname="/etc/passwd"),
    "device": files.member(f"{FOLDER}/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    "block device": files.member(f"{FOLDER}/sda", type=tarfile.BLKTYPE, devmajor=8),
    "fifo": files.member(f"{FOLDER}/fifo", type=tarfile.FIFOTYPE),
    "folder": files.member(f"{FOLDER}/sub", type=tarfile.DIRTYPE),
    "other folder": files.member("other/file", b"x"),
    "top-level file": files.member("file", b"x"),
    "empty name": files.member("", b""),
    "duplicate": files.member(
        f"{FOLDER}/data_batch_1.bin", files.binary_files(LAYOUT)["test_batch.bin"]
    ),
    "duplicate readme": files.member(f"{FOLDER}/readme.html", b"x"),
    "large extra": files.member(f"{FOLDER}/extra", bytes((1 << 20) + 1)),
    "sparse": files.member(f"{FOLDER}/sparse", type=tarfile.GNUTYPE_SPARSE),
    "symlink up": files.member(f"{FOLDER}/link", type=SYMLINK, linkname="../../escaped"),
    "hardlink up": files.member(f"{FOLDER}/link", type=HARDLINK, linkname="../escaped"),
    "parent in a long header": files.member(
        f"{FOLDER}/plain", b"x", pax_headers={"path": "../escaped"}
    ),
    "size in a long header": files.member(
        f"{FOLDER}/plain", b"x", pax_headers={"size": "10000000000"}
    ),
    "parent behind a NUL": files.member(f"{FOLDER}/data_batch_1.bin\0/../../escaped", b"x"),
    "dot": files.member(f"{FOLDER}/.", b"x"),
    "own folder as a file": files.member(FOLDER, b"x"),
    "drive letter": files.member("C:escaped", b"x"),
    "share": files.member("\\\\host\\share\\escaped", b"x"),
    "home": files.member("~/escaped", b"x"),
}


@pytest.mark.parametrize("case", HOSTILE_MEMBERS)
def test_hostile_member_is_refused_and_writes_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    victim, inside = tmp_path / "escaped", tmp_path / "inside"
    victim.write_text("mine")
    inside.mkdir()
    monkeypatch.chdir(inside)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = inside / "a.tar.gz"
    files.write_archive(path, BINARY, files.binary_files(LAYOUT), extra=[HOSTILE_MEMBERS[case]])
    with pytest.raises(DataError, match=r"a\.tar\.gz: "):
        read_cifar(path, LAYOUT)
    assert sorted(tmp_path.rglob("*")) == [victim, inside, path]
    assert victim.read_text() == "mine" and victim.stat().st_nlink == 1
    assert not pathlib.Path("/tmp/escaped").exists()


def test_there_are_enough_hostile_cases() -> None:
    assert len(HOSTILE_MEMBERS) >= 30


def test_wanted_name_as_link_is_refused(tmp_path: pathlib.Path) -> None:
    content = files.binary_files(LAYOUT)
    del content["test_batch.bin"]
    link = files.member(f"{FOLDER}/test_batch.bin", type=SYMLINK, linkname="data_batch_1.bin")
    path = files.write_archive(tmp_path / "a.tar.gz", BINARY, content, extra=[link])
    with pytest.raises(DataError, match="not a plain file"):
        read_cifar(path, LAYOUT)


def test_oversized_wanted_file_is_refused_before_it_is_read(tmp_path: pathlib.Path) -> None:
    content = files.binary_files(LAYOUT)
    content["test_batch.bin"] += bytes(50 << 20)
    path = files.write_archive(tmp_path / "a.tar.gz", BINARY, content)
    with pytest.raises(DataError, match=r"test_batch\.bin.* has \d+ bytes, expected 21511"):
        read_cifar(path, LAYOUT)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
@pytest.mark.parametrize("first", [True, False])
def test_bomb_in_a_header_is_cut_off(tmp_path: pathlib.Path, kind: bytes, first: bool) -> None:
    """A header of 1 GB, which tarfile would read into memory as a file name."""
    header, _ = files.member("@LongLink", type=kind)
    header.size = 1 << 30
    folder, _ = files.member(FOLDER, type=tarfile.DIRTYPE)
    blocks = b"" if first else folder.tobuf(tarfile.GNU_FORMAT)
    path = tmp_path / "a.tar.gz"
    packer = zlib.compressobj(1, wbits=31)
    with path.open("wb") as out:
        out.write(packer.compress(blocks + header.tobuf(tarfile.GNU_FORMAT)))
        # Exceeds any sensible limit without making the test slow.
        for _ in range(64):
            out.write(packer.compress(bytes(1 << 20)))
        out.write(packer.flush())
    with pytest.raises(DataError, match="more data than the official archive"):
        read_cifar(path, LAYOUT)


def test_bomb_after_the_end_is_cut_off(tmp_path: pathlib.Path) -> None:
    path = files.write_archive(tmp_path / "a.tar.gz", BINARY, files.binary_files(LAYOUT))
    with path.open("ab") as out:
        out.write(gzip.compress(bytes(64 << 20), 1))
    with pytest.raises(DataError, match="more data than the official archive"):
        read_cifar(path, LAYOUT)


def test_truncated_archive(tmp_path: pathlib.Path) -> None:
    path = files.write_archive(tmp_path / "a.tar.gz", BINARY, files.binary_files(LAYOUT))
    data = path.read_bytes()
    # Without its last 8 bytes an archive still holds every file; only the checksum is missing.
    for length in (0, 1, 9, 30, 5000, len(data) // 2, len(data) - 9, len(data) - 8, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match=r"a\.tar\.gz: "):
            read_cifar(path, LAYOUT)


def test_200_byte_flips_are_detected_or_harmless(tmp_path: pathlib.Path) -> None:
    path = files.write_archive(tmp_path / "a.tar.gz", BINARY, files.binary_files(LAYOUT))
    data = path.read_bytes()
    reference = read_cifar(path, LAYOUT)
    rng = np.random.default_rng(0)
    places = np.concatenate(
        [np.arange(20), rng.integers(0, len(data), 170), len(data) - np.arange(1, 11)]
    )
    refused = 0
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            dataset = read_cifar(path, LAYOUT)
        except DataError:
            refused += 1
            continue
        np.testing.assert_array_equal(dataset.train_images, reference.train_images)
        np.testing.assert_array_equal(dataset.train_labels, reference.train_labels)
        np.testing.assert_array_equal(dataset.test_images, reference.test_images)
        np.testing.assert_array_equal(dataset.test_labels, reference.test_labels)
    assert len(places) == 200
    assert refused > 150


@pytest.mark.parametrize(
    "content", [b"", b"<html>not found</html>", b"PK\x03\x04", b"\x1f\x8b\x08"]
)
def test_files_that_are_not_archives_are_refused(tmp_path: pathlib.Path, content: bytes) -> None:
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(content)
    for given in (path, tmp_path):
        with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz: "):
            read_cifar(given, LAYOUT)
