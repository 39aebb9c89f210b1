"""The model and the tokenizer that speak a role in a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from forethought.core.errors import UserError, unknown
from forethought.engines.saved import saved
from forethought.exports.checkpoint import find

if TYPE_CHECKING:
    from forethought.engines.torch.export.folders import Opened


def open_role(run: Path, role: str, step: int | None = None, merge: bool = False) -> Opened:
    """Of the newest checkpoint, or of that of `step`. UserError for a role or a step that is not there,
    CheckpointError for a damaged one."""
    found = find(run, step)
    if role not in found.policies:
        raise UserError(unknown("role", role, found.policies))
    from forethought.engines.torch.export.folders import opened

    one = saved(found.folder / "engine", found.policies[role])
    return opened(one, merge, found.recipe.model.trust_remote_code)
