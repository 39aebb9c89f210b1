"""Files of a name on the hub, on a machine without a network: said at once, or taken from what was fetched
before."""

from __future__ import annotations

from huggingface_hub import constants, try_to_load_from_cache

from forethought.core.errors import UserError
from forethought.core.hub import WAYS, unreachable


def need(name: str, file: str) -> None:
    """UserError where the hub must be asked for the model `name` and cannot be. Of one that was fetched
    before the hub is not asked any more in this process, where it cannot be; `file`: what every model has."""
    if constants.HF_HUB_OFFLINE or not (why := unreachable()):
        return
    if not isinstance(try_to_load_from_cache(name, file), str):
        raise UserError(
            f"{name} is no folder here and was not fetched before, and the hub cannot be asked: {why}; {WAYS}"
        )
    constants.HF_HUB_OFFLINE = True
