"""Which roles speak in a run: what a workflow declares of itself.

Nothing else in the library knows the name of a role: ask `roles_of`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from forethought.core.errors import RecipeError, unknown
from forethought.core.named import find, is_known
from forethought.core.places import defined_at, described, placed
from forethought.recipe.schema import Recipe

Run = TypeVar("Run", bound=Callable[..., Any])
PLANLESS = ("text", "environment")  # tasksets whose option PLAN says whether a plan comes first
PLAN = "plan"  # that option, and the role that it is about
DECLARED = "speaks"  # attribute of a workflow's function


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaks:
    """What a recipe is checked against. ValueError for what no workflow can declare."""

    roles: tuple[str, ...]  # in the order in which they first speak; the last one acts
    continues: Mapping[str, str] = field(default_factory=dict)
    # role -> the role on whose branch it speaks where one of it is sampled; a role that is not here begins a
    # branch of its own. What lies on one branch is compared together with its peers
    options: Mapping[str, int | float | bool | str] = field(default_factory=dict)  # name -> default
    each_turn: tuple[str, ...] = ()  # who may speak before every answer of the environment; (): the last role
    # role -> the option that says how often it speaks at most on one path, whatever the environment answers
    at_most: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()  # options that name a file, which must be there
    asks: str = ""  # the face of `tasks.base` without which a taskset cannot be played
    demonstration: Callable[..., Any] | None = None  # (taskset, task) -> turns that imitation shows
    oracle: Callable[..., Any] | None = (
        None  # (taskset, task, role) -> what the oracle says in a role, in order
    )

    def __post_init__(self) -> None:
        roles = self.roles
        if not roles or any(not isinstance(role, str) for role in roles) or len(set(roles)) < len(roles):
            raise ValueError(
                f'a workflow speaks some roles, each once, such as ("think", "act"); found {roles!r}'
            )
        for name, table in (
            ("continues", {*self.continues, *self.continues.values()}),
            ("each_turn", self.each_turn),
            ("at_most", self.at_most),
        ):
            if strange := [role for role in table if role not in roles]:
                raise ValueError(f"{name}: {unknown('role', strange[0], roles)}")
        for role in self.continues:
            before = [role]
            while (of := self.continues.get(before[-1])) is not None:
                if of in before:
                    raise ValueError(
                        f"continues: {' -> '.join([*before, of])} is a cycle; remove one of these"
                    )
                before.append(of)
        if strange := [option for option in self.at_most.values() if option not in self.options]:
            raise ValueError(f"at_most: {unknown('option', strange[0], self.options)}")

    def often(self, options: Mapping[str, Any], turns: int) -> dict[str, int]:
        """Role -> how often it speaks at most on one path of an episode with so many answers."""
        each, said = self.each_turn or self.roles[-1:], {**self.options, **options}
        limits = {role: max(1, int(said[option])) for role, option in self.at_most.items()}
        return {role: limits.get(role, turns if role in each else 1) for role in self.roles}


def workflow(
    *,
    roles: tuple[str, ...],
    continues: Mapping[str, str] | None = None,
    options: Mapping[str, int | float | bool | str] | None = None,
    each_turn: tuple[str, ...] | None = None,
    at_most: Mapping[str, str] | None = None,
    demonstration: Callable[..., Any] | None = None,
    oracle: Callable[..., Any] | None = None,
) -> Callable[[Run], Run]:
    """Declares what a coroutine `(t, task, n)` speaks, so that a recipe can name it: `workflow =
    "flow.py:think_twice"`.

    `roles`: in their order; the last one acts. `continues`: role -> the role on whose branch it speaks
    (`generate`) where one of it is sampled; the others begin their own (`fork`). `options`: name -> default,
    read as `t.options`. `each_turn`: who may speak before every answer of the environment, by default all.
    `at_most`: role -> the option that says how often it speaks at most on one path, instead.
    `demonstration`: (taskset, task) -> the turns that imitation shows, by default the turns of the taskset's
    demonstration in these roles and what is observed. `oracle`: (taskset, task, role) -> the oracle's texts,
    by default those of `demonstration`. ValueError, with the name and the line of the function, for a role
    that is not in `roles`, and for what is no role.
    """

    def declared(run: Run) -> Run:
        try:
            for said, what in ((demonstration, "demonstration"), (oracle, "oracle")):
                if said is not None and not callable(said):
                    raise TypeError(f"{what} is a function, found {said!r:.40}")
            named = (roles,) if isinstance(roles, str) else tuple(roles)
            speaks = Speaks(
                roles=named,
                continues=dict(continues or {}),
                options=dict(options or {}),
                each_turn=named if each_turn is None else tuple(each_turn),
                at_most=dict(at_most or {}),
                demonstration=demonstration,
                oracle=oracle,
            )
        except (ValueError, TypeError) as error:
            name = getattr(run, "__name__", "workflow")
            raise placed(ValueError(f"@workflow of {name}: {error}"), defined_at(run)) from None
        setattr(run, DECLARED, speaks)
        return run

    return declared


SPEAKING: dict[str, Speaks] = {
    # a plan is written anew after this many failed steps under it; 0: never
    "plan_then_act": Speaks(roles=("plan", "act"), options={"replan_after": 0}),
    "remembering": Speaks(
        roles=("plan", "act"),
        options={"memory": "", "narrative": True, "episodic": True, "replan_after": 0},
        files=("memory",),
    ),
    "act_only": Speaks(roles=("act",)),
    "react": Speaks(roles=("think", "act"), continues={"act": "think"}, each_turn=("think", "act")),
    "plan_steps": Speaks(roles=("plan", "act")),
    "blink_think_link": Speaks(roles=("blink", "think", "link"), options={"replan_after": 0}, asks="Looking"),
    "rewoo": Speaks(roles=("plan", "conclude"), asks="Tooled"),
    # chains that are written before the last one counts, each after what a tool has refused of the one before
    "abstraction": Speaks(roles=("plan",), options={"rounds": 2}, at_most={"plan": "rounds"}, asks="Tooled"),
    # plans that are proposed before the planner gives up
    "modulo": Speaks(roles=("plan", "act"), options={"rounds": 3}, at_most={"plan": "rounds"}, asks="Critic"),
}
"""The shipped workflows, whose code is in `workflows.table`; `workflows.table.register` adds one of your own
in this process. A workflow that a recipe names as code declares the same by `@workflow`."""


def speaks(name: str, *, again: bool = False) -> Speaks:
    """What the workflow called `name` declares. RecipeError for one that is not known, or is no workflow.
    `again`: read the file that it names anew."""
    return SPEAKING[name] if name in SPEAKING else getattr(own(name, again=again), DECLARED)


def own(name: str, *, again: bool = False) -> Callable[..., Any]:
    """The coroutine of a workflow that is named as code or installed. RecipeError for what is none."""
    found = find("workflows", name, {}, "workflow", "workflow", again=again, more=SPEAKING)
    if not inspect.iscoroutinefunction(found):
        raise RecipeError(
            "workflow", f"{name} is no workflow, but {described(found)}; write async def NAME(t, task, n)"
        )
    try:
        inspect.signature(found).bind(None, None, None)
    except TypeError:
        given = f"{found.__name__}{inspect.signature(found)}"
        raise RecipeError("workflow", f"{name} takes (t, task, n), found {given}") from None
    if not isinstance(getattr(found, DECLARED, None), Speaks):
        way = 'put @workflow(roles=("think", "act")) above it, from forethought.workflows'
        raise RecipeError("workflow", f"{name} declares no roles; {way}")
    return found


def roles_of(recipe: Recipe) -> tuple[str, ...]:
    """The roles that speak in a run of `recipe`. RecipeError for a workflow that is not known."""
    return speaks(recipe.workflow.name).roles


def of_another_workflow(recipe: Recipe, role: str) -> str:
    """A sentence where the recipe trains `role` because it is written for other workflows: which ones, of
    those that we ship and those of its `under`. "" where the role is none of theirs."""
    trained = {one for stage in recipe.stage for one in stage.roles} - set(roles_of(recipe)) | {role}
    fit = {name for name, said in SPEAKING.items() if trained <= set(said.roles) and not said.asks}
    if not fit:
        return ""
    spec = recipe.workflow.name
    known = ", ".join(sorted(fit | set(recipe.under) - {spec}))
    return (
        f'workflow "{spec}" speaks {", ".join(roles_of(recipe))}, and never {role!r}; this recipe runs under '
        f"{known}. For {spec}, give its stages other roles (a table [under.{spec}] does)"
    )


def is_workflow(name: str) -> bool:
    """Whether there is such a workflow, or code that is said to be one."""
    return is_known("workflows", name, SPEAKING)


def check_workflow(recipe: Recipe) -> None:
    """RecipeError for an unknown workflow, an option that it lacks, or a limit that allows nothing."""
    spec = recipe.workflow
    said = speaks(spec.name)
    known = said.options
    for key, value in spec.options.items():
        if key not in known:
            raise RecipeError(f"workflow.{key}", unknown(f"option of {spec.name}", key, known))
        _check_option(f"workflow.{key}", value, known[key])
    for key in said.files:
        if not spec.options.get(key):
            raise RecipeError(f"workflow.{key}", f'missing; {spec.name} reads a file: {key} = "FILE"')
    for key, least in (("max_turns", 1), ("max_tokens", 0)):
        if (value := getattr(spec, key)) < least:
            raise RecipeError(f"workflow.{key}", f"must be at least {least}, found {value}")


def _check_option(where: str, value: Any, default: Any) -> None:
    """A value of the default's type."""
    if type(default) is int and (type(value) is not int or value < 0):
        raise RecipeError(where, f"expected a whole number from 0, found {value!r}")
    if type(default) is float and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise RecipeError(where, f"expected a number, found {value!r}")
    if isinstance(default, bool | str) and type(value) is not type(default):
        what = "true or false" if isinstance(default, bool) else "text"
        raise RecipeError(where, f"expected {what}, found {value!r}")
