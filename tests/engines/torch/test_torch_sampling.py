"""Sampling: a row's tokens are its request's own affair, its log-probs are the model's, and it ends where the
words say."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace

import pytest
import torch
from tolerance import LOGP, rounding
from torch_kit import SIZE, WORDS, bpe_of, engine_of, model_of, plain_logits, stir

from forethought.core.errors import UserError
from forethought.core.seeds import seed_of
from forethought.core.types import Batch, Request, Segment
from forethought.core.waiting import hearing
from forethought.engines.torch.engine import TorchEngine
from forethought.engines.torch.models.small import tokenizer_of
from forethought.engines.torch.sampling.cohorts import Cohorts
from forethought.engines.torch.sampling.sampler import Sampler
from forethought.engines.torch.sampling.stops import Stops
from forethought.recipe.schema import TreeSpec
from forethought.tasks.desk.taskset import Desk
from forethought.workflows.rollout import Rollouts


def ask(context, seed=0, n=2, policy="base", stops=(), max_tokens=8, **fields) -> Request:
    return Request(
        policy=policy,
        context=tuple(context),
        n=n,
        stops=tuple(stops),
        max_tokens=max_tokens,
        seed=seed,
        **fields,
    )


def sharp(kind: str = "llama", **fields) -> TorchEngine:
    """A model with opinions, so that rows differ for reasons."""
    return engine_of(model_of(kind, initializer_range=0.3, **fields))


def tokens(outs) -> list[tuple[int, ...]]:
    return [out.token_ids for out in outs]


def test_who_waits_hears_how_many_tokens_are_done():
    """2 rows of at most 5 tokens and one of 12: what a row that has ended did not use is done too."""
    told: list[tuple[int, int]] = []
    with hearing(lambda done, of: told.append((done, of))):
        sharp().sample([ask((3, 4), max_tokens=5), ask((3, 4), n=1, max_tokens=12)])
    assert {of for _, of in told} == {22} and told[-1][0] == 22
    assert told == sorted(told) and told[0][0] < 22


# One row and the others -------------------------------------------------------------------------------------

MIXED = [
    ask((3, 4, 5), seed=1, n=3),
    ask((3, 4, 5), seed=2, n=3, max_tokens=3),
    ask((3, 4, 5, 6, 7, 8, 9, 10), seed=3, n=3, temperature=0.7),
    ask((9,), seed=4, n=3, stops=("w1", "w2", "w3", "w4", "w5", "w6")),
    ask((3, 4, 5), seed=1, n=5, top_p=0.8),
    ask((3, 4), seed=6, n=1, temperature=0.0, max_tokens=20),
    ask((3, 4, 5, 6), seed=7, n=1, max_tokens=12),
    ask((20, 4, 5, 6), seed=7, n=3, policy="plan"),
    ask((3, 4, 5), seed=1, n=3, policy="plan", max_tokens=2),
]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3_moe"])
def test_a_request_gets_the_same_tokens_whatever_else_is_asked(kind):
    """Alone, among others, in another order, with room for few rows at once, after others have finished and
    left."""
    engine = sharp(kind)
    engine.fork("base", "plan")
    stir(engine, "plan")
    alone = [engine.sample([r])[0] for r in MIXED]
    every = list(range(len(MIXED)))
    for rows, order in [
        (1024, every),
        (1024, every[::-1]),
        (6, [4, 0, 8, 2, 6, 1, 7, 3, 5]),
        (1, [0, 0, 3, 1, 1]),
    ]:
        engine.rows.now = rows
        for i, outs in zip(order, engine.sample([MIXED[i] for i in order]), strict=True):
            assert tokens(outs) == tokens(alone[i])
            assert [o.status for o in outs] == [o.status for o in alone[i]]
            for out, other in zip(outs, alone[i], strict=True):
                assert out.logprobs == pytest.approx(other.logprobs, abs=LOGP)
    assert len({t for outs in alone for t in tokens(outs)}) > 15  # they do differ


def test_rows_of_a_request_and_seeds_differ_but_room_does_not():
    engine = sharp()
    (short,), (long,) = (
        engine.sample([ask((3, 4), seed=5, n=6, max_tokens=3)]),
        engine.sample([ask((3, 4), seed=5, n=6, max_tokens=9)]),
    )
    assert [t[:3] for t in tokens(long)] == tokens(short)
    assert len(set(tokens(long))) == 6
    (other,) = engine.sample([ask((3, 4), seed=6, n=6, max_tokens=9)])
    assert not set(tokens(long)) & set(tokens(other))


def test_finished_contexts_leave_and_the_rest_go_on_unmoved():
    """Compaction is seen to happen (fewer rows reach the model), several times, and changes no token."""
    engine = sharp()
    requests = [ask((3 + i, 4), seed=i, n=2, max_tokens=2 + 2 * i) for i in range(6)]
    rows = []
    hook = engine.weights.base.model.embed_tokens.register_forward_pre_hook(
        lambda _, x: rows.append(x[0].numel())
    )
    together = engine.sample(requests)
    hook.remove()
    assert rows[0] == sum(len(r.context) for r in requests) and rows[1:] == sorted(rows[1:], reverse=True)
    assert set(rows[1:]) >= {12, 2} and len(set(rows[1:])) >= 3
    for r, outs in zip(requests, together, strict=True):
        assert tokens(outs) == tokens(engine.sample([r])[0])
        assert all(len(o.token_ids) == r.max_tokens or o.status == "finished" for o in outs)


def test_rows_that_are_done_never_run_out_of_the_models_positions():
    """Learned positions end at the context's: a full context beside a short one with much room."""
    engine = sharp("gpt2", max_position_embeddings=24)
    full, short = ask([3 + i % 9 for i in range(22)], n=2, max_tokens=2), ask((3, 4), n=2, max_tokens=22)
    third = ask((5, 6), seed=3, n=2, max_tokens=22)
    fourth = ask((5, 7), seed=4, n=2, max_tokens=22)
    together = engine.sample([full, short, third, fourth])
    assert [tokens(x) for x in together] == [
        tokens(engine.sample([r])[0]) for r in (full, short, third, fourth)
    ]


