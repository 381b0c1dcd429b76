"""Command-line flags: the config file, its fields, and the processes of a run."""

import difflib
import warnings
from collections.abc import Collection, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from purenoise_jax.config import packaged
from purenoise_jax.config.fields import field_of, flatten
from purenoise_jax.config.method_help import method_lines
from purenoise_jax.methods.schedules import COSINE
from purenoise_jax.runtime.distributed import HEARTBEAT_SECONDS, START_SECONDS
from purenoise_jax.runtime.errors import ConfigError, PureNoiseError

USAGE = """\
Trains an image classifier on long-tailed data; by default with pure noise images (OPeN) and DAR-BN.

usage: python -m purenoise_jax.main --config FILE[:ARGS] --workdir DIR [--config.FIELD=VALUE ...]

  --config FILE[:ARGS]      a Python file with get_config(arg), or the name of one that comes with
                            the package: @NAMES@;
                            the arguments after the colon are listed at the top of each file:
                            cifar10_lt:method=drs,preset=rescience,epochs=20
  --workdir DIR             folder for metrics.jsonl, tensorboard/, checkpoints/ and, at the end,
                            summary.json and report.html; the same command once more continues
                            where the run stopped
  --config.FIELD=VALUE      changes a field; a tuple is written '(160, 180)'
  --debug                   show a traceback with an error
  --coordinator HOST:PORT --num_processes N --process_id I
                            one of several processes; --coordinator=auto asks the cluster (SLURM).
                            Process 0 listens at HOST:PORT and at a second port, only at HOST if
                            that is an address of its own. The traffic between the processes is
                            neither encrypted nor authenticated: use a network that you trust
  --heartbeat SECONDS       a process that is silent for this long counts as gone, and the others
                            end (30); at least 5
  --start_timeout SECONDS   longest wait of the processes for each other at the start (300)

exit codes: 0 done, 2 usage or config, 3 data, 4 checkpoint, 5 storage, 6 several steps
            in a row not finite, 7 workdir in use, 130 or 143 stopped by a signal after
            saving all results, 1 anything else, such as another process that is gone

examples:
  python -m purenoise_jax.main --config configs/digits_lt.py --workdir runs/digits
  python -m purenoise_jax.main --config configs/cifar10_lt.py:method=erm --workdir runs/erm
  python -m purenoise_jax.main --config configs/cifar10_lt.py --workdir runs/open \\
      --config.init_from=runs/erm --config.init_epoch=160
"""


FLAG_NAMES = (
    *("config", "workdir", "debug", "help"),
    *("coordinator", "num_processes", "process_id", "heartbeat", "start_timeout"),
)


def help_text(config: ConfigDict) -> str:
    """Returns the usage, the methods, and every config field with its value and legal values."""
    values = flatten(config)
    usage = USAGE.replace("@NAMES@", ", ".join(packaged.names()))
    lines = [usage, "methods, for the argument method= of a config file, joined by +:"]
    lines += [*method_lines(), "", "fields, with the value that the config gives them:"]
    for path, value in values.items():
        field = field_of(path)
        lines.append(f"  {path}={value!r}")
        if field is not None:
            lines.append(f"      {field.help}; {field.legal}")
    return "\n".join(lines)


def parse(argv: Sequence[str]) -> flags.FlagValues:
    """Reads the command line.

    Args:
        argv: with the program's name first.

    Raises:
        ConfigError: one line that says what is wrong.
    """
    argv = packaged.with_paths(argv)
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "output folder", flag_values=values)
    flags.DEFINE_bool("debug", False, "show tracebacks", flag_values=values)
    flags.DEFINE_string("coordinator", None, "HOST:PORT or auto", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "processes", flag_values=values)
    flags.DEFINE_integer("process_id", None, "this process", flag_values=values)
    for name, default, least in (
        ("heartbeat", HEARTBEAT_SECONDS, 5),
        ("start_timeout", START_SECONDS, 1),
    ):
        flags.DEFINE_integer(name, default, "seconds", lower_bound=least, flag_values=values)
    flags.DEFINE_bool("help", False, "help", short_name="h", flag_values=values)
    # The file is read first, so that the message about a wrong field can name the nearest one; and
    # only once, because its side effects, such as printing, would otherwise happen twice.
    config_only = flags.FlagValues()
    here, others = _split_config(argv)
    if "--flagfile" in (arg.partition("=")[0] for arg in argv):
        raise ConfigError("--flagfile is not supported; put the fields into a config file")
    config_flags.DEFINE_config_file(
        "config", None, "config file", sys_argv=here, flag_values=config_only
    )
    try:
        config = _load(config_only, here)
        if len(here) > 1 and not isinstance(config, ConfigDict):
            seen = type(config).__name__
            raise ConfigError(f"{here[1]}: get_config must return a ConfigDict, got {seen}")
        if config is None:
            config_flags.DEFINE_config_file(
                "config", None, "config file", sys_argv=others, flag_values=values
            )
        else:
            _refuse_unknown_fields(argv, flatten(config))
            config_flags.DEFINE_config_dict("config", config, sys_argv=others, flag_values=values)
        rest = values(others)[1:]
    except flags.UnrecognizedFlagError as error:
        name = error.flagname
        near = difflib.get_close_matches(name, FLAG_NAMES, 1)
        hint = f"; did you mean --{near[0]}?" if near else ""
        raise ConfigError(f"--{name} is not known; see --help{hint}") from None
    except Exception as error:
        cause = _own_cause(error)
        if cause is not None:
            raise cause from None
        # "flag --config.batch_size=abc: invalid literal for int() with base 10: 'abc'"
        name, _, text = str(error).removeprefix("flag --config.").partition("=")
        field = field_of(name)
        if field is not None:
            value = text.partition(": ")[0]
            raise ConfigError(f"{name}={value[:80]} is not legal; legal: {field.legal}") from None
        # An error in a config file comes with its traceback, whose last line is the message.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        message = lines[-1] if "Traceback" in str(error) else " ".join(lines)
        where = "" if config_only.is_parsed() else f"{here[1].removeprefix('--config=')}: "
        raise ConfigError(f"{where}{message[:400]}") from error
    if rest:
        raise ConfigError(f"{rest[0]!r} on the command line is not a flag; see --help")
    if isinstance(values.config, ConfigDict):
        leave_out_drops(values.config, _given_fields(others))
    return values


