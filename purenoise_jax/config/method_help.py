"""A line and the sources of every method for `--help`: its entry, or the docstrings of its file."""

import inspect
import re
import sys

from purenoise_jax.methods import METHODS, Method, as_method

# "Zada, Benou and Irani 2022", "Cao et al. 2019".
CITATION = re.compile(
    r"[A-Z][\w-]+(?:, [A-Z][\w-]+)*(?: and [A-Z][\w-]+| et al\.)? (?:19|20)\d\d", re.UNICODE
)


def method_lines() -> list[str]:
    """Returns two lines for each method: its name with a summary, and its sources.

    The summary says of a method whose phase usually begins later in the training that it is
    deferred, because another one may do the same from the start.
    """
    width = max(map(len, METHODS))
    lines = []
    for name, entry in METHODS.items():
        method = as_method(entry)
        summary = (inspect.getdoc(method.apply) or "").partition("\n")[0]
        if 0 < method.phase.start < 1:
            summary += " Deferred."
        lines += [f"  {name:<{width}}  {summary}", f"  {'':<{width}}  {sources_of(method)}"]
    return lines


def sources_of(method: Method) -> str:
    """Returns the publications of a method, joined by ";".

    They are those of its entry, otherwise those that its module names as its source. A method of a
    user's own config may have none.
    """
    if method.source:
        return method.source
    module = sys.modules.get(method.apply.__module__)
    text = inspect.cleandoc((module and module.__doc__) or "")
    source = text.partition("Source:")[2].partition("\n\n")[0]
    return "; ".join(dict.fromkeys(CITATION.findall(" ".join(source.split())))) or "no source named"
