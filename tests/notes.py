"""A display that remembers what it was told."""

from purenoise_jax.runtime.console import Display


class Notes(Display):
    """Shows nothing.

    Attributes:
      lines: all of them.
      warnings: those that should not be missed.
      done: the steps it was told of last.
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
