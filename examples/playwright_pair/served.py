"""The pages of `web` in Playwright's own MCP server: what a pair has learned on recorded pages, it does here
by the tools of the industry.

    npm install -g @playwright/mcp
    pip install "forethought[web,mcp]"
    forethought eval RUN --task examples/playwright_pair/recipe.toml --json

A page is opened with `browser_navigate`, read with `browser_snapshot` (Playwright's accessible tree, in the
pair's words), and acted on with `browser_click`, `browser_type`, `browser_select_option` and `browser_hover`:
`target` is the id that the grounder chose, `element` says it in words. The page judges, by
`browser_evaluate`, which only this file calls. There is no oracle here: only e2e is measured.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import random
import shlex
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from forethought.core.types import Outcome, Task
from forethought.envs.base import Environment, Observation
from forethought.envs.web import aria, miniwob
from forethought.interface.actions import PLAYWRIGHT, Action
from forethought.interface.elements import describe
from forethought.interface.result import Refusal
from forethought.tasks.web.demonstrations import Page, Shown, value_of
from forethought.tasks.web.taskset import DRAWS, Drawn, Web
from forethought.tasks.web.words import Full

BEGIN = """() => { Math.seedrandom('SEED'); core.EPISODE_MAX_TIME = 1e8; core.startEpisodeReal();
  for (const id of SKIP) document.getElementById(id)?.setAttribute('aria-hidden', 'true');
  const u = core.getUtterance(); return typeof u === 'string' ? u : u.utterance; }"""
OVER = "() => [WOB_DONE_GLOBAL, WOB_RAW_REWARD_GLOBAL]"
OPS = {"type": "fill"}  # how the dialect calls what the pair calls otherwise
FENCE = "```"


class Server:
    """Playwright's MCP server, as a process, for one page at a time."""

    def __init__(self, command: str):
        words = shlex.split(command)
        self.where = StdioServerParameters(command=words[0], args=words[1:])
        self.lock, self.over = asyncio.Lock(), asyncio.Event()
        self.session: ClientSession | None = None
        self.task: asyncio.Task | None = None

    async def _keep(self, ready: asyncio.Future) -> None:
        """The process, from its first call to `close`: who opens it must close it."""
        try:
            async with stdio_client(self.where) as streams, ClientSession(*streams) as session:
                await session.initialize()
                ready.set_result(session)
                await self.over.wait()
        except Exception as error:
            if not ready.done():
                ready.set_exception(error)

    async def call(self, name: str, arguments: dict[str, Any]) -> tuple[str, bool]:
        """What the tool says, and whether it failed."""
        if self.session is None:
            ready = asyncio.get_running_loop().create_future()
            self.task = asyncio.create_task(self._keep(ready))
            self.session = await ready
        result = await self.session.call_tool(name, arguments)
        text = "\n".join(part.text for part in result.content if part.type == "text")
        failed = getattr(result, "is_error", None)  # mcp 2; before it had the name of the protocol
        return text, bool(result.isError if failed is None else failed)

    async def value(self, function: str) -> Any:
        """Of a script in the page. It is not the model's."""
        text, failed = await self.call("browser_evaluate", {"function": function})
        if failed:
            raise RuntimeError(text[:300])
        return json.loads(text.split("### Result\n", 1)[1].split("\n###", 1)[0])

    async def lines(self) -> tuple[Any, ...]:
        """The page as Playwright shows it."""
        text, failed = await self.call("browser_snapshot", {})
        if failed or FENCE not in text:
            raise RuntimeError(text[:300])
        return aria.lines(text.split(FENCE + "yaml\n", 1)[1].split("\n" + FENCE, 1)[0])

    async def open(self, url: str, seed: int) -> str:
        """Begin an episode; what it asks for."""
        await self.call("browser_navigate", {"url": url})
        script = BEGIN.replace("SEED", str(seed)).replace("SKIP", json.dumps(miniwob.SKIP))
        asked = " ".join(str(await self.value(script)).split())
        await asyncio.sleep(0.1)
        return asked

    async def close(self) -> None:
        """The process."""
        self.over.set()
        if self.task is not None:
            await self.task


