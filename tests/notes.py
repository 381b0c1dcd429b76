"""A display that records its messages."""

from purenoise_jax.runtime.console import Display


class Notes(Display):
    """Shows nothing.

    Attributes:
        lines: all notes.
        warnings: all warnings.
        done: number of steps at the last call of `advance`.
    """

    def __init__(self):
        super().__init__(active=False)
        self.lines, self.warnings, self.done = [], [], 0

    def note(self, text, style=""):
        self.lines.append(text)

    def warn(self, text):
        self.warnings.append(text)
        super().warn(text)

    def advance(self, done, images_per_second):
        self.done = done
