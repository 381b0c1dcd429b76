"""Links within README.md and docs/ lead somewhere."""

import re

import pytest

import purenoise_jax
from tests.docs.pages import DOCS, FENCE, PAGES, README, name

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page):
    """The anchors of its headings, as GitHub and mkdocs make them."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_its_links_lead_to_files_and_headings(page):
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_links_to_every_page():
    linked = {(README.parent / link).resolve() for link in LINK.findall(README.read_text())}
    pages = {page for page in PAGES if page.parent == DOCS} - {DOCS / "index.md"}
    assert pages <= linked


def test_the_public_names_are_described():
    named = re.findall(r"\[`(\w+)`\]\[(purenoise_jax[\w.]+)\]", (DOCS / "api/index.md").read_text())
    assert sorted(short for short, _ in named) == sorted(purenoise_jax.__all__)
    described = set()
    for page in (DOCS / "api").glob("*.md"):
        described |= set(re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE))
    for short, path in named:
        module, _, last = path.rpartition(".")
        assert last == short and getattr(purenoise_jax, short).__module__ == module
        assert {path, module} & described, path