# Trees ------------------------------------------------------------------------------------------------------


def test_executions_on_a_tree_are_those_of_unrolled_rows():
    """Plans of one task, then three executions of each: the shared forward gives what one row after the other
    gives."""
    engine = sharp("qwen2")
    root = (3, 4, 5, 6)
    (plans,) = engine.sample([ask(root, seed=1, n=4, max_tokens=5)])
    requests = [ask(root + p.token_ids, seed=10 + i, n=3, max_tokens=6) for i, p in enumerate(plans)]
    seen = []
    hook = engine.weights.base.model.embed_tokens.register_forward_pre_hook(
        lambda _, x: seen.append(x[0].numel())
    )
    tree = engine.sample(requests)
    assert seen[0] < sum(len(r.context) for r in requests)  # the root was computed once
    hook.remove()
    for request, outs in zip(requests, tree, strict=True):
        assert tokens(outs) == tokens(engine.sample([request])[0])
        for out in outs:
            logits = plain_logits(engine.weights.base, request.context + out.token_ids)
            logp = logits.log_softmax(-1)[len(request.context) - 1 : -1].gather(
                -1, torch.tensor(out.token_ids)[:, None]
            )[:, 0]
            assert out.logprobs == pytest.approx(logp.tolist(), abs=LOGP)


