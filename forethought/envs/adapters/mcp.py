"""Servers of the Model Context Protocol (packages `mcp` 1.24 to 2.x): `mcp:COMMAND` or `mcp:URL`.

    environment = "mcp:python server.py"        # a process, spoken to on its standard input; `python` is the
                                                # interpreter of the run
    environment = "mcp:http://127.0.0.1:8931/mcp"

Its tools are the act grammar (`tools.py`). A server knows no tasks and no rewards, so the recipe says which
of its tools play these parts; they are hidden from the model:

    reset       called first, with the task's seed and level where it takes them; its text is the observation
    score       called last; its text, or the first line of it that is a number, is what the episode earned
    finish      name of the tool that ends an episode ("finish"); it exists here alone
    after       called after the reset and each action, for what the model sees next (a snapshot of a page)

A tool that is not made for its part takes it with arguments, in whose texts {seed} and {level} are the
task's; it is still the model's, too, unless `hide` has it:

    reset = { tool = "browser_navigate", arguments = { url = "http://127.0.0.1:8000/?seed={seed}" } }
    score = { tool = "browser_evaluate", arguments = { function = "() => window.score" } }

With `reset`, a server is used again for the next episode; without, each episode has a fresh one.

What a tool says of its own failure (`isError`) is shown to the model and counted (part `tool_error`). A
server that dies, hangs (`limits.step_seconds`) or no longer has the tools with which the run began makes the
episode `failed`. Images go to the trace (part `images`); content that is neither text nor PNG nor JPEG is
named in brackets (part `unread`).
"""

from __future__ import annotations

import asyncio
import base64
import json
import shlex
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any

from forethought.core.errors import RecipeError, unknown
from forethought.envs.adapters.base import Answer, Shown
from forethought.envs.adapters.bridge import once
from forethought.envs.adapters.options import Options
from forethought.envs.adapters.packages import missing
from forethought.envs.adapters.tools import OfTools, Tool
from forethought.envs.values import MOST_IMAGES, kind_of
from forethought.interface.calls import Call

WHERE = "task.environment"
BEGIN = 30.0  # seconds that a server has to answer for the first time
MOST_PAGES = 100  # of a list of tools
LEAVE = 5.0  # seconds that a server has to end; the library gives it 2 before it is killed


class Mcp(OfTools):
    """An adapter of one server."""

    waits = True

    def __init__(self, rest: str, options: Options):
        self.address = rest
        self.where_from = _parameters(rest)
        self.name = "mcp"
        self.reset_tool, self._to_reset = options.call("reset")
        self.score_tool, self._to_score = options.call("score")
        self.after, self.judges = options.text("after"), bool(self.score_tool)
        self._idle: list[Server] = []
        self.tools = once(self._first())
        self._digest = _digest(self.tools)
        known = {tool.name: tool for tool in self.tools}
        parts = {
            "reset": (self.reset_tool, self._to_reset),
            "score": (self.score_tool, self._to_score),
            "after": (self.after, {}),
        }
        for option, (name, given) in parts.items():
            if name and name not in known:
                options.refuse(option, unknown("tool of this server", name, known))
            takes = known[name].schema.get("properties", {}) if name else {}
            for key in given:
                if key not in takes:
                    options.refuse(f"{option}.arguments", unknown(f"argument of {name}", key, takes))
        own = [name for name, given in parts.values() if not given]
        self.speak([tool for tool in self.tools if tool.name not in own], options, WHERE)
        self._reset_takes = (
            set(known[self.reset_tool].schema.get("properties", {})) if self.reset_tool else ()
        )

    async def _first(self) -> list[Tool]:
        server = Server(self)
        try:
            async with asyncio.timeout(BEGIN):
                await server.begin()
                return await server.list_tools()
        except TimeoutError:
            message = f"{self.address}: the server did not answer within {BEGIN:g} s"
            raise RecipeError(WHERE, message) from None
        except Exception as error:
            raise RecipeError(WHERE, f"{self.address}: no MCP server answers: {_innermost(error)}") from None
        finally:
            await server.end()

    def session(self) -> McpSession:
        """An episode on a server of its own, or on one that another episode has given back."""
        return McpSession(self)

    def to_reset(self, seed: int, level: int) -> dict[str, Any]:
        """Arguments of the tool that resets."""
        told = {k: v for k, v in (("seed", seed), ("level", level)) if k in self._reset_takes}
        return told | _filled(self._to_reset, seed, level)

    def to_score(self, seed: int, level: int) -> dict[str, Any]:
        """Arguments of the tool that scores."""
        return _filled(self._to_score, seed, level)

    async def take(self) -> Server:
        """A server that runs, and has the tools with which the run began."""
        while self._idle:
            server = self._idle.pop()
            if server.runs:
                return await self._checked(server)
            await server.end()
        return await self._checked(Server(self))

    async def _checked(self, server: Server) -> Server:
        try:
            if not server.runs:
                await server.begin()
            await server.need_same(self._digest)
        except BaseException:
            await server.end()
            raise
        return server

    async def give_back(self, server: Server) -> None:
        """For another episode, where it can be reset and is sound; else it ends."""
        if self.reset_tool and server.runs and not server.broken:
            self._idle.append(server)
        else:
            await server.end()

    async def ended(self) -> None:
        """Every server that waits for an episode ends."""
        idle, self._idle = self._idle, []
        await asyncio.gather(*(server.end() for server in idle))


