"""What an environment is: `reset`, `step`, `close`, in Gymnasium's shape. It speaks text and images, and
knows no tokens and no model."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any

from forethought.core.types import Outcome, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What an environment shows before the first action. A plain `str` stands for one without images."""

    text: str = ""
    images: tuple[bytes, ...] = ()  # each the bytes of a PNG or JPEG file
    info: Mapping[str, Any] = field(
        default_factory=dict
    )  # for the reader of traces; nothing computes with it


class Environment:
    """One episode: reset once, stepped until it is done, closed once, also after errors and on Ctrl-C.

    Deriving from this class is not needed. A class of your own needs `step`; a `reset` or `close` that it
    lacks is the one that stands here. All three may be `async def`; then all calls run on one event loop.
    What must be closed (a browser, a process, a connection) is opened in `reset`, not in the constructor:
    `reset`, `step` and `close` of an episode are called on one and the same thread.

    What any of them raises, an answer of another type and a call that takes longer than
    `limits.step_seconds` make the trajectory `failed`: it is counted, never rewarded with 0, and ends no run.
    Let the exception of a time limit through: no `except:` and no `except BaseException` around a wait.
    """

    def reset(self, task: Task, seed: int) -> Observation | str | None | Awaitable[Observation | str | None]:
        """Begin. None: the task's prompt already says everything. All luck of the episode is drawn from
        `seed`: the same seed and the same actions give the same episode."""
        return None

    def step(self, action: str) -> Outcome | Awaitable[Outcome]:
        """Answer to what the model wrote in its turn."""
        raise NotImplementedError

    def close(self) -> None | Awaitable[None]:
        """Give back what the episode holds."""