class Served(Web):
    """`web` whose pages Playwright's MCP server shows. `server`: its command; `episodes`: pages that are
    measured. A plan is right where its words mean something on the first page: there is no oracle to compare
    it with."""

    has_plans = False

    def __init__(
        self, server: str, tasks: Any = "web-12", attempts: int = 4, episodes: int = 48, levels: Any = ()
    ):
        super().__init__(levels, tasks=tasks, pages="recorded", attempts=attempts)
        self.notes = []
        self.levels, self.open_episodes = (1,), 1  # the server has one page at a time
        self.server, self.served = Server(server), _serve(miniwob.folder().parent)
        self.seeds, self.episodes = itertools.count(1), episodes
        self.drawn_once: dict[str, list[Task]] = {}

    def family(self, rng: random.Random, levels: list[int], split: str) -> list[Task]:
        """A page each, of the tasks in turn, with seeds on which nothing was trained. Its prompt is what the
        server shows of it."""
        tasks = []
        for _ in levels:
            number = next(self.seeds) if split == "eval" else 0
            task = self.tasks[number % len(self.tasks)]
            shown = self._bridge.run(self._shown(task, number))
            state = Drawn(shown, split, f"{task}/{number}/{rng.randrange(DRAWS)}", self._words)
            prompt = state.begin()[1]
            tasks.append(
                Task(id=state.words, taskset=self.name, level=1, context="", prompt=prompt, state=state)
            )
        return tasks

    def pool(self, level: int, split: str) -> list[Task]:
        """The pages on which all are measured, in place of the recorded ones."""
        if split not in self.drawn_once:
            count = self.episodes if split == "eval" else 1
            self.drawn_once[split] = self.family(random.Random(0), [1] * count, split)
        return self.drawn_once[split]

    def longest(self, n: int) -> list[Task]:
        """Of these."""
        return self.pool(1, "eval")[:n]

    async def _shown(self, task: str, seed: int) -> Shown:
        async with self.server.lock:
            asked = await self.server.open(self.address(task), seed)
            lines = await self.server.lines()
        return Shown(task=task, seed=seed, utterance=asked, pages=(Page(lines, (), ()),))

    def address(self, task: str) -> str:
        """Of the page, from a server of this process."""
        return f"http://127.0.0.1:{self.served.server_address[1]}/miniwob/{task}.html"

    def environment(self, task: Task, noise: bool) -> Environment:
        """The page again."""
        return ByTools(task.state, self)

    def close(self) -> None:
        """Both servers."""
        self._bridge.stop(self.server.close())
        self.served.shutdown()


class ByTools(Environment):
    """An episode, act by act, by the tools of the server."""

    def __init__(self, state: Any, taskset: Served):
        self.state, self.taskset, self.server = state, taskset, taskset.server
        self.taken, self.held = 0, False

    async def reset(self, task: Task, seed: int) -> Observation:  # type: ignore[override]
        """Nothing: the page is opened when the first act comes, since the server has one at a time."""
        return Observation()

    async def step(self, action: str) -> Outcome:  # type: ignore[override]
        """The acts, then the page as it is now."""
        return await self.taskset._bridge.there(self._step(action))

    async def close(self) -> None:  # type: ignore[override]
        """Let the next episode have the server."""
        if self.held:
            self.held = False
            await self.taskset._bridge.there(self._release())

    async def _release(self) -> None:
        self.server.lock.release()

    async def _begin(self) -> None:
        await self.server.lock.acquire()
        self.held = True
        shown = self.state.shown
        await self.server.open(self.taskset.address(shown.task), shown.seed)
        seen, recorded = await self.server.lines(), shown.pages[0].lines
        if [(x.role, x.name) for x in seen] != [(x.role, x.name) for x in recorded]:
            raise RuntimeError(f"{shown.task}, seed {shown.seed}: the page is another one now")
        self.speech, _ = self.state.begin()
        self.lines, self.ref = recorded, {a.ref: b.ref for a, b in zip(recorded, seen, strict=True)}

    async def _step(self, action: str) -> Outcome:
        if not self.taken:
            await self._begin()
        self.taken += 1
        read = self.speech.read_acts(action, self.taskset.stops["act"])
        if isinstance(read, Refusal):
            return await self._next(str(read))
        for number, act in enumerate(read.value, 1):
            line = next((x for x in self.lines if act.ref and x.ref == act.ref), None)
            said = Action(
                op=OPS.get(act.op, act.op),
                words=describe(line, self.lines) if line else "",
                id=self.ref.get(act.ref, ""),
                value=value_of(act, line, self.lines),
            )
            call = json.loads(PLAYWRIGHT.render(said))
            told, failed = await self.server.call(call["name"], call["arguments"])
            if failed:
                return await self._next(f"act {number}: {told.splitlines()[-1][:200]}")
            done, raw = await self.server.value(OVER)
            if done:
                return Outcome(
                    done=True, success=raw >= 1, reason="" if raw >= 1 else f"the page says {raw:g}"
                )
        return await self._next("the page asks for more")

    async def _next(self, reason: str) -> Outcome:
        if self.taken >= self.taskset.attempts:
            return Outcome(done=True, reason=f"no end within {self.taken} attempts; at last: {reason}")
        self.lines = await self.server.lines()
        self.ref = {x.ref: x.ref for x in self.lines}
        try:
            return Outcome(done=False, observation=self.speech.page(self.lines), reason=reason)
        except Full as full:
            return Outcome(done=True, reason=str(full))


def _serve(folder: Path) -> ThreadingHTTPServer:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=served.serve_forever, daemon=True).start()
    return served
