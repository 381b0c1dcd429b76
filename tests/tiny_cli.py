"""Config file of the tiny problem: `--config tests/tiny_cli.py:PATH_OF_NPZ`."""

from ml_collections import ConfigDict

from tests.tiny import tiny_config


def get_config(arg: str) -> ConfigDict:
    return tiny_config(arg)
