"""Keys and values that stay between calls: what is sampled is what would be sampled without them, whatever
happens to weights and memory in between, and what is known is not computed again."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
import torch
from tolerance import LOGP
from torch_kit import SIZE, engine_of, model_of, stir

from forethought.core.types import Request
from forethought.engines.torch.engine import TorchEngine
from forethought.engines.torch.forest.native import steps
from forethought.engines.torch.forest.native.library import library
from forethought.engines.torch.forest.native.steps import NativeSteps
from forethought.engines.torch.forest.native.tree import Tree
from forethought.engines.torch.forest.packing import forest_of
from forethought.engines.torch.forest.paths import MARK, Block, Kept, Paths
from forethought.engines.torch.machine import memory
from forethought.engines.torch.machine.memory import prefix_bytes
from forethought.engines.torch.sampling import mixed, prefill, sampler
from forethought.recipe.schema import OptimSpec

# heads of 16: the kernels; of 8: the written-out decoder by PyTorch; gpt2: its own modules; MLA: other values
KINDS = ("qwen3", "llama", "gpt2", "deepseek_v3")


def made(kind: str, **spec) -> TorchEngine:
    fields = {} if kind == "deepseek_v3" else {"max_position_embeddings": 512}
    return engine_of(model_of(kind, **fields), **spec)


def words(rng: random.Random, n: int) -> tuple[int, ...]:
    return tuple(rng.randrange(3, SIZE) for _ in range(n))


def asked(context: tuple[int, ...], seed: int, **fields) -> Request:
    return Request(
        **{"policy": "base", "context": context, "n": 1, "stops": (), "max_tokens": 5, "seed": seed} | fields
    )


def talk(engine, between=lambda turn: None, policies=("base",), tasks: int = 3, turns: int = 3) -> list:
    """Three tasks that begin alike, four episodes under each; every turn is answered with words of another
    length; one task's episodes end early. `between`: what happens after a turn."""
    rng = random.Random(0)
    shared, out = words(rng, 11), []
    lines = [(shared + words(rng, 13 + i), policies[i % len(policies)]) for i in range(tasks)]
    for turn in range(turns):
        found = engine.sample(
            [asked(c, 100 * turn + i, n=1 if turn else 4, policy=p) for i, (c, p) in enumerate(lines)]
        )
        out.append(found)
        lines = [
            (c + one.token_ids + words(rng, 4 + turn), p)
            for (c, p), row in zip(lines, found, strict=True)
            for one in row
        ]
        lines = lines[1:] if turn == 1 else lines
        between(turn)
    return out


def equal(engine, found: list, wanted: list) -> bool:
    """Bit for bit where the engine says that it is exact; else the same tokens, log-probs up to rounding."""
    pairs = [
        (a, b)
        for f, w in zip(found, wanted, strict=True)
        for r, s in zip(f, w, strict=True)
        for a, b in zip(r, s, strict=True)
    ]
    if engine.exact:
        return all(a == b for a, b in pairs)
    return all(
        a.token_ids == b.token_ids
        and a.version == b.version
        and max(abs(x - y) for x, y in zip(a.logprobs, b.logprobs, strict=True)) <= LOGP
        for a, b in pairs
    )


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


def test_episodes_say_what_they_say_without(kind):
    engine, plain = made(kind), made(kind, prefix_cache=0)
    assert engine.exact == (kind == "qwen3" and library() is not None)
    found = talk(engine)
    assert equal(engine, found, talk(plain))
    assert engine.paths.bytes > 0 == plain.paths.bytes
    assert equal(engine, talk(engine), found)  # all of it is known


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_of_the_kernels_change_nothing(threads):
    assert equal(
        made("qwen3"), talk(made("qwen3", kernel_threads=threads)), talk(made("qwen3", prefix_cache=0))
    )


def test_slots_say_what_they_say_without(monkeypatch):
    """The GPU's way, here on the CPU."""
    by_torch = sampler.by_torch
    for module in (sampler, mixed):
        monkeypatch.setattr(
            module, "by_torch", lambda *args, **fields: by_torch(*args, static=True, **fields)
        )
    engine = made("llama")
    assert equal(engine, talk(engine), talk(made("llama", prefix_cache=0)))
    assert engine.paths.bytes > 0


