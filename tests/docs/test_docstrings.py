"""Docstrings: one layout, titles that state, and references that lead somewhere."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(
    path
    for folder in ("purenoise_jax", "launch", "benchmarks", "configs", "tests")
    for path in (ROOT / folder).rglob("*.py")
)
SECTION = re.compile(r"^( *)(Args|Returns|Raises|Attributes|Yields):$", re.M)
# A title is a noun phrase or a verb in the third person.
QUESTION = re.compile(r"(What|How|Whether|Of|Where|Which|Who)\b")
FILE_NAME = re.compile(r"`([a-z_/]+\.py)`")


def docstrings(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node)
            if text is not None:
                yield getattr(node, "name", path.name), text


@pytest.mark.parametrize("folder", ["purenoise_jax", "launch", "benchmarks", "configs", "tests"])
def test_docstrings_are_laid_out_alike(folder):
    for path in FILES:
        if path.relative_to(ROOT).parts[0] != folder:
            continue
        for name, text in docstrings(path):
            where = f"{path.relative_to(ROOT)}, {name}"
            assert not QUESTION.match(text), f"{where}: {text.splitlines()[0]}"
            for section in SECTION.finditer(text):
                first = text[section.end() + 1 :].split("\n", 1)[0]
                indent = len(first) - len(first.lstrip())
                assert indent - len(section[1]) == 4, f"{where}: {first}"


def test_files_named_in_docstrings_and_comments_exist():
    names = {path.name for path in FILES}
    for path in FILES:
        for name in FILE_NAME.findall(path.read_text()):
            assert name.rpartition("/")[2] in names, f"{path.relative_to(ROOT)}: {name}"
