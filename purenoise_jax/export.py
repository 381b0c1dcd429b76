"""The command line that writes the network of a run as a file for other programs.

python -m purenoise_jax.export RUN --to stablehlo
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from functools import partial

from purenoise_jax.inference.classifier import load
from purenoise_jax.inference.deployment_options import add_deployment, add_epoch
from purenoise_jax.inference.exports.agreement import BATCHES
from purenoise_jax.inference.exports.write import KINDS, check_paths, export
from purenoise_jax.runtime import compilation_cache
from purenoise_jax.runtime.console import show
from purenoise_jax.runtime.errors import one_line
from purenoise_jax.runtime.exit_codes import Parser, run_command
from purenoise_jax.runtime.paths import expand
from purenoise_jax.runtime.threads import exit_process

EXAMPLES = """
RUN is the workdir of a training. Beside the file are its description, FILE.json, and a model
card, FILE.md. They are written once the file has been read back and agrees with the run.

exit codes: 0 done, 2 usage, 4 checkpoint, 5 storage, or the file does not agree with the run,
            130 interrupted, 1 anything else

examples:
  python -m purenoise_jax.export runs/mine --to stablehlo
  python -m purenoise_jax.export runs/mine --to safetensors --out classifier.safetensors
"""


def parser() -> argparse.ArgumentParser:
    """Builds the parser of the command line's arguments."""
    kinds = "\n".join(f"  {name:<14}{kind.help}" for name, kind in KINDS.items())
    parse = Parser(
        prog="python -m purenoise_jax.export",
        description="Writes the network of a run as a file for other programs.",
        epilog=f"kinds:\n{kinds}\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parse.add_argument("run", metavar="RUN", help="workdir of a run")
    parse.add_argument("--to", required=True, choices=KINDS, help="kind of file, see below")
    parse.add_argument("--out", metavar="FILE", help="default: RUN/export/classifier.KIND")
    add_epoch(parse)
    add_deployment(parse)
    parse.add_argument("--debug", action="store_true", help="show tracebacks")
    return parse


def main(argv: Sequence[str]) -> int:
    """Runs one command line, given without the program's name, and returns its exit code."""
    return run_command(partial(_export, argv), debug="--debug" in argv, interrupted="interrupted")


def _export(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    # Orbax logs every step of a restore.
    logging.getLogger("absl").setLevel(logging.ERROR)
    run, default = expand(args.run, "RUN"), f"classifier{KINDS[args.to].suffix}"
    out = expand(args.out, "--out") if args.out else run / "export" / default
    if args.out:
        check_paths(out, "--out")
    compilation_cache.enable()
    classifier = load(
        run,
        epoch=args.epoch,
        prior=args.prior,
        costs=args.costs,
        temperature=args.temperature,
    )
    written = export(classifier, args.to, out)
    for path in written.files:
        show(one_line(path))
    show(
        f"agrees with the run to {written.difference:.1e} on batches of "
        f"{', '.join(map(str, BATCHES))} random images"
    )
    return 0


if __name__ == "__main__":
    exit_process(main(sys.argv[1:]))
