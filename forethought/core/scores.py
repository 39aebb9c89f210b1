"""Whether an episode succeeded, as its reward parts say: `success` where its outcome is partial credit, else
`outcome`."""

from __future__ import annotations

from collections.abc import Mapping


def success_of(parts: Mapping[str, float]) -> float | None:
    """1 or 0 (a mean of them where several stand behind one turn); None where nobody judged it."""
    return parts.get("success", parts.get("outcome"))