def test_weights_that_move_are_not_sampled_with_old_keys(kind):
    def moves(engine):
        def between(turn):
            if turn == 0:
                stir(engine, "base", turn)
            else:
                with torch.no_grad():  # nobody is told
                    next(iter(engine.weights.parameters("base").values())).mul_(1.5)

        return between

    engine, plain = made(kind), made(kind, prefix_cache=0)
    found, wanted = talk(engine, moves(engine)), talk(plain, moves(plain))
    assert equal(engine, found, wanted) and found != talk(made(kind))


def test_an_optimizer_step_is_noticed(kind):
    from test_torch_policies import OBJECTIVE, batch

    def step(engine):
        engine.prepare("base", OptimSpec(lr=0.1, warmup=0))

        def between(turn):
            engine.forward_backward(batch("base"), OBJECTIVE)
            engine.optim_step("base")

        return between

    engine, plain = made(kind), made(kind, prefix_cache=0)
    assert equal(engine, talk(engine, step(engine)), talk(plain, step(plain)))


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
@pytest.mark.parametrize("merged", [True, False])
def test_policies_have_paths_of_their_own(kind, merged, monkeypatch):
    if not merged:  # as on a base that is too large to be kept twice
        from forethought.engines.torch.policies import table

        monkeypatch.setattr(table, "MERGE_BELOW", 0)

    def adapted(**spec):
        engine = made(kind, **spec)
        for i, name in enumerate(("plan", "act")):
            engine.fork("base", name)
            stir(engine, name, i, 0.3)
        return engine

    def between(engine):
        return lambda turn: stir(engine, "act", 7, 0.3) if turn == 0 else None

    engine, plain = adapted(), adapted(prefix_cache=0)
    names = ("plan", "act", "base")
    found = talk(engine, between(engine), names)
    assert equal(engine, found, talk(plain, between(plain), names))
    same = [asked(words(random.Random(1), 30), 5, policy=name, max_tokens=9) for name in names]
    said = [engine.sample([one])[0][0].logprobs for one in same]  # one prompt, three policies
    assert len(set(said)) == 3
    engine.drop("act")
    assert {policy for policy in engine.paths._blocks.values()} <= {"plan", "base"}


@pytest.mark.parametrize("bound", [1, 7000, 30_000, 80_000])
def test_a_tiny_bound_changes_nothing_but_what_is_kept(kind, bound):
    engine = made(kind)
    engine.paths.bound = bound
    most = []
    assert equal(
        engine, talk(engine, lambda turn: most.append(engine.paths.bytes)), talk(made(kind, prefix_cache=0))
    )
    assert max(most) <= bound


def test_the_rollouts_end_and_nothing_stays(kind, tmp_path):
    engine = made(kind)
    talk(engine)
    engine.forget_paths()
    assert engine.paths.bytes == 0 and not engine.paths._kept
    talk(engine)
    engine.save(tmp_path / "saved")
    other = made(kind)
    other.load(tmp_path / "saved")  # what a resumed run has: nothing kept
    assert equal(engine, talk(other), talk(engine))


def test_loaded_weights_are_not_sampled_with_the_keys_of_others(kind, tmp_path):
    engine = made(kind)
    first = talk(engine)
    engine.save(tmp_path / "saved")
    stir(engine, "base", 3)
    assert talk(engine) != first
    engine.load(tmp_path / "saved")
    wanted = made(kind, prefix_cache=0)
    assert [[[c.token_ids for c in r] for r in f] for f in talk(engine)] == [
        [[c.token_ids for c in r] for r in f] for f in talk(wanted)
    ]


def test_training_has_the_memory(kind):
    from test_torch_policies import batch

    engine = made(kind)
    talk(engine)
    engine.logprobs(batch("base"))
    assert engine.paths.bytes == 0


# What is computed -------------------------------------------------------------------------------------------


def counted(monkeypatch, engine) -> list[int]:
    """Tokens of contexts that each call computes."""
    counts: list[int] = []
    if engine.exact:
        compute = NativeSteps._compute

        def native(self, jobs, logits):
            counts.append(sum(len(job.tokens) for job in jobs))
            compute(self, jobs, logits)

        monkeypatch.setattr(NativeSteps, "_compute", native)
        return counts
    by = prefill.by_decoding
    from forethought.engines.torch.sampling import cohorts

    def wrapped(decoding, adapter):
        forward = by(decoding, adapter)

        def run(packed, given, captured):
            counts.append(len(packed.ids_N) if given is None else len(given.new_M))
            return forward(packed, given, captured)

        return run

    monkeypatch.setattr(cohorts, "by_decoding", wrapped)
    return counts


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
def test_a_turn_costs_its_own_tokens(kind, monkeypatch):
    engine = made(kind)
    counts = counted(monkeypatch, engine)
    context, wanted = words(random.Random(0), 64), [64]
    for turn in range(4):
        (out,) = engine.sample([asked(context, turn, max_tokens=6)])
        context += out[0].token_ids + words(random.Random(turn), 10)
        # what was seen, and of what was said, the kernels' last token, which nobody has read
        wanted.append((1 if engine.exact else len(out[0].token_ids)) + 10)
    assert counts == wanted[:-1]


