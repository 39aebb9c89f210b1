"""The words that every floor shares: frozen records that travel from step to step, and nothing that computes.

Task -> Tree of Nodes -> rewarded Tree -> advantages by node -> Batch of Segments -> update
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from forethought.core.branches import branch_of
from forethought.core.records import quick

Status = Literal["given", "finished", "truncated", "refused", "failed", "overlong"]
"""given: prompt, observation or demonstration; finished: ended with its stop; truncated: ran out of budget;
refused: the interface did not accept the text; failed: what judges it or answers it broke, and `reason` says
at which boundary (environment, task, reward, parse; `forethought.envs.guard`); overlong: what stands before
it left no room for a token in the model's context. The last two are never counted as reward 0."""

Side = Literal["user", "tool"]
"""Who gives observations in a conversation by a chat template."""

DecisionKind = Literal["gate", "schedule", "guard", "run"]
EventKind = Literal["start", "stage", "busy", "step", "eval", "decision", "note", "end"]

NO_EVIDENCE: frozenset[Status] = frozenset({"failed", "overlong"})
"""What says nothing about the policy: it is not rewarded, trains nothing, and is counted by its own name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One problem. The model reads `context` then `prompt`; tasks with the same context share its
    computation."""

    id: str
    taskset: str
    # difficulty, in the taskset's own unit (desk: depth of the goal; blocksworld: optimal plan length)
    level: int
    context: str  # what several tasks may share (the screen); may be empty
    prompt: str  # the task itself, up to where the first role speaks
    state: Any = None  # what the taskset verifies against; only the taskset reads it


