"""Config file of the tiny problem: `--config tests/tiny_cli.py:PATH_OF_NPZ`.

With `,one_phase` behind the path the only phase is OPeN, which halves the compilation.
"""

from ml_collections import ConfigDict

from tests.tiny import tiny_config


def get_config(arg: str) -> ConfigDict:
    path, _, phases = arg.partition(",")
    config = tiny_config(path)
    if phases == "one_phase":
        config.phases = ConfigDict({"initial": {"start_epoch": 0, "methods": ("open",)}})
    return config
