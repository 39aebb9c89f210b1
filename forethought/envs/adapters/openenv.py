"""Servers of OpenEnv (package `openenv` 0.10): `openenv:http://127.0.0.1:8000`.

The server says in `/schema` what an action is; an act is that JSON object. Where `/schema` says that the
server offers tools (an action with a `tool_name`), the tools are the act grammar, as for MCP.

Options of the task table:
    field       the one field of the action that a turn is, as it stands: field = "message". Without, JSON
    level       name under which `reset` gets the task's level; absent: it does not
    template, observe, decimals    what the model reads of an observation, as for gym:
    finish      name of the tool that ends an episode, where the server offers tools ("finish")

An episode is a session of the server: as many run at once as episodes are open, that is, rollouts of a step.
Most servers allow one session; start them with `max_concurrent_envs` of at least the batch times the
rollouts. A refused connection, an error of the server and a lost session make the episode `failed`.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from forethought.core.errors import RecipeError, UserError
from forethought.envs.adapters.base import Adapter, Answer, Shown
from forethought.envs.adapters.bridge import once
from forethought.envs.adapters.options import Options
from forethought.envs.adapters.packages import missing
from forethought.envs.adapters.tell import Teller
from forethought.envs.adapters.tools import Tool, ToolGrammar, finish
from forethought.envs.values import need
from forethought.interface.calls import Call
from forethought.interface.gui import GuiGrammar
from forethought.interface.jsons import read_value
from forethought.interface.result import Parsed, Refusal, Refused
from forethought.interface.schema import check, cover, fields

WHERE = "task.environment"
SECONDS = 10.0  # that a server has to answer for the first time
OURS = ("metadata", "type")  # fields of an action that the library fills in
ITS_OWN = ("done", "reward", "metadata")  # fields of an observation that the model does not read


class OpenEnv(Adapter):
    """An adapter of one server."""

    waits = True
    name = "openenv"

    def __init__(self, rest: str, options: Options):
        self.url = rest.rstrip("/")
        self.client = _client()
        self._level, self.field = options.text("level"), options.text("field")
        self._finish = options.text("finish", "finish")
        self.teller = Teller(options, hide=ITS_OWN)
        schema = self._schema()
        self.tools: ToolGrammar | None = None
        if "tool_name" in schema.get("properties", {}):
            found = once(self._tools())
            self.tools = ToolGrammar(found, options, [finish(self._finish)], WHERE)
            return
        names = {k: v for k, v in schema.get("properties", {}).items() if k not in OURS}
        required = [name for name in schema.get("required", ()) if name in names]
        self.schema = {**schema, "type": "object", "properties": names, "required": required}
        try:
            cover(self.schema, "action")
        except UserError as error:
            raise RecipeError(WHERE, f"{self.url}: {error}") from None
        if self.field and self.field not in names:
            options.refuse("field", f"{self.field!r} is no field of an action, which has {', '.join(names)}")

    def _schema(self) -> Mapping[str, Any]:
        """What the server says an action is. RecipeError where nobody answers."""
        if not self.url.startswith(("http://", "https://")):
            raise RecipeError(WHERE, f"{self.url!r} is no address of a server, such as http://127.0.0.1:8000")
        try:
            with urllib.request.urlopen(f"{self.url}/schema", timeout=SECONDS) as answer:
                found = json.loads(answer.read())
        except (OSError, ValueError, urllib.error.URLError) as error:
            said = getattr(error, "reason", error)
            message = f"no OpenEnv server answers at {self.url}/schema ({type(error).__name__}: {said})"
            raise RecipeError(WHERE, message) from None
        action = found.get("action") if isinstance(found, dict) else None
        if not isinstance(action, dict):
            raise RecipeError(WHERE, f"{self.url}/schema says nothing of an action: no OpenEnv server")
        return action

    async def _tools(self) -> list[Tool]:
        client = self.client(base_url=self.url, connect_timeout_s=SECONDS, message_timeout_s=SECONDS)
        try:
            await client.connect()
            result = await client.step({"type": "list_tools"})
            listed = result.observation.get("tools", [])
            return [
                Tool(
                    name=tool["name"],
                    description=tool.get("description") or "",
                    schema=tool.get("input_schema") or tool.get("inputSchema") or {},
                )
                for tool in listed
            ]
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise RecipeError(WHERE, f"{self.url} lists no tools: {said}") from None
        finally:
            await client.close()

    def session(self) -> OpenEnvSession:
        """A session of the server, which `reset` opens."""
        return OpenEnvSession(self)

    def instruction(self) -> str:
        """What a turn is."""
        if self.tools is not None:
            return self.tools.instruction()
        if self.field:
            return ""
        shape = f"{{{fields(self.schema)}}}"
        return f"Answer each observation with one action, a JSON object and nothing else: {shape}."

    def read(self, text: str) -> Parsed | Refusal:
        """The action that the server gets."""
        if self.tools is not None:
            read = self.tools.read(text)
            return read if isinstance(read, Refusal) else Parsed(self._called(read.value))
        if self.field:
            return Parsed({self.field: text.strip()})
        try:
            return Parsed(check(self.schema, read_value(text)))
        except Refused as refused:
            return refused.refusal

    def plans(self) -> GuiGrammar | None:
        """Steps that are calls of the tools, where the server offers tools."""
        return None if self.tools is None else self.tools.plan_grammar()

    def _called(self, call: Call) -> dict[str, Any] | None:
        """None: the episode ends."""
        if call.name == self._finish:
            return None
        return {"type": "call_tool", "tool_name": call.name, "arguments": dict(call.named)}

    def marks(self) -> list[str]:
        """The pieces of actions."""
        if self.tools is not None:
            return self.tools.marks()
        if self.field:
            return []
        names = self.schema["properties"]
        listed = [
            f'"{one}"' for inner in names.values() for one in inner.get("enum", ()) if isinstance(one, str)
        ]
        return list(dict.fromkeys([*(f'"{name}": ' for name in names), *listed, "{", "}"]))

    def told(self, seed: int, level: int) -> dict[str, Any]:
        """Arguments of a reset."""
        return {"seed": seed} | ({self._level: level} if self._level else {})


class OpenEnvSession:
    """One episode in a session of its own."""

    def __init__(self, adapter: OpenEnv):
        self._adapter = adapter
        self._client: Any = None

    async def reset(self, seed: int, level: int) -> Shown:
        """Open a session and reset it."""
        # the recipe's own limits end a call that takes too long
        self._client = self._adapter.client(base_url=self._adapter.url, message_timeout_s=86400.0)
        await self._client.connect()
        result = await self._client.reset(**self._adapter.told(seed, level))
        return Shown(text=self._adapter.teller.tell(result.observation))

    async def step(self, action: dict[str, Any] | None) -> Answer:
        """One step of the server."""
        if action is None:
            return Answer(terminated=True)
        result = await self._client.step(action)
        need(isinstance(result.done, bool), result.done, "True or False", "done")
        seen = result.observation
        failed = seen.get("error") if isinstance(seen, Mapping) and self._adapter.tools is not None else None
        return Answer(
            text=self._adapter.teller.tell(seen),
            reward=0.0 if result.reward is None else result.reward,
            terminated=result.done,
            reason=str(failed)[:500] if failed else "",
        )

    async def close(self) -> None:
        """End the session."""
        if self._client is not None:
            await self._client.close()


def _client() -> Any:
    try:
        from openenv.core import GenericEnvClient
    except ImportError as error:
        raise missing(WHERE, "openenv", "openenv", error) from None
    return GenericEnvClient
