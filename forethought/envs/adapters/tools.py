"""Tools as an act grammar: their names, their arguments (JSON Schema), and how a turn calls one of them.

    {"name": "press", "arguments": {"button": "red"}}                       calls = "json", the default
    <tool_call>{"name": "press", "arguments": {"button": "red"}}</tool_call>          calls = "tags"

A turn is one call and nothing else. A tool is known or refused, its arguments fit its schema or are refused
at their character, and a refused call reaches nobody.

The seam between who plans and who acts: an argument that names a thing for the machine (`ids`) is for the
actor to fill in, since it changes from one observation to the next; the argument beside it that says the same
thing in words (`words`) is the planner's. A plan is then a list of steps, {"op", "target", "value"}, whose
target is words, and which `plan_grammar` reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from forethought.core.errors import RecipeError, UserError, unknown
from forethought.envs.adapters.base import Adapter
from forethought.envs.adapters.options import Options
from forethought.interface.actions import ToolCall
from forethought.interface.calls import Call
from forethought.interface.gui import GuiGrammar, Op
from forethought.interface.jsons import Value, read_value
from forethought.interface.result import Parsed, Refusal, Refused
from forethought.interface.schema import check, cover, fields
from forethought.recipe.options.environments import IDS, WORDS

FORMS = ("json", "tags")
OPEN, CLOSE = "<tool_call>", "</tool_call>"
EMPTY: Mapping[str, Any] = {"type": "object", "properties": {}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """What a library declares of one tool. `schema`: of its arguments, an object."""

    name: str
    description: str = ""
    schema: Mapping[str, Any] = field(default_factory=lambda: EMPTY)


def finish(name: str) -> Tool:
    """The tool that ends an episode, where the environment itself does not say when it is over."""
    answer = {"type": "string", "description": "what to say at the end"}
    return Tool(
        name=name,
        description="End the episode.",
        schema={"type": "object", "properties": {"answer": answer}},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Seam:
    """Names of arguments: `ids` are the actor's to fill in, `words` say the same to the planner."""

    ids: tuple[str, ...] = IDS
    words: tuple[str, ...] = WORDS


