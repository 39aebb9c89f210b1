"""Everything a recipe can say, but for the keys that belong to one kind of stage (`kinds/`). Field order is
reading order; every default is a setting that works.

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


# what engine.pack_tokens and engine.sample_rows are for "auto" on a CPU
PACK_TOKENS, SAMPLE_ROWS = 8192, 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """A task family and its knobs. Keys beyond `name` and `levels` belong to the taskset, which checks
    them."""

    name: str = "desk"
    levels: tuple[int, ...] = ()  # empty: the taskset's own
    # written flat in TOML: task = { name = "desk", slip = 0.1 }
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowSpec:
    """Who speaks when. `workflow = "react"` is short for `workflow = { name = "react" }`; keys beyond these
    are options of the workflow (`recipe/speaking.py`)."""

    # a row of recipe.speaking.SPEAKING, code ("flow.py:name"), or what an installed package declares
    name: str = "plan_then_act"
    # limits of one path through a tree; a path that reaches one fails at the boundary "workflow"
    max_turns: int = 256
    max_tokens: int = 0  # sampled ones; 0: what the model's context holds
    # written by a run whose workflow is not ours, for who reads its records without the code
    roles: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """`init = "small"`: a Qwen2 from scratch in the given size. `path`: any Hugging Face causal LM on disk or
    by hub name."""

    init: Literal["small", ""] = "small"
    path: str = ""  # wins over init
    layers: int = 4
    width: int = 128
    heads: int = 4
    mlp: int = 256
    # tokens of a small model on a task in free text: byte-level BPE, trained on the training problems
    vocabulary: int = 2048
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSpec:
    """LoRA (arXiv 2106.09685) for layout "adapters"."""

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = ()  # module names; empty: every linear layer but the head


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    device: str = "auto"  # auto | cpu | cuda
    # of the products (autocast). auto: bf16 on a GPU, on a CPU what is faster there
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    layers: Literal["auto", "c", "torch"] = "auto"
    # what computes the layers of a training step on a CPU: the kernels in C, or PyTorch. auto: what is
    # faster. Where `precision` or `layers` is auto, a layer of the model is timed in each way when the run
    # begins; the answer is kept for this machine, and by a resumed run
    weights: Literal["auto", "fp32", "bf16"] = "auto"
    # how the weights of a loaded model are kept. auto: fp32 where a stage trains whole models (a bf16 number
    # has 8 bits: what is less than 1/512 of it is lost when it is added, and an AdamW update at 1e-6 is),
    # else as its files say (fp32 on a CPU)
    threads: int | Literal["auto"] = "auto"
    # of PyTorch on the CPU. auto (or 0): one below 4M parameters; for a larger model what is fastest when the
    # run begins, on the machine as it is then (measured in a quarter of a second, and kept when the run is
    # resumed). The number changes the last bits of sums
    kernel_threads: int | Literal["auto"] = "auto"
    # of the C kernels, which sample rows and train layers on a CPU. They change no bit, so auto is one for
    # each core that this process may use, and no more than OMP_NUM_THREADS says
    pack_tokens: int | Literal["auto"] = "auto"  # most tokens of one forward and backward
    sample_rows: int | Literal["auto"] = "auto"  # most sequences decoded together
    # auto: 8192 tokens and 1024 rows, on a GPU what its free memory is estimated to hold (up to four times as
    # many); where memory runs out, half, with the same gradient and the same samples, and the run goes on
    # with that. A number that does not fit stops the run
    gradient_checkpointing: bool = False
    # MiB of keys and values that stay between calls while rollouts go on, so that a turn costs its own
    # tokens; 0: none. auto: a sixteenth of the machine's memory, or of its GPU's
    prefix_cache: int | Literal["auto"] = "auto"

    @property
    def asked(self) -> int:
        """`threads`, 0 for auto."""
        return 0 if self.threads == "auto" else self.threads

    @property
    def tokens(self) -> int:
        """`pack_tokens`, or what auto is where nothing is known of the memory."""
        return PACK_TOKENS if self.pack_tokens == "auto" else self.pack_tokens

    @property
    def rows(self) -> int:
        """`sample_rows`, or what auto is where nothing is known of the memory."""
        return SAMPLE_ROWS if self.sample_rows == "auto" else self.sample_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSpec:
    """Factored evaluation on held-out tasks, greedy, the same tasks every time, so that differences are
    paired."""

    tasks: int = 100  # per level
    levels: tuple[int, ...] = ()  # empty: the task's levels
    every: int = 25  # steps, inside a stage; 0: only at its start and end
    noise: bool = False  # keep the taskset's noise (slip); off: measure the policy alone
    seed: int = 99


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimSpec:
    """AdamW, or Muon on the hidden matrices with AdamW on the rest. Linear warm-up, then constant or linear
    decay."""

    name: Literal["adamw", "muon"] = "adamw"
    lr: float = 3e-4
    muon_lr: float = 0.02  # only for muon: the matrices' own rate
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    warmup: int = 5  # steps
    decay: float = 0.0  # share of the stage's steps, at its end, in which the rate falls linearly to zero


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSpec:
    """A role of the workflow: whose weights speak in it, and how long a turn may be. Which roles there are
    says the workflow (`recipe/speaking.py`): the last of them acts, those before it prepare."""

    policy: str = ""
    # empty: by `layout`, a policy of the role's own name; roles that name the same policy share its weights;
    # "base": the base itself, which lies under every adapter
    budget: int = 0  # most tokens of a turn; 0: the task family's
    stop: str = ""  # the word that ends a turn; empty: the task family's, or the model's own end


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeSpec:
    """How many turns of each role are sampled at each place where it speaks: tree = { plan = 4, act = 3 } has
    4 plans for a task and 3 executions of each plan.

    A role that is not named speaks 4 times where it speaks first, else once; 0 ends the tree before it. A
    single chain and a flat group are special cases.
    """

    counts: dict[str, int] = field(default_factory=dict)  # role -> number, written flat beside the other keys
    temperature: float = 1.0
    top_p: float = 1.0
    # roles that the oracle speaks, once: the first of the workflow, so that the others train under what is
    # right
    oracle: tuple[str, ...] = ()
    tokens: dict[str, int] = field(default_factory=dict)  # role -> most tokens of a turn; absent: its budget


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditSpec:
    name: str = "grpo"  # a row of forethought.learn.credit.CREDITS
    eps: float = 1e-4  # added to the standard deviation where one is divided by
    gamma: float = 1.0  # turn_level: discount from a turn to the next
    decay: float = 0.95  # rae: of the running baselines
    # role -> factor on the advantages of its tokens; absent: 1
    weight: dict[str, float] = field(default_factory=dict)
    # HICRA (arXiv 2509.03646): A + alpha |A| on the tokens of `mask`; the paper's value is 0.2, with
    # dr_grpo's A
    alpha: float = 0.0
    mask: Literal["preparing", "grams", "placebo", "entropy", "released"] = "preparing"
    # preparing: the tokens of the roles before the last; grams: those of the phrases in `grams`; placebo: as
    # many tokens drawn at random as there are planning tokens, the control; entropy: the most uncertain
    # tokens of each turn; released: planning tokens, and the most uncertain ones of correct responses above
    # the mean length, as the paper's code has it and the paper has not (credit/hicra.py)
    mask_share: float = 0.3  # of the tokens of a turn (entropy) or of a response (released)
    # a list of phrases (`forethought grams mine`): planning tokens are theirs, not those of roles. alpha = 0:
    # only measured
    grams: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSpec:
    """`loss = "gspo"` is short for `loss = { name = "gspo" }`; keys beyond the name are options of the loss,
    as in `loss = { name = "dapo", clip_high = 0.3 }` (docs/losses.md)."""

    name: str = ""  # a row of learn.losses.LOSSES; empty: grpo of rollouts, sft of demonstrations
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapingSpec:
    """What the reward parts `analytic` and `length` of PTA-GRPO (arXiv 2510.01833) need. The paper gives
    neither value."""

    tau: float = 1.0  # temperature of the softmax of success rates over a task's plans
    # T_max, tokens of a whole response (plan and acts); 0: the longest response of the group
    length_max: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UntilSpec:
    """The stage ends after `steps`, or earlier when `metric` has reached `at_least` / `at_most` at an
    evaluation."""

    steps: int = 100
    metric: str = ""
    at_least: float | None = None
    at_most: float | None = None
    patience: int = 1  # evaluations in a row that must satisfy it


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSpec:
    """A written condition on a metric. Exactly one of the conditions; checked at each evaluation of its
    stage.

    `max_drop` / `max_rise` compare with the stage's start, on the same tasks: the gate fails when the change
    is larger than the bound *and* the exact paired test excludes no change (confidence = 0: the number alone
    decides). Over all evaluations of a stage that changes nothing, it is wrong with a chance of at most
    1 - confidence, by the rule `looks` (docs/gates.md). `max_slope_down` fails when the metric falls by more
    than this per evaluation over the last `window` evaluations.
    """

    metric: str = "eval/act"
    at_least: float | None = None
    at_most: float | None = None
    max_drop: float | None = None
    max_rise: float | None = None
    max_slope_down: float | None = None
    window: int = 4
    confidence: float = 0.95
    looks: Literal["late", "even", "each"] = "late"
    # how 1 - confidence is split over the evaluations of the stage: more to the later ones, evenly, or not at
    # all (each evaluation has all of it, and a long stage is rolled back more often than that)
    on_fail: Literal["stop", "roll_back", "warn"] = "stop"
    then: Literal["skip", "stop", "isolate", "lower_rate"] = "skip"
    # after a roll back: go on with the next stage, stop the run, or run the stage again isolated or with a
    # lower rate
    isolate: Literal["adapter", "model", "replay", "keep_kl"] = "adapter"
    # for then = "isolate": see AdaptiveSpec.to; the adapter's rate and the weight of replay or keep_kl are
    # those of stage.adaptive
    rate: float = 0.5  # for then = "lower_rate": factor on the stage's learning rates, at each retry
    # for then = "lower_rate": runs of the stage after the first; after the last one the run goes on with the
    # next stage
    retries: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class IsolationSpec:
    """Ways to keep the other role in place while a stage trains one role in weights that both share. Each
    works alone; all are off by default. (Separate adapters are `layout`; a loss on one role's tokens alone is
    `roles`.)"""

    # demonstrations of the other role that replay, keep_kl and surgery read, per task of the batch
    demos: float = 0.25
    replay: float = 0.0  # weight of the supervised loss on the other role's tokens in them
    keep_kl: float = 0.0  # weight of KL(stage's start || policy) on the same tokens
    # PCGrad between the gradients of the two roles' objectives (arXiv 2001.06782)
    surgery: Literal["none", "pcgrad"] = "none"
    core: Literal["none", "core", "random"] = "none"
    # freeze the other role's core region (CPI-FT, arXiv 2508.21741), or as many random weights: the control
    # that the paper lacks
    core_share: float = 0.01  # of all weights
    core_steps: int = 40  # updates of the short imitation that finds a role's region (the paper does not say)
    core_lr: float = 1e-3  # its AdamW rate (the paper does not say)
    # Jaccard index from which two roles count as one group, whose weights are not held (tau)
    group_above: float = 0.1
    transplant: bool = False
    # at the stage's end the other role's region gets the values that its short imitation gave it
    # and the weights outside move by this much along the arc to the other role's model (0: not at all)
    slerp: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveSpec:
    """Isolation that switches itself on: the roles share their weights until the probes see interference.

    Read at every held-out probe of the stage (`probes.every`) and at every evaluation. It switches when the
    other role's success has fallen by more than `max_drop` since the stage's start, with a paired interval
    that excludes no change; or when the mean cosine between the two roles' gradients over the last `window`
    conflict probes is below `min_cosine`. The role that suffered gets the weights of the stage's start back;
    the other goes on with what it has learned.
    """

    to: Literal["off", "adapter", "model", "replay", "keep_kl"] = "off"
    # adapter: the difference to the stage's start becomes an adapter; model: each role gets all weights for
    # itself; replay, keep_kl: that method is switched on, in the weights that go on being shared
    max_drop: float = 0.02
    min_cosine: float = -1.0  # -1: not read
    window: int = 3
    confidence: float = 0.95
    lr: float = 0.0  # the adapter's AdamW rate after the switch; 0: the stage's own
    weight: float = 0.1  # of replay or keep_kl after the switch
    rejoin: int = 0  # probes in a row without harm after which the roles share again; 0: never


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSpec:
    """Measurements that do not train, on fixed held-out demonstrations. What each costs is a metric too:
    seconds_probe/NAME."""

    tasks: int = 8  # per level
    every: int = 5  # steps between held-out probes (entropy, perplexity, KL and success by role); 0: none
    conflict_every: int = 50  # steps between probes of the gradients' cosine; 0: none
    # KL of what a reinforce stage trains to the stage's start; keeps a copy of those weights
    kl_start: bool = True
    kl_base: bool = False
    # also KL to the model as the run found it (from scratch: as its first stage left it); keeps a copy
    # name -> regular expression on a whole rollout; the first match counts
    formats: dict[str, str] = field(default_factory=dict)
    collapse: float = 0.9  # share of one format from which the formats count as collapsed
    phase_window: int = 10  # held-out probes over which the two-phase detector takes its slopes


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSpec:
    """What every stage says. The rest of its keys are those of its kind, which is a record below this one: a
    row of `recipe.kinds.KINDS`, or a class of your own that the recipe names."""

    kind: str = ""
    name: str = ""  # empty: the kind

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

    roles: tuple[str, ...] = ()  # what trains, the other roles are frozen; empty: all roles of the workflow
    weights: Literal["auto", "base", "adapter", "model"] = "auto"  # auto: see recipe/layout.py
    until: UntilSpec = field(default_factory=UntilSpec)
    levels: tuple[int, ...] = ()  # empty: the task's levels
    level_weights: tuple[float, ...] = ()  # one per level; empty: equal
    easy_first: float = 0.0  # share of the steps at the stage's start in which only `easy_levels` are drawn
    easy_levels: tuple[int, ...] = ()
    batch: int = 32  # tasks per step
    share: int = 1  # tasks on the same context (screen), whose computation is shared; divides batch
    loss: LossSpec = field(default_factory=LossSpec)
    isolation: IsolationSpec = field(default_factory=IsolationSpec)
    adaptive: AdaptiveSpec = field(default_factory=AdaptiveSpec)
    optim: OptimSpec = field(default_factory=OptimSpec)
    gates: tuple[GateSpec, ...] = ()

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
        """The stage with every path in it changed by `change`: here that of its loss."""
        return replace(
            self, loss=replace(self.loss, name=named_with(change, f"{where}.loss", self.loss.name))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveSpec:
    every: int = 50  # steps between checkpoints; always one at the start and the end of each stage
    keep: int = 2  # newest checkpoints kept (a rollback target is kept as long as its stage runs)
    # steps between saved trees, and always a stage's first and last step; 1: every step; 0: none
    trees_every: int = 25
    trees: int = 8  # trees saved each time; 0: every tree of the step (docs/traces.md says what that takes)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSpec:
    """How long what is not ours may take (environments, task families, graders), and how much of it may break
    before the run stops.

    What takes longer, raises or answers with another type counts as failed: it is left out, never rewarded
    with 0.
    """

    # reset, one step or close of an environment, one verdict, one demonstration; 0: no limit
    step_seconds: float = 60.0
    episode_seconds: float = 600.0  # reset and all steps of one episode together; 0: no limit
    at_once: int = (
        16  # calls of environments that run at the same time: `async def` ones, and with `threads` all
    )
    threads: bool = False  # an environment has a thread of its own; without, it runs on the main thread
    # share of the trajectories of the last `window` steps, or of an evaluation's tasks, that may fail
    max_failed: float = 0.5
    window: int = 4  # steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    name: str = "recipe"
    about: str = ""  # what it shows, its cost, the result it gave
    seed: int = 0
    layout: Literal["shared", "adapters", "models", "mixed"] = "adapters"
    # who holds the weights of the roles that name no policy: one base; a base with an adapter per role; a
    # model per role; a base that acts (the last role of the workflow) with an adapter for each role before it
    task: TaskSpec = field(default_factory=TaskSpec)
    workflow: WorkflowSpec = field(default_factory=WorkflowSpec)
    # workflow -> address -> the value that belongs to it: what `--set workflow=NAME` changes beside the name,
    # where the stages of the recipe are written for the roles of another one
    under: dict[str, dict[str, Any]] = field(default_factory=dict)
    roles: dict[str, RoleSpec] = field(
        default_factory=dict
    )  # of the workflow: name -> what differs from its defaults
    model: ModelSpec = field(default_factory=ModelSpec)
    planner: ModelSpec = field(default_factory=lambda: ModelSpec(init=""))
    # layout "models": another model for every role but the last, which acts (it may be larger; its tokenizer
    # must be the same); absent: a copy of `model`
    adapter: AdapterSpec = field(default_factory=AdapterSpec)
    engine: EngineSpec = field(default_factory=EngineSpec)
    eval: EvalSpec = field(default_factory=EvalSpec)
    probes: ProbeSpec = field(default_factory=ProbeSpec)
    save: SaveSpec = field(default_factory=SaveSpec)
    limits: LimitSpec = field(default_factory=LimitSpec)
    max_bad_updates: int = 3  # refused updates (NaN, inf) after which the run stops
    stage: tuple[StageSpec, ...] = ()
