"""Commands of forethought in forked children: started in milliseconds, because the parent has loaded torch;
killed at will.

The parent computes nothing: no thread pool is alive when it forks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

LIMIT = 60.0  # seconds after which a command counts as hanging: a hundred times what these runs take


@dataclass(frozen=True, slots=True)
class Ended:
    """`code`: the exit code, -n where signal n ended it, None where it was killed here because the time was
    over."""

    code: int | None
    text: str  # stdout and stderr as they came
    seconds: float

    @property
    def last(self) -> str:
        lines = [line for line in self.text.splitlines() if line.strip()]
        return lines[-1][:400] if lines else ""


def load() -> None:
    """What a child needs, in this process, so that every child has it. Threads: one, for every library."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TOKENIZERS_PARALLELISM"):
        os.environ.setdefault(name, "false" if name.startswith("TOKEN") else "1")
    with contextlib.suppress(ImportError):  # an extra
        import torch.utils.tensorboard  # noqa: F401
    import peft  # noqa: F401

    import forethought.engines.torch.engine  # noqa: F401
    import forethought.engines.torch.models.small  # noqa: F401
    from forethought import cli, display, look, report  # noqa: F401
    from forethought.runs import run  # noqa: F401

    with contextlib.suppress(ImportError):
        import forethought.engines.torch.forest.lora  # noqa: F401
        import forethought.engines.torch.forest.native.library  # noqa: F401


class Child:
    """`work` in a forked process whose stdout and stderr go to `log`; it is the leader of a session of its
    own."""

    def __init__(self, work: Callable[[], int], log: Path, before: Callable[[], None] | None = None):
        self.log, self.began, self.code = log, time.monotonic(), None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._be(work, before)

    def _be(self, work: Callable[[], int], before: Callable[[], None] | None) -> None:
        code = 70
        try:
            os.setsid()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            os.dup2(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), 1)
            os.dup2(1, 2)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.stdin = open(0, closefd=False, encoding="utf-8")
            sys.stdout = open(1, "w", closefd=False, encoding="utf-8", errors="surrogateescape")
            sys.stderr = open(2, "w", closefd=False, encoding="utf-8", errors="backslashreplace", buffering=1)
            if before is not None:
                before()
            # from here on it is the command that is interrupted
            signal.signal(signal.SIGINT, signal.default_int_handler)
            code = work()
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 2
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
            with contextlib.suppress(BaseException):
                sys.stderr.flush()
            os._exit(code & 255)

    def over(self) -> bool:
        """Whether it has ended by now."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def send(self, number: int) -> None:
        if not self.over():
            os.kill(self.pid, number)

    def end(self, limit: float = LIMIT) -> Ended:
        """Wait for the end; one that does not come is a hang: code None."""
        deadline, pause, hung = self.began + limit, 0.0005, False
        while not self.over():
            if time.monotonic() > deadline:
                hung = True
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                break
            time.sleep(pause)
            pause = min(pause * 1.3, 0.01)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)  # what it left behind: a worker that compares answers
        text = self.log.read_text(encoding="utf-8", errors="surrogateescape") if self.log.exists() else ""
        return Ended(None if hung else self.code, text, time.monotonic() - self.began)


def command(argv: Sequence[object], log: Path, before: Callable[[], None] | None = None) -> Child:
    """`forethought ARGV`, as the command line runs it."""

    def work() -> int:
        from forethought import cli

        return cli.main([str(a) for a in argv])

    return Child(work, log, before)


def run(
    argv: Sequence[object], folder: Path, limit: float = LIMIT, before: Callable[[], None] | None = None
) -> Ended:
    """The same, to its end. Its output is kept in `folder`, one file a command."""
    folder.mkdir(parents=True, exist_ok=True)
    return command(argv, folder / f"{sum(1 for _ in folder.iterdir()):03d}.log", before).end(limit)


def untyped(ended: Ended, fine: Sequence[int] = (0, 2)) -> str:
    """Why this is no end that a user may be given, or "": a hang, a signal, a traceback, our own "this is a
    bug", another exit code."""
    if ended.code is None:
        return f"hangs: killed after {ended.seconds:.0f} s"
    if ended.code not in fine:
        name = f"signal {-ended.code}" if ended.code < 0 else f"exit {ended.code}"
        return f"{name}: {ended.last}"
    for word in ("This is a bug", "Traceback (most recent call last)"):
        if word in ended.text:
            return f"exit {ended.code}, and says {word!r}: {ended.last}"
    return ""
