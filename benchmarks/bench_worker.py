"""The sides of a comparison, each in a process of its own, and what they say to whoever asks them."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence


class Line:
    """A worker's end of the conversation: one JSON line asks, one answers. What libraries print goes to
    stderr."""

    def __init__(self):
        self.out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def __iter__(self) -> Iterator[dict]:
        for line in sys.stdin:
            yield json.loads(line)

    def say(self, **facts) -> None:
        print(json.dumps(facts), file=self.out, flush=True)


class Process:
    """A side in its own process, which answers a line with a line. Memory settings as forethought makes them
    for itself."""

    def __init__(self, command: Sequence[str], threads: int, **environment: str):
        env = (
            os.environ
            | {
                "HF_HUB_OFFLINE": "1",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "TRANSFORMERS_VERBOSITY": "error",
                "TOKENIZERS_PARALLELISM": "false",
                "OMP_NUM_THREADS": str(threads),
                "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
                "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1),
            }
            | environment
        )
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [sys.executable, *command],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=env,
        )

    def answer(self, line: str) -> dict:
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # its last words are in `errors`
        answer = self.process.stdout.readline()
        if not answer:
            self.process.wait(60)
            self.errors.seek(0)
            sys.exit(f"a worker died ({' '.join(self.process.args)}):\n{self.errors.read()[-3000:]}")
        return json.loads(answer)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()
        self.errors.close()


class Worker(Process):
    """`script --worker OPTIONS`."""

    def __init__(self, script: str, options: dict):
        super().__init__([script, "--worker", json.dumps(options)], options["threads"])

    def ask(self, **command) -> dict:
        return self.answer(json.dumps(command))


class Near:
    """A side in a thread of this process, for --quick: there the code is tried, not the clock, and no process
    has to start."""

    def __init__(self, serve: Callable[[dict, Line], None], options: dict):
        self.asked, self.answers = queue.SimpleQueue(), queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, args=(serve, options), daemon=True)
        self.thread.start()

    def _run(self, serve, options) -> None:
        try:
            serve(options, self)
        except BaseException as error:  # also a SystemExit: whoever asks is told
            self.answers.put(error)

    def __iter__(self) -> Iterator[dict]:
        while (command := self.asked.get()) is not None:
            yield json.loads(command)

    def say(self, **facts) -> None:
        self.answers.put(json.loads(json.dumps(facts)))

    def ask(self, **command) -> dict:
        self.asked.put(json.dumps(command))
        answer = self.answers.get()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def close(self) -> None:
        self.asked.put(None)
        self.thread.join(60)


def worker(serve: Callable, script: str, args, **side) -> Worker | Near:
    """A side that waits to be asked. `serve(options, line)` is what its process runs."""
    side |= {"threads": args.threads, "device": args.device}
    return Near(serve, side) if args.quick else Worker(script, side)
