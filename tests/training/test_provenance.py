"""Records of which code and settings a run was computed with."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import purenoise_jax
from purenoise_jax.runtime import files, numerics
from purenoise_jax.runtime.numerics import numeric_settings
from purenoise_jax.training import provenance
from purenoise_jax.training.loop import train_and_evaluate
from tests.tiny import tiny_config, write_npz
from tests.training.test_loop import Notes


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("provenance") / "tiny.npz")


def git(folder, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    command = ["git", *identity, *arguments]
    return subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def checkout(folder: Path) -> Path:
    """A repository with one small package, committed."""
    package = folder / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("'''A package.'''\n")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    return package


def test_the_commit_is_that_of_the_checkout(tmp_path):
    package = checkout(tmp_path)
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert provenance._commit(package) == commit
    (package / "untracked.py").touch()
    assert provenance._commit(package) == commit
    (package / "__init__.py").write_text("changed\n")
    assert provenance._commit(package) == f"{commit}-dirty"


def test_a_package_within_another_repository_has_no_commit(tmp_path):
    checkout(tmp_path)
    inner = tmp_path / "environment/site-packages/purenoise_jax"
    shutil.copytree(
        Path(purenoise_jax.__file__).parent, inner, ignore=shutil.ignore_patterns("__pycache__")
    )
    assert provenance._commit(inner) == "unknown"
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "vendored")
    assert provenance._commit(inner) == "unknown"


def test_asking_for_the_commit_leaves_the_index_alone(tmp_path):
    """The user may be about to commit: neither is the index written, nor its lock waited for."""
    package = checkout(tmp_path)
    index = tmp_path / ".git/index"
    # A file that only seems changed makes git want to refresh the index.
    os.utime(package / "__init__.py", (1, 1))
    before = index.read_bytes()
    assert provenance._commit(package) == git(tmp_path, "rev-parse", "HEAD")
    assert index.read_bytes() == before
    (tmp_path / ".git/index.lock").touch()
    assert "dirty" not in provenance._commit(package)
    assert index.read_bytes() == before


def test_variables_of_git_do_not_lead_to_another_repository(tmp_path, monkeypatch):
    package = checkout(tmp_path / "ours")
    commit = git(tmp_path / "ours", "rev-parse", "HEAD")
    checkout(tmp_path / "other")
    (tmp_path / "other/package/more.py").touch()
    git(tmp_path / "other", "add", "-A")
    git(tmp_path / "other", "commit", "-qm", "second")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    assert provenance._commit(package) == commit


def test_settings_that_change_numbers_are_recorded(monkeypatch):
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    expected = {
        "x64": "off",
        "matmul_precision": "default",
        "xla_flags": "none",
        "tf32_override": "none",
    }
    assert numeric_settings() == expected
    flags = "--xla_cpu_enable_fast_math=true  --xla_dump_to=/tmp/x --a=1"
    monkeypatch.setenv("XLA_FLAGS", f"{flags} --xla_force_host_platform_device_count=2")
    assert numeric_settings()["xla_flags"] == "--a=1 --xla_cpu_enable_fast_math=true"
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert numeric_settings()["tf32_override"] == "0"
    import jax

    with jax.default_matmul_precision("float32"):
        assert numeric_settings()["matmul_precision"] == "float32"
    with jax.enable_x64(True):
        assert numeric_settings()["x64"] == "on"


@pytest.mark.slow
def test_a_run_that_goes_on_says_which_setting_has_changed(npz, tmp_path, monkeypatch):
    config = tiny_config(npz, num_epochs=3)
    train_and_evaluate(config, tmp_path)
    summary = files.read_json(tmp_path / "summary.json")
    assert summary["settings"] == numeric_settings()
    config.num_epochs = 4
    flags = os.environ["XLA_FLAGS"] + " --xla_cpu_enable_fast_math=true"
    # The flags were read when the backend started; here only what is recorded of them counts.
    monkeypatch.setenv("XLA_FLAGS", flags)
    notes = Notes()
    train_and_evaluate(config, tmp_path, notes)
    [line] = [line for line in notes.lines if line.startswith("changed since")]
    assert "xla_flags --xla_backend_optimization_level=0 before, " in line
    assert "--xla_cpu_enable_fast_math=true now" in line
    assert numerics.numeric_settings() == files.read_json(tmp_path / "summary.json")["settings"]
