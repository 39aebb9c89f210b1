"""Everything a recipe can say, but for the keys that belong to one kind of stage (`kinds/`). Field order is
reading order; every default is a setting that works. The text under a field is its line in `explain`, in
docs/recipe-reference.md and in the JSON schema for editors, which are made from here (`about.py`).

The loader (`load.py`) checks keys, types and choices against these annotations and nothing else; `check.py`
refuses what cannot work together, with the reason, before anything heavy starts.

Paths (a task's problem files, `credit.grams`, the folder of a model) are relative to the folder of the recipe
file; in a shipped recipe and on the command line to the working directory. The recipe.json of a run holds
them whole (`paths.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from forethought.recipe.guarding import AdaptiveSpec as AdaptiveSpec
from forethought.recipe.guarding import GateSpec as GateSpec
from forethought.recipe.guarding import IsolationSpec as IsolationSpec
from forethought.recipe.guarding import ProbeSpec as ProbeSpec
from forethought.recipe.machine import PACK_TOKENS as PACK_TOKENS
from forethought.recipe.machine import SAMPLE_ROWS as SAMPLE_ROWS
from forethought.recipe.machine import SHARE_ABOVE as SHARE_ABOVE
from forethought.recipe.machine import SHARE_FROM as SHARE_FROM
from forethought.recipe.machine import AdapterSpec as AdapterSpec
from forethought.recipe.machine import EngineSpec as EngineSpec
from forethought.recipe.machine import ModelSpec as ModelSpec
from forethought.recipe.work import Lengths, Work

Change = Callable[[str, str], str]
"""(address, path) -> the path to put in its place."""


def named_with(change: Change, where: str, text: str) -> str:
    """Code that a recipe names: of `file.py:name` the file is a path, also behind the prefix of an adapter
    (`trl:file.py:name`)."""
    file, colon, name = text.rpartition(":")
    prefix = found[0] if (found := re.match(r"[a-z]{2,}:", file)) else ""
    file = file.removeprefix(prefix)
    return f"{prefix}{change(where, file)}{colon}{name}" if file.endswith(".py") else text


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """A task family and its knobs. Keys beyond `name` and `levels` belong to the taskset, which checks
    them."""

    name: str = "desk"
    """The taskset: `desk`, `blocksworld`, `math`, `text`, one that an installed package declares, or
    your own class as `mytask.py:Sums` or `package.module:Sums`."""
    levels: tuple[int, ...] = ()
    """Levels (difficulties) that are drawn. Empty: all of the taskset."""
    options: dict[str, Any] = field(default_factory=dict)
    """Every other key of the table is an option of the taskset, which checks it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowSpec:
    """Who speaks when. `workflow = "react"` is short for `workflow = { name = "react" }`; keys beyond these
    are options of the workflow (`recipe/speaking.py`)."""

    name: str = "plan_then_act"
    """Who speaks when: `plan_then_act`, `remembering`, `act_only`, `react`, `plan_steps`, `blink_think_link`,
    `rewoo`, `abstraction`, `modulo`, one that an installed package declares, or your own coroutine as
    `flow.py:name`."""
    max_turns: int = 256
    """Most turns of one path through a tree. A path that reaches it fails at the boundary `workflow`."""
    max_tokens: int = 0
    """Most sampled tokens of one path. 0: what the model's context holds."""
    roles: tuple[str, ...] = ()
    """Written by a run whose workflow is not a shipped one, for who reads its records without the code.
    Not to be set."""
    options: dict[str, Any] = field(default_factory=dict)
    """Every other key of the table is an option of the workflow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSpec:
    """Factored evaluation on held-out tasks, greedy, the same tasks every time, so that differences are
    paired."""

    tasks: int = 100
    """Held-out tasks per level, the same ones every time."""
    levels: tuple[int, ...] = ()
    """Levels that are evaluated. Empty: those of the task."""
    every: int = 25
    """Steps between evaluations inside a stage. 0: only at its start and end."""
    noise: bool = False
    """Keeps the taskset's noise (such as slips) in evaluations. Off: the policy alone is measured."""
    seed: int = 99
    """Seed of the held-out tasks."""
    give_up: int = 16
    """Of a model that was trained before: tasks, spread over the levels, after which an evaluation ends if
    every first turn of theirs was cut off at its budget. It says so. 0: never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimSpec:
    """AdamW, or Muon on the hidden matrices with AdamW on the rest. The rate rises over the warm-up, then
    follows the schedule."""

    name: Literal["adamw", "muon"] = "adamw"
    """`adamw`, or `muon` on the hidden matrices with AdamW on the rest."""
    lr: float = 3e-4
    """Learning rate of AdamW."""
    muon_lr: float = 0.02
    """Learning rate of the matrices, for `muon` alone."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay rates of AdamW's first and second moment."""
    weight_decay: float = 0.01
    """Decoupled decay of the weights."""
    clip_norm: float = 1.0
    """Most norm of a gradient; a larger one is scaled down to it."""
    warmup: int = 5
    """Steps in which the rate rises linearly from zero."""
    schedule: str = "wsd"
    """How the rate moves after the warm-up: `constant`, `linear`, `cosine`, `wsd` (stays, and falls over
    the last `decay` of the stage), one that an installed package declares, or your own function as
    `schedules.py:name` (docs/schedules.md)."""
    decay: float = 0.0
    """Of `wsd`: share of the stage's steps, at its end, in which the rate falls linearly. 0: it stays."""
    least: float = 0.0
    """Share of the rate at which `linear`, `cosine` and `wsd` end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSpec:
    """A role of the workflow: whose weights speak in it, and how long a turn may be. Which roles there are
    says the workflow (`recipe/speaking.py`): the last of them acts, those before it prepare."""

    policy: str = ""
    """The policy whose weights speak in this role. Empty: by `layout`, one of the role's own name. Roles
    that name the same policy share its weights; `base` is the base itself."""
    budget: int = 0
    """Most tokens of a turn. 0: the taskset's."""
    stop: str = ""
    """The word that ends a turn. Empty: the taskset's, or the model's own end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeSpec:
    """How many turns of each role are sampled at each place where it speaks: tree = { plan = 4, act = 3 } has
    4 plans for a task and 3 executions of each plan.

    A role that is not named speaks 4 times where it speaks first, else once; 0 ends the tree before it. A
    single chain and a flat group are special cases.
    """

    counts: dict[str, int] = field(default_factory=dict)
    """Role -> how many turns of it are sampled at each place where it speaks, written flat: `tree = {
    plan = 4, act = 3 }`. A role that is not named speaks 4 times where it speaks first, else once; 0
    ends the tree before it."""
    temperature: float = 1.0
    """Temperature of sampling, above 0."""
    top_p: float = 1.0
    """Share of the probability that is sampled from, above 0 and at most 1."""
    top_k: int = 0
    """How many of the likeliest tokens are sampled from, at least 2. 0: all."""
    min_p: float = 0.0
    """Share of the likeliest token's probability that a token needs to be sampled (arXiv 2407.01082), from 0
    to below 1. 0: none."""
    oracle: tuple[str, ...] = ()
    """Roles that the oracle speaks, once: the first of the workflow, so that the others train under what
    is right."""
    tokens: dict[str, int] = field(default_factory=dict)
    """Role -> most tokens of a turn in this stage. Absent: its budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditSpec:
    name: str = "grpo"
    """How rewards become advantages: `grpo`, `dr_grpo`, `rloo`, `role_baseline`, `turn_level`, `rae`,
    `reinforce_pp`, `reinforce_pp_baseline`, of kind `webrl` also `webrl` and `webrl_released`, one that an
    installed package declares, or your own function as `credit.py:name`."""
    eps: float = 1e-4
    """Added to the standard deviation where one is divided by."""
    gamma: float = 1.0
    """`turn_level`: discount from a turn to the next."""
    decay: float = 0.95
    """`rae`: decay of the running baselines."""
    mix: float = 0.5
    """`webrl`: share of what a turn gained in value; the rest is the outcome less the value (lambda in the
    paper, arXiv 2411.02337)."""
    margin: float = 0.05
    """`webrl_released`: what the value must rise by for a turn of a failure to count."""
    weight: dict[str, float] = field(default_factory=dict)
    """Role -> factor on the advantages of its tokens. Absent: 1."""
    alpha: float = 0.0
    """HICRA (arXiv 2509.03646): advantages become A + alpha |A| on the tokens of `mask`. The paper's
    value is 0.2, with `dr_grpo`. 0: off."""
    mask: Literal["preparing", "grams", "placebo", "entropy", "released"] = "preparing"
    """Where `alpha` acts. `preparing`: the tokens of the roles before the last; `grams`: those of the
    phrases in `grams`; `placebo`: as many tokens drawn at random, the control; `entropy`: the most
    uncertain tokens of each turn; `released`: as the paper's code has it (credit/hicra.py)."""
    mask_share: float = 0.3
    """Share of the tokens of a turn (`entropy`) or of a response (`released`) that the mask takes."""
    grams: str = ""
    """A file with a list of phrases (`forethought grams mine`): planning tokens are theirs. With alpha =
    0 they are only measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSpec:
    """`loss = "gspo"` is short for `loss = { name = "gspo" }`; keys beyond the name are options of the loss,
    as in `loss = { name = "dapo", clip_high = 0.3 }` (docs/losses.md)."""

    name: str = ""
    """The loss: `grpo`, `dapo`, `gspo`, `cispo`, `webrl`, `webrl_released`, `sft`, one that an
    installed package declares, or your own row as `losses.py:MINE`. Empty: `grpo` of rollouts, `sft` of
    demonstrations."""
    options: dict[str, Any] = field(default_factory=dict)
    """Every other key of the table is an option of the loss (docs/losses.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapingSpec:
    """What the reward parts `analytic` and `length` of PTA-GRPO (arXiv 2510.01833) need. The paper gives
    neither value."""

    tau: float = 1.0
    """Reward part `analytic`: temperature of the softmax of success rates over a task's plans."""
    length_max: int = 0
    """Reward part `length`: T_max, tokens of a whole response. 0: the longest response of the group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UntilSpec:
    """The stage ends after `steps`, or earlier when `metric` has reached `at_least` / `at_most` at an
    evaluation."""

    steps: int = 100
    """Most steps of the stage."""
    metric: str = ""
    """A metric of an evaluation, such as `eval/plan`, that ends the stage earlier. Empty: none."""
    at_least: float | None = None
    """The stage ends when the metric is at least this."""
    at_most: float | None = None
    """The stage ends when the metric is at most this."""
    patience: int = 1
    """Evaluations in a row that must satisfy it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSpec:
    """What every stage says. The rest of its keys are those of its kind, which is a record below this one: a
    row of `recipe.kinds.KINDS`, or a class of your own that the recipe names."""

    kind: str = ""
    """`imitate` (the default), `reinforce`, `webrl`, `distill`, or your own class as `kinds.py:Name`
    (docs/stages.md)."""
    name: str = ""
    """What the stage is called in metrics and the report. Empty: its kind."""

    learns_from: ClassVar[Literal["demonstrations", "trees", ""]] = ""  # "": it trains nothing

    def check(self, where: str, recipe: Recipe) -> None:
        """RecipeError for the first setting of the stage at address `where` that cannot work in `recipe`."""
        raise NotImplementedError

    def work(self, n: Lengths, used: float, recipe: Recipe) -> Work:
        """Tokens of one step, where a turn takes the share `used` of its budget. `n`: what the roles may
        say."""
        raise NotImplementedError

    def outline(self, recipe: Recipe) -> str:
        """The stage in words, on one line."""
        raise NotImplementedError

    @property
    def title(self) -> str:
        """Its name, or its kind."""
        return self.name or self.kind

    @property
    def steps(self) -> int:
        """At most."""
        return 0

    @property
    def roles(self) -> tuple[str, ...]:
        """What trains."""
        return ()

    @property
    def gates(self) -> tuple[GateSpec, ...]:
        """Gates of the stage; a kind that does not train has none."""
        return ()

    @property
    def grams(self) -> str:
        """The file with the list of phrases that its credit reads; "": none."""
        return ""

    def lengths(self, n: Lengths) -> Lengths:
        """With the stage's own budgets."""
        return n

    def per_task(self, roles: tuple[str, ...]) -> int:
        """Rollouts or demonstrations that one task of a step takes."""
        return 1

    def with_paths(self, where: str, change: Change) -> StageSpec:
        """With every path to data or code that its keys name changed, given its address."""
        return self

    def with_models(self, change: Callable[[ModelSpec], ModelSpec]) -> StageSpec:
        """The stage with every model that it names changed; by default it names none."""
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSpec(StageSpec):
    """What every kind that trains says beside its own keys."""

    roles: tuple[str, ...] = ()
    """What trains; the other roles are frozen. Empty: all roles of the workflow."""
    weights: Literal["auto", "base", "adapter", "model"] = "auto"
    """Which weights train: the base, an adapter of the role, or a model of the role. `auto`: by `layout`."""
    until: UntilSpec = field(default_factory=UntilSpec)
    """When the stage ends."""
    levels: tuple[int, ...] = ()
    """Levels that are drawn. Empty: those of the task."""
    level_weights: tuple[float, ...] = ()
    """How often each level is drawn, one number per level. Empty: equally."""
    easy_first: float = 0.0
    """Share of the steps at the stage's start in which only `easy_levels` are drawn."""
    easy_levels: tuple[int, ...] = ()
    """Levels of the start, for `easy_first`."""
    batch: int = 32
    """Tasks per step."""
    share: int = 1
    """Tasks on the same context (screen), whose computation is shared. Divides `batch`."""
    loss: LossSpec = field(default_factory=LossSpec)
    """The loss, as its name or a table with options."""
    isolation: IsolationSpec = field(default_factory=IsolationSpec)
    """Ways to keep the other roles in place while one trains in shared weights."""
    adaptive: AdaptiveSpec = field(default_factory=AdaptiveSpec)
    """Isolation that switches itself on when probes see harm."""
    optim: OptimSpec = field(default_factory=OptimSpec)
    """Optimizer and learning rate."""
    gates: tuple[GateSpec, ...] = ()
    """Written conditions on metrics, checked at each evaluation of the stage."""

    default_loss: ClassVar[str] = "sft"  # of the kind; another loss reads advantages where this one does

    @property
    def loss_name(self) -> str:
        """The loss row that the stage uses; by default that of its kind."""
        return self.loss.name or self.default_loss

    @property
    def steps(self) -> int:
        """Most steps that the stage trains."""
        return self.until.steps

    @property
    def ref_kl(self) -> float:
        """Weight of KL to the policy at the stage's start."""
        return 0.0

    def with_paths(self, where: str, change: Change) -> StageSpec:
        """The stage with every path in it changed by `change`: here those of its loss and its schedule."""
        schedule = named_with(change, f"{where}.optim.schedule", self.optim.schedule)
        return replace(
            self,
            loss=replace(self.loss, name=named_with(change, f"{where}.loss", self.loss.name)),
            optim=replace(self.optim, schedule=schedule),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveSpec:
    every: int = 50
    """Steps between checkpoints. There is always one at the start and the end of each stage."""
    keep: int = 2
    """Newest checkpoints that are kept. The target of a roll-back is kept as long as its stage runs."""
    trees_every: int = 25
    """Steps between saved trees, and always a stage's first and last step. 1: every step; 0: none."""
    trees: int = 8
    """Trees saved each time. 0: every tree of the step (docs/traces.md says what that takes)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSpec:
    """How long what is not ours may take (environments, task families, graders), and how much of it may break
    before the run stops.

    What takes longer, raises or answers with another type counts as failed: it is left out, never rewarded
    with 0.
    """

    step_seconds: float = 60.0
    """For a reset, a step or a close of an environment, a verdict, a demonstration. 0: no limit."""
    episode_seconds: float = 600.0
    """For the reset and all steps of one episode together, and for one call of a batch reward function or of
    a credit row of your own. 0: no limit."""
    at_once: int = 16
    """Calls of environments that run at the same time: `async def` ones, and with `threads` all."""
    open_episodes: int = 0
    """Episodes that are open at the same time; more tasks than that are played in parts. 0: as many as the
    taskset can hold (24 web pages), and all where it says nothing."""
    threads: bool = False
    """Gives each environment a thread of its own. Without, it runs on the main thread."""
    max_failed: float = 0.5
    """Share of the trajectories of the last `window` steps, or of an evaluation's tasks, that may fail
    before the run stops."""
    window: int = 4
    """Steps that `max_failed` looks at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    name: str = "recipe"
    """Names the run's directory: letters, digits, '.', '_' and '-'."""
    about: str = ""
    """What the recipe shows, what it costs, the result it gave."""
    seed: int = 0
    """Seed of everything that is drawn."""
    layout: Literal["shared", "adapter", "adapters", "models", "mixed"] = "adapters"
    """Who holds the weights of the roles that name no policy. `shared`: one base; `adapter`: a base with
    one adapter for all roles; `adapters`: a base with an adapter per role; `models`: a model per role;
    `mixed`: a base that acts (the last role), with an adapter for each role before it."""
    task: TaskSpec = field(default_factory=TaskSpec)
    """What is asked: a taskset and its options."""
    workflow: WorkflowSpec = field(default_factory=WorkflowSpec)
    """Who speaks when, as its name or a table with options."""
    under: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Workflow -> address -> value: what `--set workflow=NAME` changes beside the name, where the stages
    are written for the roles of another workflow."""
    roles: dict[str, RoleSpec] = field(default_factory=dict)
    """Role of the workflow -> what differs from its defaults."""
    model: ModelSpec = field(default_factory=ModelSpec)
    """What the run starts from."""
    planner: ModelSpec = field(default_factory=lambda: ModelSpec(init=""))
    """Layout `models`: another model for every role but the last, which acts. It may be larger; its
    tokenizer must be the same. Absent: a copy of `model`."""
    adapter: AdapterSpec = field(default_factory=AdapterSpec)
    """Size of the LoRA adapters."""
    engine: EngineSpec = field(default_factory=EngineSpec)
    """The machine: device, precision, threads, memory."""
    eval: EvalSpec = field(default_factory=EvalSpec)
    """Factored evaluation on held-out tasks."""
    probes: ProbeSpec = field(default_factory=ProbeSpec)
    """Measurements that do not train."""
    save: SaveSpec = field(default_factory=SaveSpec)
    """Checkpoints and saved trees."""
    limits: LimitSpec = field(default_factory=LimitSpec)
    """How long code that is not the library's may take, and how much of it may break."""
    trackers: tuple[str, ...] = ("auto",)
    """Where the metrics go beside the run's own log (docs/trackers.md)."""
    # tensorboard | wandb | trackio | mlflow, or file.py:name; auto: event files where TensorBoard is there
    max_bad_updates: int = 3
    """Refused updates (NaN, inf) after which the run stops."""
    stage: tuple[StageSpec, ...] = ()
    """The stages, in order: `[[stage]]`."""
