"""Style, options and file formats that all figures share."""

import dataclasses
import io
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from cycler import cycler
from matplotlib.figure import Figure

from purenoise_jax.inference.runs import Run
from purenoise_jax.runtime.files import write_atomically, write_json

# Okabe and Ito's colours, which most colour-blind readers can tell apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")

STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=COLORS),
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a figure.

    Attributes:
        epoch: completed epochs of the checkpoints to show; None = the newest.
        seed: seed of every random choice of the figure.
        images: number of noise images, and of images of each other kind, or of planes through
            three images; 0 = the figure's own.
        ood_name: data set of out-of-distribution images; "" = the other CIFAR.
        ood_path: location of that data set; "" = beside the run's own data.
        indices: name and file of each given list of indices.
        rounds: number of random sub-samples; 0 = the figure's own.
    """

    epoch: int | None = None
    seed: int = 0
    images: int = 0
    ood_name: str = ""
    ood_path: str = ""
    indices: tuple[tuple[str, str], ...] = ()
    rounds: int = 0


class Drawing(NamedTuple):
    """A figure, and the numbers it shows as JSON values."""

    figure: Figure
    numbers: dict[str, Any]


Draw = Callable[[Sequence[Run], Options], Drawing]


def styled() -> AbstractContextManager[None]:
    """Returns a context in which figures have the common style."""
    return mpl.rc_context(STYLE)


def literal(text: str) -> str:
    """Escapes a user's text for a figure: no dollar starts a formula, no underscore hides it."""
    text = text.replace("$", r"\$")
    # Matplotlib leaves labels that begin with an underscore out of legends.
    return f" {text}" if text.startswith("_") else text


def save(drawing: Drawing, folder: Path, name: str) -> list[Path]:
    """Writes NAME.png, NAME.pdf and NAME.json.

    Args:
        drawing: the figure and its numbers.
        folder: created if it does not exist.
        name: NAME of the files.

    Returns:
        The paths written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{suffix}" for suffix in ("png", "pdf", "json")]
    png, pdf = io.BytesIO(), io.BytesIO()
    with styled():
        drawing.figure.savefig(png, format="png")
        # Without a date, so that the same figure gives the same file.
        drawing.figure.savefig(pdf, format="pdf", metadata={"CreationDate": None})
    write_atomically(paths[0], png.getvalue())
    write_atomically(paths[1], pdf.getvalue())
    write_json(paths[2], drawing.numbers)
    return paths
