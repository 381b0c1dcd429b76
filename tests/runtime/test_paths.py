"""Paths as users write them: home folders, control characters, encodings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.runtime.paths import expand, workdir_path


def test_home_folders(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert expand("~/runs", "workdir") == Path("/home/me/runs")
    assert expand(Path("~"), "workdir") == Path("/home/me")
    assert expand("a/~b", "workdir") == Path("a/~b") and expand("./~b", "x") == Path("~b")


def test_a_user_that_does_not_exist_is_one_line():
    message = r"^data\.path=~no-such-user/x: there is no user 'no-such-user'; .* \./~no-such-user$"
    with pytest.raises(ConfigError, match=message):
        expand("~no-such-user/x", "data.path")


def test_an_unknown_home_is_one_line(monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(ConfigError, match="workdir=~: your home folder is not known"):
        expand("~", "workdir")


@pytest.mark.parametrize("text", ["a\nb", "a\x1b[31mb", "a\x00b", "a\u2028b", "a\x7fb"])
def test_control_characters_are_refused(text):
    with pytest.raises(ConfigError, match=r"^workdir='a\\.*b' is not legal; legal: a path without"):
        workdir_path(text)


def test_a_workdir_path_that_is_not_utf8_is_refused(tmp_path):
    assert workdir_path(tmp_path / "größer [a] $b$") == tmp_path / "größer [a] $b$"
    odd = tmp_path / os.fsdecode(b"l\xe4uf")
    with pytest.raises(ConfigError, match=r"workdir=.*l\\udce4uf: checkpoints cannot be at a path"):
        workdir_path(odd)
    # A link that leads there is refused too; a link at such a path that leads elsewhere is legal.
    odd.mkdir()
    (tmp_path / "link").symlink_to(odd)
    with pytest.raises(ConfigError, match=r"init_from=.*checkpoints cannot be at"):
        workdir_path(tmp_path / "link/run", "init_from")
    (tmp_path / "plain").mkdir()
    (odd / "link").symlink_to(tmp_path / "plain")
    assert workdir_path(odd / "link") == odd / "link"


def test_letters_that_the_file_name_encoding_lacks_are_refused():
    code = (
        "from purenoise_jax.runtime.errors import ConfigError\n"
        "from purenoise_jax.runtime.paths import expand, workdir_path\n"
        "import sys\n"
        "calls = lambda: expand('gr\\xf6\\xdfer', 'data.path'), lambda: workdir_path(sys.argv[1])\n"
        "for call in calls:\n"
        "    try: call()\n"
        "    except ConfigError as error: print(ascii(str(error)))\n"
    )
    environment = {**os.environ, "PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, "größer"], env=environment, capture_output=True, text=True
    )
    first, second = done.stdout.splitlines()
    assert "data.path=gr\\xf6\\xdfer: file names are ascii here, which lacks some" in first
    assert "file names are ascii here" in second and "PYTHONUTF8=1" in second