class Server:
    """A connection to a server, owned by a task of its own: what the protocol's library opens in a task it
    must close in the same one."""

    def __init__(self, adapter: Mcp):
        self._adapter = adapter
        self._session: Any = None
        self._leave = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        self.broken = self.changed = False

    @property
    def runs(self) -> bool:
        """Whether the connection stands."""
        return self._keeper is not None and not self._keeper.done()

    async def begin(self) -> None:
        """Connect; raises what connecting raises."""
        self._ready = asyncio.get_running_loop().create_future()
        self._keeper = asyncio.create_task(self._keep(self._ready))
        await asyncio.shield(self._ready)

    async def _keep(self, ready: asyncio.Future[None]) -> None:
        try:
            async with AsyncExitStack() as stack:
                read, write = await _open(self._adapter.where_from, stack)
                session = _session_of(read, write, self._heard)
                self._session = await stack.enter_async_context(session)
                await self._session.initialize()
                ready.set_result(None)
                await self._leave.wait()
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error if isinstance(error, Exception) else ConnectionError(str(error)))
                ready.exception()  # who waits for it hears; where nobody does, nothing is said
            if isinstance(error, asyncio.CancelledError):
                raise

    async def _heard(self, message: Any) -> None:
        # mcp 1 wraps a notification; other messages and errors have no method
        notified = getattr(message, "root", message)
        if getattr(notified, "method", "") == "notifications/tools/list_changed":
            self.changed = True

    async def list_tools(self) -> list[Tool]:
        """Every tool, page by page."""
        found, cursor = [], None
        for _ in range(MOST_PAGES):
            page = await self._session.list_tools(**({"cursor": cursor} if cursor else {}))
            found += [_tool(tool) for tool in page.tools]
            cursor = _either(page, "next_cursor", "nextCursor")
            if not cursor:
                return found
        raise ConnectionError(f"a list of tools without an end ({MOST_PAGES} pages)")

    async def need_same(self, digest: str) -> None:
        """Raises ToolsChanged where the server's tools are others than when the run began."""
        if _digest(await self.list_tools()) != digest:
            self.broken = True
            raise ToolsChanged("the server has other tools than when the run began")
        self.changed = False

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """The result of a call. ConnectionError where the server is gone; whatever goes wrong, it is not used
        again."""
        if self.changed:
            await self.need_same(self._adapter._digest)
        try:
            return await self._unless_gone(self._session.call_tool(name, dict(arguments)))
        except BaseException:
            self.broken = True
            raise

    async def _unless_gone(self, call: Any) -> Any:
        assert self._keeper is not None
        asked = asyncio.ensure_future(call)
        try:
            await asyncio.wait({asked, self._keeper}, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                raise ConnectionError("the server has ended")
            return asked.result()
        finally:
            if not asked.done():
                asked.cancel()

    async def end(self) -> None:
        """Disconnect, and end the process that was started."""
        self._leave.set()
        if self._keeper is not None:
            with suppress(BaseException):
                await asyncio.wait_for(asyncio.shield(self._keeper), LEAVE)
            if not self._keeper.done():
                self._keeper.cancel()
                await asyncio.wait({self._keeper}, timeout=LEAVE)


class ToolsChanged(Exception):
    """A server offers other tools than those that the model knows."""


class McpSession:
    """One episode on a server."""

    def __init__(self, adapter: Mcp):
        self._adapter = adapter
        self._server: Server | None = None
        self._seed = self._level = 0

    async def reset(self, seed: int, level: int) -> Shown:
        """Take a server, and call the tool that resets."""
        self._server, self._seed, self._level = await self._adapter.take(), seed, level
        if not self._adapter.reset_tool:
            return Shown()
        asked = self._adapter.to_reset(seed, level)
        answer = _answer(await self._server.call(self._adapter.reset_tool, asked))
        if answer.reason:
            raise ConnectionError(f"{self._adapter.reset_tool} failed: {answer.reason}")
        answer = await self._and_after(answer)
        return Shown(text=answer.text, images=answer.images)

    async def step(self, call: Call) -> Answer:
        """The result of a tool."""
        if self._adapter.ends(call):
            return Answer(text=str(call.named.get("answer", "")), terminated=True, parts=_parts())
        assert self._server is not None
        answer = _answer(await self._server.call(call.name, call.named))
        return answer if answer.reason else await self._and_after(answer)

    async def _and_after(self, answer: Answer) -> Answer:
        assert self._server is not None
        if not self._adapter.after:
            return answer
        more = _answer(await self._server.call(self._adapter.after, {}))
        text = "\n".join(part for part in (answer.text, more.text) if part)
        return Answer(text=text, images=(*answer.images, *more.images)[:MOST_IMAGES], parts=answer.parts)

    async def score(self) -> float | None:
        """What the tool that scores says; None where there is none."""
        if not self._adapter.score_tool:
            return None
        assert self._server is not None
        asked = self._adapter.to_score(self._seed, self._level)
        said = _answer(await self._server.call(self._adapter.score_tool, asked))
        for line in (said.text, *said.text.splitlines()):
            with suppress(ValueError):
                return float(line)
        raise ConnectionError(f"{self._adapter.score_tool} gave {said.text[:60]!r}, not a number")

    async def close(self) -> None:
        """Give the server back, or end it."""
        if self._server is not None:
            server, self._server = self._server, None
            await self._adapter.give_back(server)


# ---- the protocol's library, of which two major versions are in use ----------------------------------------


def _library() -> Any:
    try:
        import mcp
    except ImportError as error:
        raise missing(WHERE, "mcp", "mcp", error) from None
    return mcp


def _parameters(rest: str) -> Any:
    """A URL as it is, a command as the library takes it. RecipeError for a command that cannot be read."""
    library = _library()
    if rest.startswith(("http://", "https://")):
        return rest
    try:
        command, *arguments = shlex.split(rest)
    except ValueError as error:
        raise RecipeError(WHERE, f"{rest!r} is no command: {error}") from None
    command = sys.executable if command == "python" else command  # the one in which this runs
    return library.StdioServerParameters(command=command, args=arguments)


async def _open(where: Any, stack: AsyncExitStack) -> tuple[Any, Any]:
    """The two streams to a server."""
    if isinstance(where, str):
        from mcp.client import streamable_http

        connect = getattr(streamable_http, "streamable_http_client", None)
        connect = connect or streamable_http.streamablehttp_client
        streams = await stack.enter_async_context(connect(where))
        return streams[0], streams[1]
    from mcp.client.stdio import stdio_client

    quiet = stack.enter_context(open("/dev/null", "w", encoding="utf-8"))
    read, write = await stack.enter_async_context(stdio_client(where, errlog=quiet))
    return read, write


def _session_of(read: Any, write: Any, heard: Any) -> Any:
    return _library().ClientSession(read, write, message_handler=heard)


def _either(value: Any, *names: str) -> Any:
    return next((getattr(value, name) for name in names if hasattr(value, name)), None)


def _tool(tool: Any) -> Tool:
    schema = _either(tool, "input_schema", "inputSchema")
    return Tool(name=tool.name, description=tool.description or "", schema=dict(schema or {}))


def _filled(given: Mapping[str, Any], seed: int, level: int) -> dict[str, Any]:
    """Arguments whose texts say the task's numbers."""
    fill = lambda text: text.replace("{seed}", str(seed)).replace("{level}", str(level))  # noqa: E731
    return {key: fill(value) if isinstance(value, str) else value for key, value in given.items()}


def _digest(tools: list[Tool]) -> str:
    told = [(tool.name, tool.description, dict(tool.schema)) for tool in tools]
    return json.dumps(sorted(told, key=lambda one: one[0]), sort_keys=True)


def _answer(result: Any) -> Answer:
    """What a result says: its texts in lines, its PNG and JPEG images, the kind of everything else."""
    texts: list[str] = []
    images: list[bytes] = []
    unread = 0
    for content in result.content:
        kind = getattr(content, "type", "?")
        if kind == "text":
            texts.append(content.text)
        elif kind == "image" and (image := _image(content)) and len(images) < MOST_IMAGES:
            images.append(image)
        else:
            texts.append(f"[{kind}]")
            unread += 1
    text = "\n".join(texts)
    failed = bool(_either(result, "is_error", "isError"))
    parts = _parts(tool_error=failed, images=len(images), unread=unread)
    return Answer(text=text, images=tuple(images), reason=text[:500] if failed else "", parts=parts)


def _parts(tool_error: float = 0, images: float = 0, unread: float = 0) -> dict[str, float]:
    return {"tool_error": float(tool_error), "images": float(images), "unread": float(unread)}


def _image(content: Any) -> bytes | None:
    with suppress(ValueError):
        image = base64.b64decode(content.data, validate=True)
        return image if kind_of(image) else None
    return None


def _innermost(error: BaseException) -> str:
    """What a group of errors is about."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
