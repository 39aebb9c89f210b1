"""The page of arms: every arm side by side, from the numbers that `forethought.arms.results` collects (what
arms.json holds)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forethought.report.page import render, write_page


def write(results: Mapping[str, Any], path: Path) -> Path:
    """Write the page to `path` and return it; links to runs are relative to it. `UserError`: the folder
    cannot be written."""
    sentences = [
        f"{claim['text']}: {claim['verdict']}. {claim['sentence']}."
        for group in results["groups"]
        for claim in group["claims"]
    ]
    return write_page(path, render("arms", results["name"], results, sentences))
