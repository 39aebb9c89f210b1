"""The documentation: every page stands in the site's index once, and links have their targets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXTS = [*PAGES, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]


def links(text: str) -> list[str]:
    """Targets of a page's links that stay in the repository; code blocks are left out."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    found = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text))
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as Markdown's table of contents makes them."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M), re.M)
    plain = (re.sub(r"[^\w\s-]", "", title.replace("`", "")).strip().lower() for title in titles)
    return {re.sub(r"[-\s]+", "-", title) for title in plain}


def test_the_index_of_the_site_has_every_page_once():
    index = re.findall(r"^ *- ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M)
    assert sorted(index) == [page.name for page in PAGES]


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_links_between_pages_have_their_targets(page):
    text = page.read_text(encoding="utf-8")
    missing = []
    for link in links(text):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists():
            missing.append(link)
        elif anchor and anchor not in anchors(target.read_text(encoding="utf-8")):
            missing.append(link)
    assert missing == []


def test_a_page_of_the_site_links_only_to_pages_of_the_site():
    outside = [
        (page.name, link) for page in PAGES for link in links(page.read_text("utf-8")) if link[:2] == ".."
    ]
    assert outside == []