def leave_out_drops(config: ConfigDict, given: Collection[str]) -> None:
    """Leaves out the drops of a config whose schedule a command line makes a cosine.

    Drops that the command line gives itself stay, and are refused, because they contradict it.

    Args:
        config: changed in place.
        given: paths of the fields on the command line.
    """
    unused: dict[str, Any] = {}
    values = flatten(config)
    for path in given:
        section, _, name = path.rpartition(".")
        if name == "schedule" and values.get(path) == COSINE:
            gamma = field_of(f"{section}.gamma")
            unused[f"{section}.milestones"] = ()
            unused[f"{section}.gamma"] = None if gamma is None else gamma.default
    there = {path: value for path, value in unused.items() if path in values and path not in given}
    config.update_from_flattened_dict(there)


def _load(values: flags.FlagValues, argv: list[str]) -> Any:
    """Returns the config of the config file; None without a file.

    Raises:
        ConfigError: the file ends the program, which would otherwise look like a completed run.
    """
    try:
        with warnings.catch_warnings():
            # The library loads a file in a deprecated way, which no user can change.
            warnings.filterwarnings("ignore", r"the load_module\(\) method", DeprecationWarning)
            values(argv)
    except (SystemExit, KeyboardInterrupt) as ending:
        if isinstance(ending, KeyboardInterrupt) and not ending.args:
            # Raised by Ctrl-C, not by the file.
            raise
        path, kind = argv[1].removeprefix("--config="), type(ending).__name__
        raise ConfigError(f"{path}: the config file ends the program ({kind}: {ending})") from None
    return values.config


def _split_config(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the program's name and --config=FILE; and the command line without that flag.

    Raises:
        ConfigError: the flag is given twice, or without a file.
    """
    found, others = [], []
    left = iter(argv)
    for arg in left:
        name, equals, value = arg.partition("=")
        if name not in ("--config", "-config"):
            others.append(arg)
            continue
        path = value if equals else next(left, None)
        if path is None:
            raise ConfigError("--config needs a file, such as configs/digits_lt.py")
        found.append(path)
    if len(found) > 1:
        raise ConfigError(f"--config is given twice: {found[0]} and {found[1]}")
    return [argv[0], *(f"--config={value}" for value in found)], others


def _given_fields(argv: Sequence[str]) -> list[str]:
    """The paths of the fields on the command line, known or not."""
    names = [arg.partition("=")[0].lstrip("-") for arg in argv if arg.startswith("-")]
    return [n.partition(".")[2] for n in names if n.startswith(("config.", "noconfig."))]


def _refuse_unknown_fields(argv: Sequence[str], known: dict[str, Any]) -> None:
    for field in _given_fields(argv):
        if field in known:
            continue
        near = difflib.get_close_matches(field, known, 1, 0.4)
        hint = f"; did you mean {near[0]}?" if near else "; see --help for all"
        raise ConfigError(f"{field} is not a config field{hint}")


def _own_cause(error: BaseException | None) -> PureNoiseError | None:
    """Returns the innermost `PureNoiseError` that a library has wrapped in its own, if any."""
    own = None
    while error is not None:
        own = error if isinstance(error, PureNoiseError) else own
        error = error.__cause__ or error.__context__
    return own