def test_an_episode_goes_on_where_it_stands(monkeypatch):
    """It is copied where its room is over, and what leaves it earlier, in another call, does not meet what it
    has said since."""
    engine, plain, copied, copy = made("qwen3"), made("qwen3", prefix_cache=0), [], Tree.copy
    monkeypatch.setattr(Tree, "copy", lambda tree, *args: copied.append(args[2]) or copy(tree, *args))
    context, lines = words(random.Random(0), 64), []
    for turn in range(8):
        lines.append(context)
        (out,) = engine.sample([asked(context, turn, max_tokens=6)])
        assert equal(engine, [[out]], [plain.sample([asked(context, turn, max_tokens=6)])])
        context += out[0].token_ids + words(random.Random(turn), 10)
    assert len(copied) == 2 and copied == sorted(copied)
    for turn, line in enumerate(lines[2:5]):
        others = [asked(line + words(random.Random(k), 5), 70 + turn, max_tokens=9) for k in range(2)]
        for one in [*others, asked(line, 90, n=2), asked(context, 80, max_tokens=6)]:
            assert equal(engine, [engine.sample([one])], [plain.sample([one])])
        assert equal(engine, [engine.sample(others)], [plain.sample(others)])


def test_rows_that_go_on_apart_say_the_same(monkeypatch):
    """Some of them to their end, then others, so that what they read stays in the cache."""
    wanted, groups = talk(made("qwen3", prefix_cache=0)), []
    together = NativeSteps._together

    def seen(self, part):
        self.weights.bytes = 0  # else these of a tiny model are more than its keys and values
        groups.append(together(self, part))
        return groups[-1]

    monkeypatch.setattr(NativeSteps, "_together", seen)
    for cache in (5_000, 20_000, 100_000):
        monkeypatch.setattr(steps, "CACHE", cache)
        assert equal(made("qwen3"), talk(made("qwen3")), wanted)
    assert min(map(len, groups)) == 1 and max(map(len, groups)) > 3
    assert all(a.stop == b.start for parts in groups for a, b in pairwise(parts))


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
def test_executions_after_plans_do_not_compute_the_prompt_again(kind, monkeypatch):
    engine = made(kind)
    counts = counted(monkeypatch, engine)
    prompts = [words(random.Random(i), 40) for i in range(2)]
    plans = engine.sample([asked(p, i, n=3) for i, p in enumerate(prompts)])
    contexts = [p + plan.token_ids for p, row in zip(prompts, plans, strict=True) for plan in row]
    engine.sample([asked(c, i, n=2) for i, c in enumerate(contexts)])
    said = [{p.token_ids[:k] for p in row for k in range(1, len(p.token_ids) + 1)} for row in plans]
    assert counts == [80, sum(map(len, said))]  # the plans, less what siblings have in common


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
def test_what_prompts_of_other_tasks_begin_with_is_read_once(kind, monkeypatch):
    """In one call and in the next one, whatever is asked of each."""
    engine = made(kind)
    counts, rules = counted(monkeypatch, engine), words(random.Random(0), 40)
    contexts = [(*rules, 3 + i, *words(random.Random(i), 5 + i)) for i in range(8)]
    engine.sample([asked(c, i, n=1 + i % 2) for i, c in enumerate(contexts[:4])])
    assert sum(counts) == sum(len(s.token_ids) for s in forest_of(contexts[:4])[0]) < 100
    counts.clear()
    engine.sample([asked(c, i) for i, c in enumerate(contexts[4:])])
    assert sum(counts) == sum(len(s.token_ids) for s in forest_of(contexts[4:])[0]) - len(rules)


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
def test_adapters_that_add_nothing_yet_read_a_prompt_once(kind, monkeypatch):
    """They speak with the weights of the base, until they have trained; by then nobody else does."""
    engine, prompt = made(kind), words(random.Random(0), 40)
    for policy in ("plan", "act"):
        engine.fork("base", policy)
    counts = counted(monkeypatch, engine)
    say = lambda policy: engine.sample([asked(prompt, 1, policy=policy)])[0][0]  # noqa: E731
    plan, act = say("plan"), say("act")
    assert counts == [40, 1] and plan.token_ids == act.token_ids
    assert not engine.weights.merged
    stir(engine, "plan", scale=1.0)
    moved = say("plan")
    assert (moved.version, act.version) == (1, 0) and moved.logprobs != plan.logprobs
    assert equal(engine, [[[say("act")]]], [[[act]]]) and counts == [40, 1, 40, 1]
    stir(engine, "act")
    say("act")
    assert engine.kernel_weights._seen.keys() == {"plan", "act"}


