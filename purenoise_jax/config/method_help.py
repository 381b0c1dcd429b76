"""A line and the sources of every method for `--help`, from the docstrings of its file."""

import inspect
import re
import sys
from collections.abc import Callable
from typing import Any

from purenoise_jax.methods import METHODS, as_method

# "Zada, Benou and Irani 2022", "Cao et al. 2019".
CITATION = re.compile(
    r"[A-Z][\w-]+(?:, [A-Z][\w-]+)*(?: and [A-Z][\w-]+| et al\.)? (?:19|20)\d\d", re.UNICODE
)


def method_lines() -> list[str]:
    """Returns two lines for each method: its name with a summary, and its sources."""
    width = max(map(len, METHODS))
    lines = []
    for name, entry in METHODS.items():
        apply = as_method(entry).apply
        summary = (inspect.getdoc(apply) or "").partition("\n")[0]
        lines += [f"  {name:<{width}}  {summary}", f"  {'':<{width}}  {sources_of(apply)}"]
    return lines


def sources_of(apply: Callable[..., Any]) -> str:
    """Returns the publications that the module of a method names as its source, joined by ";".

    A method of a user's own config may have none.
    """
    module = sys.modules.get(apply.__module__)
    text = inspect.cleandoc((module and module.__doc__) or "")
    source = text.partition("Source:")[2].partition("\n\n")[0]
    return "; ".join(dict.fromkeys(CITATION.findall(" ".join(source.split())))) or "no source named"