def test_a_grown_tree_is_what_its_requests_give_one_by_one():
    """`Rollouts` asks for all tasks at once, on screens that tasks share; every node is its own request's
    answer."""
    taskset = Desk(levels=(1, 2), widgets=4)
    words = taskset.vocabulary()
    engine = engine_of(
        model_of("llama", vocab_size=len(words) + 3, initializer_range=0.3), tokenizer_of(words)
    )
    tasks = taskset.family(random.Random(0), [1, 2, 2], "train") + taskset.family(
        random.Random(1), [2], "train"
    )
    rollouts, voices = Rollouts(engine, taskset), {"plan": "base", "act": "base"}
    plans = rollouts.grow(tasks, TreeSpec(counts={"plan": 3, "act": 0}), voices, 7)
    acts = rollouts.grow(tasks, TreeSpec(counts={"act": 2}, oracle=("plan",)), voices, 7)
    assert len({node.token_ids for tree in [*plans, *acts] for node in tree.nodes if node.policy}) > 15
    for i, tree in enumerate(plans):
        root, *said = tree.nodes
        alone = ask(
            root.token_ids,
            seed_of(seed_of(7, i), "plan"),
            n=3,
            stops=("</plan>",),
            max_tokens=taskset.budgets["plan"],
        )
        assert tokens(engine.sample([alone])[0]) == [node.token_ids for node in said]
    for i, tree in enumerate(acts):
        root, plan, *said = tree.nodes
        alone = ask(
            root.token_ids + plan.token_ids,
            seed_of(seed_of(7, i), "act", plan.id, 0),
            n=2,
            stops=("</act>",),
            max_tokens=taskset.budgets["act"],
        )
        assert tokens(engine.sample([alone])[0]) == [node.token_ids for node in said]


def test_in_bf16_sampler_trainer_and_full_precision_stay_close():
    """Autocast rounds, and differently in steps of one token than in a forest; it must not do more than
    round."""
    engine, rounded = sharp("qwen2"), engine_of(model_of("qwen2", initializer_range=0.3), precision="bf16")
    assert rounded.machine.bf16 and not engine.machine.bf16
    for e in (engine, rounded):
        e.fork("base", "plan")
        stir(e, "plan")
    (outs,) = rounded.sample([ask((3, 4, 5, 6), n=8, policy="plan")])
    segments = (
        Segment(parent=-1, token_ids=(3, 4, 5, 6)),
        *(Segment(parent=0, token_ids=o.token_ids, stream="sft") for o in outs),
    )
    batch = Batch(policy="plan", segments=segments)
    trainer, exact = rounded.logprobs(batch)[1:], engine.logprobs(batch)[1:]
    for other in (trainer, exact):
        gaps = [
            abs(a - b)
            for out, logps in zip(outs, other, strict=True)
            for a, b in zip(out.logprobs, logps, strict=True)
        ]
        assert 0 < sum(gaps) / len(gaps) < 0.05 and max(gaps) < 0.5


# What is drawn ----------------------------------------------------------------------------------------------


def test_greedy_is_the_argmax_and_its_log_prob_is_at_temperature_1():
    engine = sharp()
    (outs,) = engine.sample([ask((3, 4, 5), n=2, temperature=0.0, max_tokens=6)])
    ids = [3, 4, 5]
    for token, logp in zip(outs[0].token_ids, outs[0].logprobs, strict=True):
        row = plain_logits(engine.weights.base, ids)[-1].log_softmax(-1)
        assert token == row.argmax().item() and logp == pytest.approx(row.max().item(), abs=LOGP)
        ids.append(token)
    assert tokens(outs)[0] == tokens(outs)[1]


def known(p: list[float], n: int, **fields) -> tuple[list[int], list[float]]:
    """Tokens and log-probs of `n` draws from a model that always says `p`, two tokens each."""
    logits = torch.tensor(p).clamp(min=1e-30).log()
    sampler = Sampler(
        Cohorts(
            lambda input_ids, **_: SimpleNamespace(last_hidden_state=torch.zeros(*input_ids.shape, 1)),
            lambda hidden: logits.expand(*hidden.shape[:-1], -1),
            torch.device("cpu"),
        ),
        set(),
    )
    (outs,) = sampler.run([ask((0,), seed=11, n=n, max_tokens=2, **fields)], [Stops(None, ())], 0)
    return [t for o in outs for t in o.token_ids], [x for o in outs for x in o.logprobs]


