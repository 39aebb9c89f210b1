"""The glossary names each term once, and the module where it lives."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"\| (?P<term>[^|]+) \| (?P<meaning>[^|]+) \| `(?P<module>[a-z0-9_/]+)` \|")


def rows(text: str) -> list[tuple[str, str, str]]:
    """(term, meaning, module) of each row. ValueError for a row of another form."""
    found = []
    for line in text.splitlines():
        if not line.startswith("|") or line.startswith(("| term |", "|---")):
            continue
        if (match := ROW.fullmatch(line)) is None:
            raise ValueError(f"not `| term | meaning | module |`: {line}")
        found.append((match["term"], match["meaning"], match["module"]))
    return found


def missing(found: list[tuple[str, str, str]], root: Path) -> list[str]:
    """Terms whose module is not there."""
    return [
        term
        for term, _, module in found
        if not (root / f"{module}.py").is_file() and not (root / module / "__init__.py").is_file()
    ]


GLOSSARY = rows((ROOT / "docs/glossary.md").read_text("utf-8"))


def test_every_term_has_a_module_that_exists():
    assert missing(GLOSSARY, ROOT / "forethought") == []


def test_every_term_stands_once_and_says_one_or_two_sentences():
    terms = [term.casefold() for term, _, _ in GLOSSARY]
    assert len(terms) > 70 and sorted(set(terms)) == sorted(terms)
    for term, meaning, _ in GLOSSARY:
        assert meaning[0].isupper() or meaning[0] == "`", term
        assert meaning.endswith(".") and 1 <= len(re.findall(r"[.:?](?: |$)", meaning)) <= 4, term


def test_a_module_that_is_gone_and_a_row_without_one_are_found(tmp_path):
    assert missing(rows("| tree | All rollouts. | `core/trees` |"), tmp_path) == ["tree"]
    with pytest.raises(ValueError, match="tree"):
        rows("| tree | All rollouts. |")
