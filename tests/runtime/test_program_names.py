"""Programs in help and messages are called as the user called the program."""

import importlib

import pytest

from purenoise_jax import cli
from purenoise_jax.runtime import program_names
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.runtime.exit_codes import run_command
from purenoise_jax.runtime.program_names import SUBCOMMANDS, as_called, as_subcommand

TEXT = "run python -m\n    purenoise_jax.calibrate. Then python -m purenoise_jax.analysis report a"


def test_a_program_is_named_as_a_subcommand_within_one_only():
    assert as_called(TEXT) == TEXT
    with as_subcommand():
        assert as_called(TEXT) == "run purenoise-jax calibrate. Then purenoise-jax report a"
        # These have no subcommand.
        for other in (
            "python -m purenoise_jax.analysis curves a",
            "python -m purenoise_jax.checkpoint.convert_weights a",
            "python -m purenoise_jax.mainly",
            "purenoise_jax.predict",
        ):
            assert as_called(other) == other
    assert as_called(TEXT) == TEXT


def test_all_subcommands_are_known():
    assert sorted(SUBCOMMANDS.values()) == sorted(cli.COMMANDS)
    for name in SUBCOMMANDS:
        assert importlib.util.find_spec(name.partition(" ")[0])


def test_in_an_installed_package_launch_lies_within_it(monkeypatch):
    monkeypatch.setattr(program_names, "_INSIDE", True)
    toy, compare = "python -m launch.studies.toy a", "python -m launch.compare b"
    assert as_called(toy) == "python -m purenoise_jax.launch.studies.toy a"
    assert as_called(compare) == "python -m purenoise_jax.launch.compare b"
    with as_subcommand():
        assert as_called(compare) == "purenoise-jax compare b"


@pytest.mark.parametrize("name", [*cli.COMMANDS])
def test_help_names_the_program_as_it_was_called(name, capsys):
    try:
        assert cli.main(["purenoise-jax", name, "--help"]) == 0
    except SystemExit as end:
        assert end.code == 0
    shown = capsys.readouterr().out
    if name != "report":
        assert f"usage: purenoise-jax {name}" in shown
    for module in SUBCOMMANDS:
        assert f"python -m {module} " not in shown


def test_errors_name_the_program_as_it_was_called(capsys):
    def fail():
        raise ConfigError(TEXT)

    assert run_command(fail, debug=False, interrupted="") == 2
    with as_subcommand():
        assert run_command(fail, debug=False, interrupted="") == 2
    plain, called = capsys.readouterr().err.splitlines()
    assert "python -m purenoise_jax.calibrate" in plain and "purenoise-jax calibrate" in called
