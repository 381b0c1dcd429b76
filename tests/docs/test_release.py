"""The license, the changelog and the release workflow agree with the package."""

import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_license_is_named_alike_everywhere():
    assert PROJECT["license"] == "Apache-2.0" and PROJECT["license-files"] == ["LICENSE"]
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:200]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["license"] == PROJECT["license"]
    assert citation["version"] == PROJECT["version"]


def test_the_changelog_has_the_version():
    assert f"## {PROJECT['version']} (" in (ROOT / "CHANGELOG.md").read_text()


def test_a_release_is_checked_built_and_tried():
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    # YAML 1.1 reads the key "on" as True.
    assert workflow[True] == {"push": {"tags": ["v*"]}}
    check, release = workflow["jobs"]["check"], workflow["jobs"]["release"]
    assert check["steps"][-1]["run"] == ".ci/run" and release["needs"] == "check"
    assert (ROOT / ".ci/run").stat().st_mode & 0o111
    commands = " ".join(step.get("run", "") for step in release["steps"])
    program = next(iter(PROJECT["scripts"]))
    assert "python -m build" in commands and f"bin/{program} --config digits_lt" in commands
    assert "--notes-file CHANGELOG.md" in commands
