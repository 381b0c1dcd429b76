"""Command line that converts weights saved by PyTorch into a safetensors file.

python -m purenoise_jax.checkpoint.convert_weights resnet50.pth resnet50.safetensors

A .pth file is a pickle, which can name any function to call. PyTorch reads it in its restricted
mode, which rebuilds tensors and refuses everything else. Nothing else in the package reads such a
file, and nothing here reads one in another way.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from purenoise_jax.checkpoint.weights_file import INSTALL
from purenoise_jax.runtime.errors import ConfigError, DataError
from purenoise_jax.runtime.exit_codes import Parser, run_command
from purenoise_jax.runtime.files import open_plain
from purenoise_jax.runtime.paths import expand

# The restricted mode of earlier versions could be made to run code (CVE-2025-32434).
OLDEST_TORCH = (2, 6)


def parser() -> argparse.ArgumentParser:
    """Builds the parser of the command line."""
    parse = Parser(
        prog="python -m purenoise_jax.checkpoint.convert_weights",
        description="Converts a file of torch.save that holds a dictionary of tensors, without "
        "running code of the file. Needs PyTorch from 2.6 on.",
        epilog="exit codes: 0 converted, 2 usage, 3 the file is damaged, or holds something else "
        "than tensors, 5 a file cannot be read or written",
    )
    parse.add_argument("source", metavar="FILE.pth")
    parse.add_argument("target", metavar="FILE.safetensors", help="must not exist yet")
    parse.add_argument("--key", default="", help="entry of the dictionary that holds the tensors")
    parse.add_argument("--debug", action="store_true", help="show tracebacks")
    return parse


def read_tensors(path: Path, key: str = "") -> dict[str, np.ndarray]:
    """Reads the tensors of a file of `torch.save` without running code of the file.

    Args:
        path: of the file.
        key: entry of its dictionary that holds the tensors; "" = the dictionary itself.

    Raises:
        ConfigError: PyTorch is not installed, or older than 2.6.
        DataError: the file is damaged, or holds something else than tensors.
        OSError: it cannot be read.
    """
    try:
        import torch
    except ImportError:
        raise ConfigError(f"{path}: PyTorch is needed to read it, and not installed") from None
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < OLDEST_TORCH:
        raise ConfigError(f"PyTorch {torch.__version__} cannot read it safely; legal: from 2.6 on")
    with open_plain(path) as file:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except OSError:
            raise
        except Exception as error:
            # A damaged file can raise anything.
            raise DataError(f"{path}: not a complete file of tensors ({_reason(error)})") from None
    found = content.get(key) if key and isinstance(content, dict) else content
    if not isinstance(found, dict) or not found:
        raise DataError(f"{path}: {f'its entry {key!r}' if key else 'it'} holds no dictionary")
    other = [name for name, value in found.items() if not isinstance(value, torch.Tensor)]
    if other:
        names = ", ".join(map(str, other[:3]))
        raise DataError(f"{path}: {names} holds no tensor; --key chooses an entry")
    return {str(name): _to_numpy(tensor) for name, tensor in found.items()}


def _to_numpy(tensor: Any) -> np.ndarray:
    """The values of a PyTorch tensor; those of bfloat16, which NumPy lacks, as float32."""
    wide = tensor.float() if tensor.is_floating_point() else tensor
    return wide.detach().contiguous().numpy()


def _reason(error: Exception) -> str:
    """The line of PyTorch's message that names what it refuses; the others advise to run it."""
    named = [line.strip() for line in str(error).splitlines() if "nsupported" in line]
    return named[0] if named else type(error).__name__


def convert(source: Path, target: Path, key: str) -> None:
    """Writes the tensors of a file of `torch.save` into a new safetensors file.

    Raises:
        ConfigError: a package is missing, or the target exists.
        DataError: as for `read_tensors`.
        OSError: a file cannot be read or written.
    """
    try:
        from safetensors.numpy import save
    except ImportError:
        raise ConfigError(f"the package safetensors is needed: {INSTALL}") from None
    if target.exists():
        raise ConfigError(f"{target} exists; legal: a new path")
    arrays = read_tensors(source, key)
    try:
        with target.open("xb") as file:
            file.write(save(arrays))
    except OSError:
        target.unlink(missing_ok=True)
        raise


def main(argv: Sequence[str]) -> int:
    """Runs one command line and returns its exit code."""

    def run() -> int:
        args = parser().parse_args(argv[1:])
        convert(expand(args.source, "FILE"), expand(args.target, "FILE"), args.key)
        return 0

    return run_command(run, debug="--debug" in argv, interrupted="interrupted")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