P = [0.4, 0.25, 0.2, 0.1, 0.05, 0.0]


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, P),
        ({"temperature": 0.5}, [p**2 / 0.275 for p in P]),
        ({"temperature": 2.0}, [math.sqrt(p) / sum(map(math.sqrt, P)) for p in P]),
        # 0.4 alone is short of 0.6: the token that crosses it stays
        ({"top_p": 0.6}, [0.4 / 0.65, 0.25 / 0.65, 0, 0, 0, 0]),
        ({"top_p": 0.8}, [0.4 / 0.85, 0.25 / 0.85, 0.2 / 0.85, 0, 0, 0]),
        ({"top_p": 0.1}, [1, 0, 0, 0, 0, 0]),
        # the nucleus of the sharpened: 0.58 + 0.23
        ({"temperature": 0.5, "top_p": 0.7}, [0.16 / 0.2225, 0.0625 / 0.2225, 0, 0, 0, 0]),
        ({"top_k": 2}, [0.4 / 0.65, 0.25 / 0.65, 0, 0, 0, 0]),
        ({"min_p": 0.49}, [0.4 / 0.85, 0.25 / 0.85, 0.2 / 0.85, 0, 0, 0]),
    ],
)
def test_frequencies_are_those_of_the_distribution_that_was_asked_for(fields, wanted):
    n = 20_000
    drawn, logps = known(P, n // 2, **fields)
    counts = [drawn.count(i) for i in range(len(P))]
    chi2 = sum((c - n * w) ** 2 / (n * w) for c, w in zip(counts, wanted, strict=True) if w)
    assert chi2 < 18.5  # 0.1 % of a chi-square with 4 degrees of freedom; the seed is fixed
    assert all(c == 0 for c, w in zip(counts, wanted, strict=True) if w == 0)
    # recorded at temperature 1, whatever the drawing
    for token, logp in zip(drawn[:50], logps[:50], strict=True):
        assert logp == pytest.approx(math.log(P[token]), abs=rounding([math.log(P[token])], steps=16))


def test_first_and_second_tokens_and_neighbouring_rows_are_independent():
    drawn, _ = known([0.5, 0.5], 10_000)
    pairs = list(zip(drawn[::2], drawn[1::2], strict=True))
    for lag in (pairs, list(zip(drawn[:-2:2], drawn[2::2], strict=True))):
        share = sum(a == b for a, b in lag) / len(lag)
        assert abs(share - 0.5) < 0.02


def test_a_policy_that_has_diverged_is_named():
    engine = engine_of()
    engine.fork("base", "plan")
    stir(engine, "plan")
    with torch.no_grad():
        next(iter(engine.weights.parameters("plan").values()))[0] = math.nan
    engine.publish("plan")
    with pytest.raises(UserError, match="policy 'plan' gives logits that are not finite"):
        engine.sample([ask((3, 4), policy="plan")])
    assert engine.sample([ask((3, 4))])[0][0].token_ids  # the base is as it was


# Where it ends ----------------------------------------------------------------------------------------------


class Says:
    """A tokenizer's text, spoken token by token: the sampler's model for tests of endings."""

    def __init__(self, ids: list[int], size: int, eos: set[int] = frozenset()):
        self.ids, self.size, self.eos = ids, size, eos
        self.at = 0

    def head(self, hidden):
        logits = torch.full((*hidden.shape[:-1], self.size), -1e4)
        logits[..., self.ids[min(self.at, len(self.ids) - 1)]] = 0.0
        self.at += 1
        return logits

    def wave(self, stops: Stops, max_tokens: int):
        inner = lambda input_ids, **_: SimpleNamespace(last_hidden_state=torch.zeros(*input_ids.shape, 1))  # noqa: E731
        sampler = Sampler(Cohorts(inner, self.head, torch.device("cpu")), set(self.eos))
        return sampler.run([ask((0,), n=1, max_tokens=max_tokens)], [stops], 0)[0][0]


TEXTS = [
    "open the door </plan> then click x3 y4 </act> and a plan of planning is a </plan> again " * 3,
    "GOAL <plan> stop nonstop END BEND",
]


def subword(**fields):
    return bpe_of(TEXTS, **fields)


@pytest.mark.parametrize("size", [262, 280, 400], ids=lambda n: f"{n} tokens")
@pytest.mark.parametrize(
    "spoken",
    [" open the door </plan>", " </plan>", " a </plan> then", "</plan>", " plan </ plan> of </plan> x"],
)
def test_a_stop_ends_the_text_however_many_tokens_it_takes(size, spoken):
    """Bytes alone, some merges, whole words: the text up to and including the stop, and not a token more."""
    tokenizer = subword(size=size)
    ids = tokenizer.encode(spoken + " and a plan", add_special_tokens=False)
    out = Says(ids, len(tokenizer)).wave(Stops(tokenizer, ("</plan>",)), len(ids))
    assert out.status == "finished"
    assert tokenizer.decode(out.token_ids) == spoken[: spoken.index("</plan>") + len("</plan>")]


def test_a_tag_ends_the_text_wherever_it_stands():
    """A language model writes no space before it, and a tokenizer may join its last letter with the next
    tag's first."""
    tokenizer = bpe_of(["</plan><think>"] * 50 + TEXTS, size=270)
    ids = tokenizer.encode(" a plan.</plan> and", add_special_tokens=False)
    out = Says(ids, len(tokenizer)).wave(Stops(tokenizer, ("</plan>",)), len(ids))
    assert out.status == "finished" and tokenizer.decode(out.token_ids) == " a plan.</plan>"
    joined = tokenizer.convert_tokens_to_ids("><")
    assert joined != tokenizer.unk_token_id
    ids = [*tokenizer.encode("x</plan"), joined, *tokenizer.encode("think> and so on")]
    out = Says(ids, len(tokenizer)).wave(Stops(tokenizer, ("</plan>",)), len(ids))
    assert out.status == "finished" and tokenizer.decode(out.token_ids) == "x</plan><"


def test_a_stop_is_a_word_and_not_the_end_of_another():
    tokenizer = subword(size=262)
    for text in (" BEND", " nonstop"):
        ids = tokenizer.encode(text + " a", add_special_tokens=False)
        assert (
            Says(ids, len(tokenizer)).wave(Stops(tokenizer, ("END", "stop", "</plan>")), len(ids)).status
            == "truncated"
        )
    assert (
        Says(tokenizer.encode(" BEND END"), len(tokenizer)).wave(Stops(tokenizer, ("END",)), 20).status
        == "finished"
    )


def test_a_stop_in_one_token_is_found_with_and_without_the_space_before_it():
    """GPT-2's trap: `again` and ` again` are different tokens, and models write the second."""
    tokenizer = subword(size=600)
    (spaced,) = tokenizer.encode(" again", add_special_tokens=False)
    bare = tokenizer.encode("again", add_special_tokens=False)
    assert [spaced] != bare
    stops = Stops(tokenizer, ("again",))
    assert stops.ids == {spaced} and stops.texts == ["again"]
    other = tokenizer.encode(" open", add_special_tokens=False)
    for ids in ([*other, spaced], [*other, *tokenizer.encode(" "), *bare], bare):
        out = Says([*ids, *other], len(tokenizer)).wave(stops, 20)
        assert out.status == "finished" and out.token_ids == tuple(ids)


def test_a_stop_that_is_a_special_token_needs_no_decoding():
    tokenizer = bpe_of(TEXTS, special=("<pad>", "<eos>", "</plan>"))
    (stop,) = tokenizer.encode("</plan>", add_special_tokens=False)
    assert stop in Stops(tokenizer, ("</plan>",)).ids
    ids = [*tokenizer.encode(" the door"), stop, 5, 5]
    assert Says(ids, len(tokenizer)).wave(Stops(tokenizer, ("</plan>",)), 30).token_ids == tuple(ids[:-2])


def test_word_level_stops_never_decode():
    engine = engine_of()
    stops = Stops(engine.tokenizer, ("w1", "w7"))
    assert stops.texts == [] and stops.ids == set(engine.encode("w1 w7"))
    stops.tokenizer = None
    assert not stops.found([3, 4])


@pytest.mark.parametrize("stop", ["日本", "été", "🙂"])
def test_letters_of_several_tokens_end_too(stop):
    tokenizer = subword(size=262)
    ids = tokenizer.encode(f" a {stop} b", add_special_tokens=False)
    out = Says(ids, len(tokenizer)).wave(Stops(tokenizer, (stop,)), len(ids))
    assert out.status == "finished" and tokenizer.decode(out.token_ids) == f" a {stop}"


def test_long_stops_are_seen_whole():
    stop = "<END-OF-THE-PLAN-OF-THIS-VERY-TASK>"
    tokenizer = subword(size=262)
    assert len(tokenizer.encode(stop)) > 30
    ids = tokenizer.encode(f" a {stop} b", add_special_tokens=False)
    assert Says(ids, len(tokenizer)).wave(Stops(tokenizer, (stop,)), len(ids)).token_ids == tuple(ids[:-2])


def test_budgets_and_ends():
    """truncated at max_tokens; finished where the stop is the last token of the budget; finished at eos, with
    or without stops."""
    engine = sharp()
    words = engine.encode("w1 w2 w3 w4")
    stops = Stops(engine.tokenizer, ("w3",))
    cases = [
        (2, set(), "truncated", 2),
        (3, set(), "finished", 3),
        (4, set(), "finished", 3),
        (4, {words[1]}, "finished", 2),
        (2, {words[1]}, "finished", 2),
    ]
    for most, eos, status, length in cases:
        out = Says(list(words), SIZE, eos).wave(stops, most)
        assert (out.status, out.token_ids) == (status, words[:length])
        assert len(out.logprobs) == length


def test_the_tokenizers_eos_and_the_models_both_end():
    model = model_of()
    model.generation_config.eos_token_id = [5, 7]
    assert engine_of(model).ends == {1, 5, 7}
    model.generation_config.eos_token_id = None
    assert engine_of(model).ends == {1}
    model.generation_config.eos_token_id = 2
    assert engine_of(model).ends == {1, 2}


def test_what_does_not_fit_the_context_is_cut_or_overlong():
    engine = engine_of(model_of(max_position_embeddings=16))
    assert len(engine.sample([ask([3] * 12, max_tokens=4)])[0]) == 2
    short, cut, full, beyond = engine.sample(
        [ask((3, 4)), ask([3] * 13, seed=5, max_tokens=8), ask([3] * 16), ask([3] * 17, n=3)]
    )
    assert tokens(cut) == tokens(engine.sample([ask([3] * 13, seed=5, max_tokens=3)])[0]) and {
        o.status for o in cut
    } == {"truncated"}
    assert tokens(short) == tokens(engine.sample([ask((3, 4))])[0])
    assert [(o.token_ids, o.logprobs, o.status) for o in full + beyond] == [((), (), "overlong")] * 5
    with pytest.raises(UserError, match="a prompt of 0 tokens cannot be continued"):
        engine.sample([ask((3, 4)), ask([], max_tokens=4)])


def test_an_answer_carries_the_version_it_was_sampled_with():
    engine = engine_of()
    engine.fork("base", "plan")
    assert engine.sample([ask((3,), policy="plan")])[0][0].version == 0
    engine.publish("plan")
    engine.publish("plan")
    assert engine.sample([ask((3,), policy="plan"), ask((3,))])[0][0].version == 2
    assert engine.sample([ask((3,))])[0][0].version == 0


def test_an_unknown_policy_is_named():
    with pytest.raises(KeyError, match="no policy 'plan'; there are"):
        engine_of().sample([ask((3,), policy="plan")])


def test_the_words_of_the_kit_are_one_token_each():
    assert all(len(engine_of().encode(w)) == 1 for w in WORDS[:3])
