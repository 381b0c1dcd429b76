"""Configs of many runs, made from the config, the data and the fields that a command line gives."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from purenoise_jax.config.flags import parse
from purenoise_jax.config.run_record import CONFIG_FILE
from purenoise_jax.config.validation import validate
from purenoise_jax.config.validation_images import VALIDATION_RULES
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.runtime.files import read_json
from purenoise_jax.runtime.paths import expand

from .planning import Task

OWN_IMAGES = "images"
# Fields that a program with several runs decides itself.
DECIDED = {"seed": "--seeds", "init_from": "the plan", "init_epoch": "the plan"}


def with_data(config: str, data: str, fields: Sequence[str]) -> tuple[str, list[str]]:
    """Returns the config and the fields with the place of the data among them.

    Args:
        config: FILE[:ARGS]; "" = that of own images.
        data: folder or file; "" = that of the config.
        fields: `--config.FIELD=VALUE`.

    Raises:
        ConfigError: neither is given, or a word of the fields is none.
    """
    stray = [word for word in fields if word.startswith("-") and not _is_field(word)]
    if stray:
        raise ConfigError(f"{stray[0]} is not known; see --help")
    config = config or (OWN_IMAGES if data else "")
    if not config:
        raise ConfigError("--config=FILE is missing, or --data=PATH of your own images; see --help")
    path, colon, arguments = config.partition(":")
    if data and Path(path).stem == OWN_IMAGES:
        # It reads the images to find settings that fit them.
        return f"{path}:path={data}{colon and ','}{arguments}", [*fields]
    return config, [*fields, *([f"--config.data.path={data}"] if data else [])]


def arguments_of(config: str) -> dict[str, str]:
    """Returns the arguments behind the colon of FILE[:ARGS], by name."""
    parts = filter(None, config.partition(":")[2].split(","))
    return {name.strip(): value for name, _, value in (part.partition("=") for part in parts)}


def joined(config: str, arguments: Mapping[str, str]) -> str:
    """Returns FILE[:ARGS] with further arguments."""
    path, _, given = config.partition(":")
    more = (f"{name}={value}" for name, value in arguments.items())
    text = ",".join(filter(None, (given, *more)))
    return f"{path}:{text}" if text else path


def config_of(
    config: str,
    arguments: Mapping[str, str],
    fields: Sequence[str],
    by: str,
    decided: Mapping[str, str] = DECIDED,
) -> ConfigDict:
    """Returns a config of a run, which may be changed.

    Args:
        config: FILE[:ARGS].
        arguments: further arguments of the config.
        fields: `--config.FIELD=VALUE`.
        by: the option that gives these arguments.
        decided: field -> what gives it instead of the command line.

    Raises:
        ConfigError: an argument, a field or a value is not legal, or is given twice.
    """
    for name in arguments_of(config).keys() & arguments.keys():
        raise ConfigError(f"--config={config}: {name} is given by {by}, not by {name}=")
    made = parse(["launch", f"--config={joined(config, arguments)}", *fields]).config
    for field, by_whom in decided.items():
        if is_given(field, fields):
            raise ConfigError(
                f"--config.{field} has no effect here: {by_whom} sets it for each run"
            )
    validate(made)
    # The command line's is locked.
    made = made.copy_and_resolve_references()
    made.unlock()
    return made


def is_given(field: str, fields: Sequence[str]) -> bool:
    """True if a field is among `--config.FIELD=VALUE`."""
    return any(word.lstrip("-").partition("=")[0] == f"config.{field}" for word in fields)


def fills_in_validation(config: str, fields: Sequence[str]) -> bool:
    """True if the config of own images chooses a rule for validation images, as nobody gave one.

    Args:
        config: FILE[:ARGS].
        fields: `--config.FIELD=VALUE`.
    """
    own = Path(config.partition(":")[0]).stem == OWN_IMAGES
    given = any(is_given(f"data.{rule}", fields) for rule in VALIDATION_RULES)
    return own and not given and "folds" not in arguments_of(config)


def title_of(config: str) -> str:
    """Returns FILE[:ARGS] as a heading."""
    path, _, arguments = config.partition(":")
    return ", ".join(filter(None, (Path(path).stem, arguments.replace(",", ", "))))


def refuse_other_data(task: Task) -> None:
    """Refuses a workdir whose run has its data elsewhere, which its hash does not tell.

    Raises:
        ConfigError: naming both places.
    """
    file = task.workdir / CONFIG_FILE
    if not file.is_file():
        return
    try:
        before = str(read_json(file)["config"]["data"]["path"])
    except (ValueError, LookupError, TypeError) as error:
        raise ConfigError(f"{file} is damaged ({error})") from None
    here = str(task.config.data.path)
    if before and here and Path(before).resolve() != expand(here, "data.path").resolve():
        raise ConfigError(
            f"{task.workdir} was trained on the data in {before}, not {here}; choose another --out"
        )


def _is_field(word: str) -> bool:
    return word.lstrip("-").startswith(("config.", "noconfig."))