class ToolGrammar:
    """The calls of some tools. Options: `tools` (only these), `hide` (not these), `calls`, `seam`.
    RecipeError for a name in them that no tool has, for no tool at all, and for a schema that is not
    covered."""

    def __init__(self, tools: Sequence[Tool], options: Options, own: Sequence[Tool] = (), where: str = ""):
        only, hidden = options.names("tools"), options.names("hide")
        self.form = options.chosen("calls", "json", FORMS)
        self.seam = _seam(options)
        known = [tool.name for tool in tools]
        for option, names in (("tools", only), ("hide", hidden)):
            if wrong := [name for name in names if name not in known]:
                options.refuse(option, unknown("tool", wrong[0], known))
        shown = [tool for tool in tools if tool.name not in hidden and (not only or tool.name in only)]
        self.tools = {tool.name: tool for tool in (*shown, *own)}
        if not shown:
            raise RecipeError(where, f"no tool is left to call, of {', '.join(known) or 'none'}")
        for tool in self.tools.values():
            if len([one for one in (*shown, *own) if one.name == tool.name]) > 1:
                raise RecipeError(where, f"two tools are called {tool.name!r}")
            try:
                cover(tool.schema, tool.name)
            except UserError as error:
                raise RecipeError(where, str(error)) from None
        self.call = ToolCall(ids=self.seam.ids, said=self.seam.words)

    def read(self, text: str) -> Parsed | Refusal:
        """The `Call` of a turn: the tool's name and its arguments by name."""
        said, start = text.strip(), len(text) - len(text.lstrip()) + 1
        if self.form == "tags":
            if not said.startswith(OPEN) or not said.endswith(CLOSE) or len(said) < len(OPEN + CLOSE):
                return Refusal(position=start, reason=f"a turn is one {OPEN}...{CLOSE}", unit="character")
            said, start = said[len(OPEN) : -len(CLOSE)], start + len(OPEN)
        try:
            return Parsed(self._call(read_value(said, start)))
        except Refused as refused:
            return refused.refusal

    def _call(self, value: Value) -> Call:
        named = {"enum": list(self.tools)}
        properties = {"name": named, "arguments": {"type": "object"}}
        shape = {"type": "object", "properties": properties, "required": ["name"]}
        name = check(shape, value)["name"]
        schema = self.tools[name].schema
        given = value.inside.get("arguments") or Value({}, value.at, {})
        return Call(name, (), check(schema if schema.get("properties") else EMPTY, given))

    def write(self, call: Call) -> str:
        """The text of a call, which `read` reads back."""
        text = self._written(call)
        if self.read(text) != Parsed(call):
            raise ValueError(f"{text!r} is no call of these tools: {self.read(text)}")
        return text

    def _written(self, call: Call) -> str:
        said = json.dumps({"name": call.name, "arguments": dict(call.named)}, ensure_ascii=False)
        return f"{OPEN}{said}{CLOSE}" if self.form == "tags" else said

    def instruction(self) -> str:
        """The tools in words, and how one is called."""
        listed = "\n".join(_told(tool) for tool in self.tools.values())
        example = '{"name": ..., "arguments": {...}}'
        shape = f"{OPEN}{example}{CLOSE}" if self.form == "tags" else example
        return f"Each turn is one call of a tool, and nothing else: {shape}. The tools:\n{listed}\n"

    def marks(self) -> list[str]:
        """The pieces of which calls are made."""
        found = [OPEN, CLOSE] if self.form == "tags" else []
        for tool in self.tools.values():
            found.append('{"name": "' + tool.name + '", "arguments": {')
            for name, inner in tool.schema.get("properties", {}).items():
                found.append(f'"{name}": ')
                found += [f'"{one}"' for one in inner.get("enum", ()) if isinstance(one, str)]
        return list(dict.fromkeys([*found, "}}"]))

    def plan_grammar(self, most: int = 16) -> GuiGrammar:
        """Plans as steps: a tool that takes an id takes a target in words there, the rest is its value."""
        ops = []
        for tool in self.tools.values():
            names = tool.schema.get("properties", {})
            required = set(tool.schema.get("required", ()))
            ids = [name for name in names if name in self.seam.ids]
            rest = [name for name in names if name not in (*self.seam.ids, *self.seam.words)]
            target = "required" if required & set(ids) else "optional" if ids else "forbidden"
            value = "required" if required & set(rest) else "optional" if rest else "forbidden"
            ops.append(Op(name=tool.name, target=target, value=value))  # type: ignore[arg-type]
        return GuiGrammar(ops=tuple(ops), most=most)


def _told(tool: Tool) -> str:
    what = " ".join(tool.description.split())
    return f"- {tool.name}({fields(tool.schema)}){': ' + what if what else ''}"


def _seam(options: Options) -> Seam:
    table = Options(options.mapping("seam"), options.address("seam"))
    found = Seam(ids=table.names("ids", IDS), words=table.names("words", WORDS))
    table.need_known()
    return found


class OfTools(Adapter):
    """An adapter whose acts are calls of tools, one of which ends the episode."""

    grammar: ToolGrammar

    def speak(self, tools: Sequence[Tool], options: Options, where: str) -> None:
        """These tools, and the one that ends an episode, by the name that the options give it."""
        self._finish = options.text("finish", "finish")
        self.grammar = ToolGrammar(tools, options, [finish(self._finish)], where)

    def instruction(self) -> str:
        """The tools."""
        return self.grammar.instruction()

    def read(self, text: str) -> Parsed | Refusal:
        """One call of a tool."""
        return self.grammar.read(text)

    def marks(self) -> list[str]:
        """The pieces of calls."""
        return self.grammar.marks()

    def plans(self) -> GuiGrammar:
        """Steps that are calls of the tools, with words for ids."""
        return self.grammar.plan_grammar()

    def ends(self, call: Call) -> bool:
        """Whether a call ends the episode."""
        return call.name == self._finish