# Paths by hand ----------------------------------------------------------------------------------------------


def block(bytes_: int, *needs: Block) -> Block:
    return Block(None, bytes_, needs={*needs})


def test_the_longest_beginning_is_found_under_the_same_cuts():
    paths, own = Paths(100), block(10)
    tokens = tuple(range(3 * MARK + 2))
    paths.put("base", own, [((0,), Kept(tokens, 0, "a", own))])
    assert paths.find("base", (0,), tokens + (7,))[1] == len(tokens)
    assert paths.find("base", (0,), tokens[: MARK + 3] + (99,))[1] == MARK + 3
    assert paths.find("base", (0,), tokens[: MARK - 1]) is None
    assert paths.find("base", (0, 4), tokens) is None and paths.find("act", (0,), tokens) is None
    paths.drop("act")
    assert paths.bytes == 10
    paths.drop("base")
    assert paths.bytes == 0 and paths.find("base", (0,), tokens) is None


def test_what_was_read_longest_ago_goes_first_and_never_before_what_stands_below_it():
    paths = Paths(30)
    lines = [tuple(range(i, i + MARK)) for i in (0, 100, 200, 300)]
    first, second = block(10), block(10)
    root = Kept(lines[0], 0, 0, first)
    paths.put("base", first, [((), root)])
    paths.put("base", second, [((), Kept(lines[1], 0, 0, second))])
    below = block(10, first)
    child = lines[0] + lines[2]
    paths.put("base", below, [((), Kept(child, MARK, 0, below, root))])
    assert paths.find("base", (), child)[1] == 2 * MARK
    last = block(10)
    paths.put("base", last, [((), Kept(lines[3], 0, 0, last))])
    assert paths.bytes == 30 and paths.find("base", (), lines[1]) is None  # read before the other two
    assert paths.find("base", (), child)[0].above is root and paths.find("base", (), lines[0])[1] == MARK
    large = block(31)
    paths.put("base", large, [((), Kept(lines[1], 0, 0, large))])
    assert paths.bytes == 30 and paths.find("base", (), lines[1]) is None


def test_a_block_goes_when_all_of_its_paths_stand_in_newer_ones():
    paths, old, new, newer = Paths(100), block(10), block(20), block(20)
    lines = [tuple(range(i, i + MARK)) for i in (0, 100)]
    kept = [Kept(line, 0, 0, old) for line in lines]
    paths.put("base", old, [((), one) for one in kept])
    paths.put("base", new, [((), Kept(lines[0] + (7,), 0, 1, new))], kept[:1])
    assert paths.bytes == 30 and paths.find("base", (), lines[0])[0].held == 1
    paths.put("base", newer, [((), Kept(lines[1] + (7,), 0, 2, newer))], kept[1:])
    assert paths.bytes == 40 and paths.find("base", (), lines[1])[0].held == 2


@pytest.mark.skipif(library() is None, reason="no kernels here")
def test_an_episode_is_kept_once_however_many_turns_it_has():
    engine, context, sizes = made("qwen3"), words(random.Random(0), 32), []
    for turn in range(4):
        (out,) = engine.sample([asked(context, turn, max_tokens=16)])
        context += out[0].token_ids + words(random.Random(turn), 16)
        sizes.append(len(engine.paths._blocks))
    assert sizes == [1] * 4


def test_auto_is_a_share_of_the_machine_s_memory():
    assert prefix_bytes(3, torch.device("cpu")) == 3 << 20 and prefix_bytes(0, torch.device("cpu")) == 0
    assert 1 << 26 < prefix_bytes("auto", torch.device("cpu")) < 1 << 40


def test_a_container_has_less_than_its_machine(monkeypatch):
    monkeypatch.setattr(memory, "allowed", lambda: 1 << 28)
    assert prefix_bytes("auto", torch.device("cpu")) == 1 << 24
    assert memory.activation_bytes(torch.device("cpu")) == 1 << 26
