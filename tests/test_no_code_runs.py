"""Checks with an audit hook that reading data and a saved config runs no code of the files.

Also checks that a run writes nothing of the environment.
"""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
from PIL import Image

from purenoise_jax import main as cli
from purenoise_jax.config.fields import default_config
from purenoise_jax.config.run_record import CONFIG_FILE, saved_config
from purenoise_jax.runtime.files import write_json
from tests import cifar_files, trees
from tests.data.sources.test_cifar_hostile import hostile_pickles
from tests.tiny import write_npz

WATCHED = """
import pathlib, pickle, sys
from purenoise_jax.config.fields import default_config
from purenoise_jax.data.sources.cifar import read_cifar
from purenoise_jax.data.sources.folder import load_folder
from purenoise_jax.data.sources.idx import load_idx
from purenoise_jax.data.sources.svhn import load_svhn
from purenoise_jax.data.longtail import read_indices
from purenoise_jax.data.sources.npz import load_npz
from purenoise_jax.data.sources.tfds import load_tfds
from purenoise_jax.data.sources.safe_unpickle import spans_of_arrays, unpickle_arrays
from purenoise_jax.data.sources.tiered_imagenet import load_tiered_imagenet
from purenoise_jax.runtime.errors import DataError
from purenoise_jax.config.run_record import refuse_other_run
from tests import cifar_files

root = pathlib.Path(sys.argv[1])
layout = cifar_files.small_layout("cifar10")

def read_all():
    refuse_other_run(default_config(), root / "run")
    read_cifar(root, layout)
    read_cifar(root / "python.tar.gz", layout)
    load_npz(name="", path=str(root / "tiny.npz"))
    load_folder(name="", path=str(root / "images"))
    load_svhn(name="", path=str(root / "svhn"))
    load_idx(name="", path=str(root / "idx"))
    load_tiered_imagenet(name="", path=str(root / "tiered"))
    read_indices(str(root / "subset.npy"), 99)
    refused = 0
    for file in sorted((root / "hostile").iterdir()):
        for read in (lambda file: unpickle_arrays(file.read_bytes(), file.name), spans_of_arrays):
            try:
                read(file)
            except DataError:
                refused += 1
    for load in (load_npz, load_folder, load_tfds):
        try:
            load(name="", path=str(root / "hostile"))
        except (DataError, ValueError):
            refused += 1
    return refused

# Once before the hook, because readers import modules only when they use them, and imports run code.
read_all()
BAD = ("pickle.find_class", "exec", "os.system", "os.exec", "os.fork", "os.forkpty", "os.spawn",
       "os.posix_spawn", "subprocess.Popen", "socket.connect", "ctypes.dlopen", "code.__new__",
       "marshal.loads", "import", "os.remove", "os.rename", "shutil.rmtree")
seen = []
sys.addaudithook(lambda event, args: seen.append(f"{event} {args!r:.200}") if event in BAD else None)
refused = read_all()
found, seen[:] = list(seen), []
pickle.loads(pickle.dumps(print))
assert any("pickle.find_class" in event for event in seen), "the hook sees nothing"
print(refused, found)
"""


def test_reading_runs_nothing(tmp_path: pathlib.Path) -> None:
    layout = cifar_files.small_layout("cifar10")
    python = cifar_files.python_files(layout)
    cifar_files.write_folder(tmp_path, layout.forms[1], python)
    cifar_files.write_archive(tmp_path / "python.tar.gz", layout.forms[1], python)
    write_npz(tmp_path / "tiny.npz")
    np.save(tmp_path / "subset.npy", np.arange(9))
    for split in ("train", "test"):
        for name in ("a", "b"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            Image.fromarray(np.full((4, 4, 3), 9, np.uint8)).save(folder / "x.png")
    for source, write in (
        ("svhn", trees.svhn),
        ("idx", trees.fashion_mnist),
        ("tiered", trees.tiered_imagenet_pickles),
    ):
        (tmp_path / source).mkdir()
        write(tmp_path / source)
    marker, hostile = tmp_path / "marker", tmp_path / "hostile"
    hostile.mkdir()
    pickles = hostile_pickles(marker)
    for name, (data, _) in pickles.items():
        (hostile / name).write_bytes(data)
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / CONFIG_FILE, saved_config(default_config()))
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == f"{2 * len(pickles) + 3} []"
    assert not marker.exists()


def test_the_environment_is_not_written(tmp_path: pathlib.Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("SERVICE_TOKEN", "a-value-that-nobody-may-see")
    npz = write_npz(tmp_path / "tiny.npz")
    command = ["main", f"--config=tests/tiny_cli.py:{npz}", f"--workdir={tmp_path / 'run'}"]
    assert cli.main([*command, "--config.report=true"]) == 0
    out, err = capsys.readouterr()
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"config.json", "summary.json", "metrics.jsonl", "report.html"} <= names
    texts = {str(path): path.read_bytes() for path in files}
    texts |= {"out": out.encode(), "err": err.encode()}
    for where, text in texts.items():
        assert b"a-value-that-nobody-may-see" not in text, where
        assert b"SERVICE_TOKEN" not in text and b"PYTHONPATH" not in text, where
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    home = os.path.expanduser("~")
    config["config"]["data"].pop("path")
    assert len(home) < 4 or home not in json.dumps(config)
