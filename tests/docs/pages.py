"""README.md and the pages under docs/: their commands, code and links."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = ("bash", "mkdocs", "pip", "purenoise-jax", "pytest", "python", "sbatch", "tensorboard")
# Words in capitals stand for what a reader fills in.
PLACEHOLDERS = {
    "DIR": "runs/digits",
    "FIELD": "batch_size",
    "FIGURE": "curves",
    "FILE": "configs/digits_lt.py",
    "HOST:PORT": "localhost:1234",
    "I": "0",
    "N": "2",
    "OUT": "out",
    "RUN": "runs/digits",
    "VALUE": "16",
}


def name(page):
    return str(page.relative_to(ROOT))


def blocks(page, language):
    """The fenced blocks in a language."""
    return [body for kind, body in FENCE.findall(page.read_text()) if kind == language]


def inline_code(page):
    """All `code` of the running text and of tables, on one line each."""
    return [" ".join(c.split()) for c in re.findall(r"`([^`]+)`", FENCE.sub("", page.read_text()))]


def commands(page):
    """The words of every command, without those that stand for something else."""
    lines = [
        line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()
    ]
    lines += [code for code in inline_code(page) if code.split()[0] in PROGRAMS and " " in code]
    for line in lines:
        for command in line.split(" && "):
            yield [_filled(word) for word in shlex.split(command)]


def _filled(word):
    head, equals, value = word.rpartition("=")
    return head + equals + PLACEHOLDERS.get(value, value)


def table(page, header):
    """The rows of the table with such a first cell in its header, as lists of cells."""
    body = page.read_text().partition(f"\n| {header} |")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in body.splitlines()[2:]]


def names_of(cell):
    return re.findall(r"`(\w+)`", cell)