@dataclass(frozen=True, slots=True)
class Undrawn:
    """The `state` of a task that the family could not draw: it stands in the task's place, with the reason,
    and everything on it fails."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A piece of a demonstration: words of a role, or (role None) an observation."""

    role: str | None
    text: str


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The judgement of a verifier: 1.0 is success; `reason` says why not."""

    score: float
    reason: str = ""
    timed_out: bool = False  # the verifier gave up; the score is 0


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the environment answers to one turn of acting."""

    done: bool
    success: bool | None = False  # None: nobody here says whether the episode succeeded
    # partial credit, a finite number: what the reward part `outcome` is. None: 1 for success, else 0
    score: float | None = None
    observation: str | None = None  # fed back before the next turn when not done
    images: tuple[bytes, ...] = ()  # of the observation; each the bytes of a PNG or JPEG file
    parts: Mapping[str, float] = field(default_factory=dict)  # rewards of this turn by name, finite numbers
    reason: str = ""
    timed_out: bool = False  # the verifier gave up on the turn: no success, and counted
    replan: bool = False  # the step did what it should, and what is seen now needs a plan of its own

    @property
    def missed(self) -> bool:
        """The step failed and the environment goes on: `reason` says what went wrong."""
        return not self.done and bool(self.reason) and not self.replan


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One stretch of tokens in a tree: a prompt, a plan, an action, an observation. Ids, never positions."""

    id: int
    parent: int | None
    role: str | None  # None: prompt or observation, which no policy wrote
    text: str
    token_ids: tuple[int, ...]
    status: Status = "given"
    reason: str = ""
    # id of the first node of the branch it stands on; None: from before there were branches (`Tree.branches`)
    branch: int | None = None
    policy: str | None = None
    version: int = 0  # version of the policy that sampled it
    logprobs: tuple[float, ...] = ()  # under the sampling policy at temperature 1, one per token (nats)
    reward_parts: Mapping[str, float] = field(default_factory=dict)  # named components
    images: tuple[
        str, ...
    ] = ()  # shown by an observation: names of their files in the run directory, images/
    extra: Mapping[str, Any] = field(default_factory=dict)  # what a reward function logs of it (log_extra)
    # weighted sum of the parts; None: not rewarded (prompt) or not to be counted (failed)
    reward: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """What was sampled as one of n at one place, with everything that follows on it until the next fork."""

    id: int  # of its first node
    above: int | None  # the branch it forks from; None: the prompt's own
    role: str | None  # of its first node
    nodes: tuple[Node, ...]  # in order; any roles, and the observations between them

    @property
    def turns(self) -> tuple[Node, ...]:
        """Without observations: what roles said."""
        return tuple(n for n in self.nodes if n.role is not None)

    @property
    def status(self) -> Status:
        """How its last turn ended; `given` where nobody spoke on it (the prompt's)."""
        return next((n.status for n in reversed(self.nodes) if n.role is not None), "given")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """All rollouts of one task: root -> m plans -> z executions of each (-> further turns). Parents precede
    children.

    A tree is also a tree of branches: the prompt's, and one for each of the n continuations sampled at a
    fork. Peers, which compete for credit, are branches with the same (role, branch above).
    """

    task: Task
    nodes: tuple[Node, ...]

    def children(self, parent: int | None) -> list[Node]:
        """Nodes directly below `parent` (None: the roots), in the order of ids."""
        return [n for n in self.nodes if n.parent == parent]

    def path(self, node: Node) -> list[Node]:
        """From the root to `node`, both included."""
        by_id = {n.id: n for n in self.nodes}
        path = [node]
        while path[-1].parent is not None:
            path.append(by_id[path[-1].parent])
        return path[::-1]

    def leaves(self) -> list[Node]:
        """Nodes without children: where trajectories end."""
        parents = {n.parent for n in self.nodes}
        return [n for n in self.nodes if n.id not in parents]

    def below(self, first: Node) -> Tree:
        """The tree with the prompt and, of all that is below it, what lies under `first`, which is one of its
        children."""
        kept = {first.id}
        for node in self.nodes:  # parents precede children
            if node.parent in kept:
                kept.add(node.id)
        return replace(self, nodes=tuple(n for n in self.nodes if n.parent is None or n.id in kept))

    def branches(self) -> dict[int, Branch]:
        """Every branch by its id, those above before those below (`branch_of` says how nodes that name none
        are read)."""
        on = branch_of([(n.id, n.parent, n.role, n.branch) for n in self.nodes])
        nodes: dict[int, list[Node]] = {}
        for node in self.nodes:
            nodes.setdefault(on[node.id], []).append(node)
        return {
            id: Branch(
                id=id,
                above=None if found[0].parent is None else on[found[0].parent],
                role=found[0].role,
                nodes=tuple(found),
            )
            for id, found in nodes.items()
        }


Advantages = Mapping[int, tuple[float, ...]]
"""Node id -> one advantage per token of that node."""


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Ask a policy for `n` continuations of `context` (token ids of the whole path).

    Each token is drawn, at the temperature, from the `top_k` likeliest ones, of these the fewest that hold
    `top_p` of the probability (arXiv 1904.09751), and of these the ones that are at least `min_p` times as
    likely as the likeliest (arXiv 2407.01082): in the order of `transformers`."""

    policy: str
    context: tuple[int, ...]
    n: int
    stops: tuple[str, ...]  # the continuation ends when it ends with one of these words
    max_tokens: int
    temperature: float = 1.0  # 0: greedy
    top_p: float = 1.0
    top_k: int = 0  # 0: all tokens
    min_p: float = 0.0  # share of the likeliest token's probability
    seed: int = 0  # the same seed gives the same tokens whatever else is in the batch
    # number of the step whose update learns from what is said, so that what is computed may be kept; or None
    update: int | None = None


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]  # under the policy at temperature 1 (nats)
    status: Status  # finished, truncated (max_tokens, or less where the context ends) or overlong (no tokens)
    version: int
    # under the distribution that was drawn from: at the request's temperature, of the tokens that it leaves
    drawn_logprobs: tuple[float, ...] = ()


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A node on its way into an update. Token t of a segment is predicted from everything before it on its
    path.

    `stream` None: context only. Otherwise the terms of the objective that read this stream run over its
    tokens, with one loss weight per token (0 masks it), and what their losses need: one `advantage` and one
    `old_logprob` a token for policy gradients.
    """

    parent: int  # index in the batch, or -1 for a root; parents precede children
    token_ids: tuple[int, ...]
    role: str | None = None
    stream: str | None = None  # sft: demonstrations; pg: rollouts; keep: to speak about as a reference does
    weight: tuple[float, ...] = ()
    advantage: tuple[float, ...] = ()
    old_logprobs: tuple[float, ...] = ()
    ref_logprobs: tuple[float, ...] = ()  # under a reference; losses that need them run where they are
    # the response of which this is a turn, by any number; -1: a response of its own
    sequence: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Segments that one policy trains on: a forest with shared prefixes stored once."""

    policy: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """weight / denominator x the sum, over the tokens of a stream, of their weight x their loss.

    The denominator is of the whole update (over all micro-batches), so that splitting a batch changes no
    gradient.
    """

    loss: str  # a row of learn.losses.LOSSES
    stream: str  # the segments that it reads
    denominator: float  # > 0
    weight: float = 1.0
    options: Mapping[str, float] = field(default_factory=dict)  # of the loss, where not its defaults
    reference: str = ""  # frozen policy whose distributions the loss compares with, where it needs them


@dataclass(frozen=True, slots=True)
class Objective:
    """What an update makes smaller: a sum of terms. The first is the stage's own; its tokens are those whose
    entropy is measured."""

    terms: tuple[Term, ...]

    @property
    def denominators(self) -> dict[str, float]:
        """Stream -> what it is divided by."""
        return {term.stream: term.denominator for term in self.terms}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenStats:
    """What a policy makes of given tokens: one number per token of a segment, in nats where it is a log."""

    logprobs: tuple[float, ...]
    entropies: tuple[float, ...]
    hits: tuple[bool, ...]
    # whether the token is the most likely one: all hits of a turn are greedy success, without decoding
    # reference -> KL(policy || reference), exact
    kl: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a gate, a schedule or a guard decided, with the numbers it read."""

    step: int
    stage: int
    kind: DecisionKind
    name: str
    # gate: pass | vacuous | warn | stop | roll_back; schedule: advance | ...; guard: refuse | stop |
    # trained nothing | ...; run: start | resume |
    # elsewhere | ...
    outcome: str
    reason: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What a run tells whoever watches it (the live display, plain lines, a test). Watching never changes a
    run."""

    kind: EventKind
    # start: the run's directory; stage: its name and what it trains (in values, of one that is resumed: its
    # newest evaluation, and that of its start as `eval_start/...`); busy: what takes its time now; note,
    # decision, end: a sentence
    text: str = ""
    step: int = 0  # of the whole run
    steps: int = 0  # of the whole run, if no stage ends early
    stage: int = 0  # index
    stages: int = 0
    stage_step: int = 0
    stage_steps: int = 0
    values: Mapping[str, float] = field(default_factory=dict)  # the log line of a step or an evaluation
    outcome: str = ""  # of a decision
    about: str = ""  # kind of a decision, as decisions.jsonl has it: gate, schedule, layout, guard, run
    roles: tuple[str, ...] = ()  # of the workflow, in order
