"""Console output of a run: a header, a progress bar, a line per evaluation, a table."""

import contextlib
import datetime
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, Any, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from purenoise_jax.runtime.errors import counted, harmless, one_line

# A run that takes longer should move to a faster machine.
TOO_SLOW_SECONDS = 24 * 3600
# Splits in words.
SPLITS = {"test": "test", "val": "validation", "training_set": "training"}


def duration(seconds: float) -> str:
    """Formats seconds with at most two units: "8 s", "3 min 20 s", "5 h 40 min", "12 d 3 h"."""
    left = round(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if left >= size or (unit == "s" and not parts):
            parts.append(f"{left // size} {unit}")
            left %= size
        elif parts:
            break
    return " ".join(parts[:2])


class _Unfailing:
    """A file whose writes never fail; otherwise it is like the file that it wraps.

    Args:
        file: to write to.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, text: str) -> int:
        """Writes if possible; characters that the file's encoding lacks are escaped."""
        with contextlib.suppress(OSError):
            try:
                self._file.write(text)
            except UnicodeEncodeError as error:
                self._file.write(_encodable(text, error.encoding))
        return len(text)

    def flush(self) -> None:
        """Flushes if possible."""
        with contextlib.suppress(OSError):
            self._file.flush()


class SafeConsole(Console):
    """A console that prints text literally and never fails.

    Square brackets and colons are not markup, and no text can control the terminal, see
    `errors.harmless`. If the reader has ended or a log's disk is full, output is dropped; Rich
    would raise, and at a broken pipe it would end the process in the middle of a run.

    Args:
        options: of Rich's console.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    @property
    def file(self) -> IO[str]:
        """The file to write to; looked up for every line, because sys.stdout may be replaced."""
        return cast(IO[str], _Unfailing(super().file))

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file

    def render_str(self, text: str, **options: Any) -> Text:
        """Returns a string as Rich prints it, made safe before a table measures its width."""
        return super().render_str(_encodable(_safe(text), self.encoding), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Makes everything that is printed safe, segment by segment."""
        for segment in super().render(renderable, options):
            # Segments with `control` are Rich's own, for example to move the cursor.
            if segment.control:
                yield segment
            else:
                yield Segment(_safe(segment.text), segment.style)


def _safe(text: str) -> str:
    return "\n".join(map(harmless, text.split("\n")))


def _encodable(text: str, encoding: str) -> str:
    return text.encode(encoding, "backslashreplace").decode(encoding)


def show(text: str) -> None:
    """Prints text on standard output, if it can be written to."""
    SafeConsole(soft_wrap=True).print(text)


def show_error(text: str, style: str = "bold red") -> None:
    """Prints one line on standard error, if it can be written to."""
    SafeConsole(stderr=True, soft_wrap=True).print(one_line(text), style=style)


def show_traceback() -> None:
    """Prints the current exception's traceback on standard error, if it can be written to."""
    SafeConsole(stderr=True, soft_wrap=True).print(traceback.format_exc(), end="")


def percent(share: float | None) -> str:
    """Formats a share in [0, 1] as percent with one decimal; "-" for None."""
    return "-" if share is None else f"{100 * share:.1f}"


def class_counts_line(counts: Sequence[int]) -> str:
    """Formats the class counts in one line, with the middle left out if there are many."""
    total = f"{counted(sum(counts), 'image')}, {counted(len(counts), 'class', 'classes')}: "
    shown = [str(n) for n in counts]
    if len(shown) > 12:
        shown = [*shown[:6], "...", *shown[-5:]]
    return total + " ".join(shown)


class Display:
    """The screen of a run: one of its processes prints, the others print nothing.

    Args:
        active: whether this process prints.
        console: to print on; None = standard output, as long as it can be written to.
    """

    def __init__(self, active: bool = True, console: SafeConsole | None = None) -> None:
        self._console = console or SafeConsole(quiet=not active, soft_wrap=True)
        self._progress: Progress | None = None
        self._task: Any = None
        self._measured = 0

    def header(self, lines: Mapping[str, str]) -> None:
        """Prints a description of the run as lines of name and value."""
        width = max(map(len, lines)) + 2
        for name, value in lines.items():
            self._console.print(Text.assemble((f"{name:<{width}}", "bold cyan"), one_line(value)))

    def note(self, text: str, style: str = "") -> None:
        """Prints one line of text."""
        self._console.print(Text(one_line(text), style=style))

    def warn(self, text: str) -> None:
        """Prints one line as a warning."""
        self.note(text, style="yellow")

    def estimate_once(
        self,
        seconds_per_step: float | None,
        steps: int,
        device: str,
        offer: Callable[[float], str] = lambda left: "",
    ) -> None:
        """Prints, once, the time that the remaining steps will take, and a warning if too long.

        Args:
            seconds_per_step: as measured; None = not measured yet.
            steps: that remain.
            device: kind of the device.
            offer: (seconds that remain) -> the fields of a smaller network, with its time; "" =
                there is none.
        """
        if seconds_per_step is None:
            return
        self._measured += 1
        # The first measurements include work that only the first steps do.
        if self._measured != 4:
            return
        left = seconds_per_step * steps
        fast = seconds_per_step < 1
        rate = f"{1 / seconds_per_step:.1f} steps/s" if fast else f"{seconds_per_step:.1f} s/step"
        self.note(f"{rate} here, so about {duration(left)} for the {steps:,} remaining steps")
        if left > TOO_SLOW_SECONDS:
            offered = offer(left)
            self.note(
                f"This machine ({device}) is too slow for this run: {duration(left)}. Use a GPU, "
                "or fewer epochs (the config argument epochs=N)"
                + (f", or a smaller network: {offered}" if offered else ""),
                style="bold yellow",
            )

    def start_progress(self, total: int, done: int) -> None:
        """Shows the progress bar, if the output is a terminal."""
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}", markup=False),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("", total=total, completed=done, rate="")
        self._progress.start()

    def doing(self, what: str) -> None:
        """Shows the current activity, in a few words, beside the bar."""
        if self._progress is not None:
            self._progress.update(self._task, description=one_line(what))

    def advance(self, done: int, images_per_second: float | None) -> None:
        """Moves the bar to a number of completed steps."""
        if self._progress is not None:
            rate = "" if images_per_second is None else f"{images_per_second:,.0f} images/s"
            self._progress.update(self._task, completed=done, rate=rate)

    def stop_progress(self) -> None:
        """Removes the bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def evaluated(
        self,
        epoch: int,
        num_epochs: int,
        loss: float | None,
        evaluated: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Prints one line about an evaluation.

        Args:
            epoch: completed epochs.
            num_epochs: of the run.
            loss: of the epoch; None = there is none.
            evaluated: the numbers of the splits "test", "val" and "training_set", of those that
                were evaluated.
        """
        now = datetime.datetime.now().strftime("%H:%M:%S")
        text = f"{now}  epoch {epoch:>{len(str(num_epochs))}}/{num_epochs}"
        text += "" if loss is None else f"  train loss {loss:.3f}"
        if fitted := evaluated.get("training_set"):
            text += f"  training accuracy {percent(fitted['accuracy'])} %"
        if val := evaluated.get("val"):
            # Validation images held out of a long-tailed set are long-tailed, too.
            text += f"  validation, balanced {percent(val.get('balanced_accuracy'))} %"
        if test := evaluated.get("test"):
            text += f"  test accuracy {percent(test['accuracy'])} %"
        if rarest := (test or val or {}).get("group_accuracy"):
            text += f"  rarest fifth {percent(rarest[0])} %"
        self.note(text)

    def table(
        self,
        title: str,
        test: Mapping[str, Any],
        class_names: Sequence[str],
        *,
        shown: str = "test",
        val: Mapping[str, Any] | None = None,
        fitted: Mapping[str, Any] | None = None,
        intervals: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Prints the numbers of the last evaluation.

        Args:
            title: above them.
            test: the numbers of the run.
            class_names: K names.
            shown: the split that they are of, "test", or "val" without a test set.
            val: those of validation images beside a test set; None = there are none.
            fitted: those of the training images; None = they were not evaluated.
            intervals: by split and name, the ends of the intervals of the accuracies; None = they
                are not shown.
        """
        # On a line of its own, because Rich wraps a title at the width of the table.
        self.note(title, style="italic")
        table = Table(show_header=bool(intervals))
        table.add_column("")
        table.add_column("", justify="right")
        if intervals:
            table.add_column("95 % interval", justify="right")
        of_split = intervals or {}

        def row(name: str, value: float | None, ends: Sequence[float] | None = None) -> None:
            cells = [f"{percent(value)} %"]
            if intervals:
                cells.append(f"{percent(ends[0])} to {percent(ends[1])}" if ends else "")
            table.add_row(name, *cells)

        spread = of_split.get(shown, {})
        row(f"{SPLITS[shown]} accuracy", test["accuracy"], spread.get("accuracy"))
        row("balanced accuracy", test.get("balanced_accuracy"), spread.get("balanced_accuracy"))
        for split, numbers in (("val", val), ("training_set", fitted)):
            if numbers:
                its = of_split.get(split, {})
                row(f"{SPLITS[split]} accuracy", numbers["accuracy"], its.get("accuracy"))
                balanced = numbers.get("balanced_accuracy")
                name = f"{SPLITS[split]}, balanced accuracy"
                row(name, balanced, its.get("balanced_accuracy"))
        if test.get("top5_accuracy") is not None:
            row("top-5 accuracy", test["top5_accuracy"], spread.get("top5_accuracy"))
        row("geometric mean of recalls", test["geometric_mean"])
        groups = test.get("group_accuracy") or []
        ends = spread.get("group_accuracy") or [None] * len(groups)
        for i, share in enumerate(groups):
            name = {0: " (rarest classes)", 4: " (most frequent)"}.get(i, "")
            row(f"group {i + 1}{name}", share, ends[i])
        for name, legend in (("many", "> 100"), ("medium", "20 .. 100"), ("few", "< 20")):
            share = test.get(f"{name}_accuracy")
            if share is not None:
                row(f"{name} ({legend} images)", share, spread.get(f"{name}_accuracy"))
        nll = test.get("nll")
        table.add_row("negative log-likelihood", "-" if nll is None else f"{nll:.3f} nats")
        row("calibration error (ECE)", test.get("ece"))
        shares = test["per_class_accuracy"]
        if len(class_names) <= 12:
            table.add_section()
            ends = spread.get("per_class_accuracy") or [None] * len(shares)
            for name, share, each in zip(class_names, shares, ends, strict=True):
                if share is None:
                    table.add_row(harmless(name), "no image")
                else:
                    row(harmless(name), share, each)
        else:
            missed, there = sum(share == 0 for share in shares), sum(s is not None for s in shares)
            table.add_row("classes never recognised", f"{missed:,} of {there:,}")
            if there < len(shares):
                table.add_row("classes with no image", f"{len(shares) - there:,}")
        self._console.print(table)


def phases_line(phases: Sequence[tuple[int, Sequence[str]]], steps: int) -> str:
    """Describes phases in words: "erm from epoch 0 (step 0), open from epoch 160 (step 15,520)".

    Args:
        phases: start epoch and methods of each.
        steps: per epoch.
    """
    return ", ".join(
        f"{' + '.join(methods)} from epoch {start} (step {start * steps:,})"
        for start, methods in phases
    )
