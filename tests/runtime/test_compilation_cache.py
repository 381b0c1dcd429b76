"""Compilation cache: it is private to the user, respects the settings of JAX, and is used."""

import json
import os
import stat
import subprocess
import sys

import jax
import pytest

from purenoise_jax.runtime import compilation_cache


@pytest.fixture
def unconfigured(monkeypatch, tmp_path):
    """JAX has no cache folder configured; the user's cache folder is empty."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield tmp_path / "cache"
    jax.config.update("jax_compilation_cache_dir", before)


def test_the_folder_is_private_to_the_user(unconfigured):
    folder = compilation_cache.enable()
    assert folder.parent == unconfigured / "purenoise_jax"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert jax.config.jax_compilation_cache_dir == str(folder)
    assert compilation_cache.enable() == folder


@pytest.mark.parametrize("which", ["folder", "parent"])
def test_a_folder_that_is_open_to_others_is_not_used(unconfigured, which):
    folder = compilation_cache.enable()
    jax.config.update("jax_compilation_cache_dir", None)
    (folder if which == "folder" else folder.parent).chmod(0o770)
    assert compilation_cache.enable() is None
    assert jax.config.jax_compilation_cache_dir is None


def test_there_is_no_cache_if_its_folder_cannot_be_created(unconfigured):
    unconfigured.write_text("a file where the folder should be")
    assert compilation_cache.enable() is None
    assert jax.config.jax_compilation_cache_dir is None


def test_a_configured_folder_stays(monkeypatch, tmp_path):
    configured = jax.config.jax_compilation_cache_dir
    assert configured
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert str(compilation_cache.enable()) == configured
    assert not list(tmp_path.iterdir())


def test_it_can_be_turned_off(unconfigured):
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        assert compilation_cache.enable() is None
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert not unconfigured.exists()


PROGRAM = """
import json, jax, jax.numpy as jnp
from purenoise_jax.runtime import compilation_cache
compilation_cache.enable()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
seen = []
jax.monitoring.register_event_listener(lambda event, **_: seen.append(event))
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((8, 8))).block_until_ready()
print(json.dumps([e.split("/")[-1] for e in seen if "cache" in e]))
"""


@pytest.mark.slow
def test_a_second_process_uses_programs_that_the_first_compiled(tmp_path):
    env = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    env |= {"XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}

    def events():
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout.splitlines()[-1])

    assert "cache_hits" not in events()
    assert "cache_hits" in events()
