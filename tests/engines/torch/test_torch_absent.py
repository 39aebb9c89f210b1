"""Drawn words are said only where they stand: sampler, losses, divergences and files agree about it."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from torch_kit import SIZE, engine_of, model_of, on_disk, path_to, plain_logits, stir

from forethought.core.errors import RecipeError, UserError
from forethought.core.metrics import reduce
from forethought.core.types import Batch, Objective, Request, Segment
from forethought.engines.torch.forest.absent import KEY, DrawnWords, drawn_of
from forethought.engines.torch.loss import objectives
from forethought.engines.torch.models.loading import from_path, load
from forethought.learn.losses import term
from forethought.recipe.load import load as recipe_at
from forethought.recipe.schema import ModelSpec, OptimSpec
from forethought.runs.run import torch_engine
from forethought.tasks import families

DRAWN = [5, 6, 7, 8, 20, 21, 22]
CONTEXT = (3, 6, 9, 21, 6, 4)  # of the drawn words 6 and 21 stand here
ABSENT = [5, 7, 8, 20, 22]


def engine(drawn=DRAWN, policy: str = "base", kind: str = "adapter", **spec):
    model = model_of("llama", head_dim=16, max_position_embeddings=128)
    if drawn:
        setattr(model.config, KEY, drawn)
    made = engine_of(model, **{"sampling": "c"} | spec)
    if policy != "base":
        made.fork("base", policy, kind)
    made.prepare(policy, OptimSpec(lr=1e-3, warmup=0))
    stir(made, policy)
    return made


def asked(policy: str, n: int = 40, **fields) -> Request:
    own = {"policy": policy, "context": CONTEXT, "n": n, "max_tokens": 8, "stops": ("w28",), "seed": 3}
    return Request(**own | fields)


def rollouts(e, policy: str, stream: str = "pg", update: int | None = None) -> Batch:
    """Completions of two contexts, of which the second stands below what was said after the first."""
    rng = random.Random(0)
    segments = [Segment(parent=-1, token_ids=CONTEXT)]

    def add(parent: int, said) -> int:
        n = len(said.token_ids)
        own = {"stream": stream, "role": "plan", "weight": (1.0,) * n, "old_logprobs": said.logprobs}
        own["advantage"] = tuple(rng.uniform(-1, 1) for _ in range(n))
        segments.append(Segment(parent=parent, token_ids=said.token_ids, **own))
        return len(segments) - 1

    [plans] = e.sample([asked(policy, 3, update=update)])
    at = [add(0, said) for said in plans][0]
    heard = (20, 10)
    segments.append(Segment(parent=at, token_ids=heard))
    below = CONTEXT + plans[0].token_ids + heard
    [acts] = e.sample([asked(policy, 2, context=below, update=update)])
    parent = len(segments) - 1
    for said in acts:
        add(parent, said)
    return Batch(policy=policy, segments=tuple(segments))


def test_what_stands_on_the_path_can_be_said_by_hand():
    words = DrawnWords(DRAWN)
    segments = [
        Segment(parent=-1, token_ids=(3, 6)),
        Segment(parent=0, token_ids=(9, 21), stream="sft"),  # a demonstration says a word that stands nowhere
        Segment(parent=0, token_ids=(6, 4), stream="sft"),
        Segment(parent=1, token_ids=(5, 21, 9), stream="sft"),
    ]
    absent_NS = words.absent(segments, [(1, 0, 2), (2, 2, 2), (3, 4, 3)]).tolist()
    there = [[w for w, no in zip(DRAWN, row, strict=True) if not no] for row in absent_NS]
    assert there == [[6], [6, 21], [6], [6], [5, 6, 21], [5, 6, 21], [5, 6, 21]]


def test_neighbours_and_single_words_are_hidden_alike():
    logits = torch.zeros(2, SIZE)
    absent = torch.tensor([[True, False] * 3 + [True], [False] * 7])
    DrawnWords(DRAWN).hide(logits, absent)
    assert [i for i in range(SIZE) if logits[0, i] < 0] == [5, 7, 20, 22] and not logits[1].any()


SAID = [{"temperature": 1.0}, {"temperature": 3.0}, {"temperature": 0.0}, {"top_k": 20, "min_p": 1e-3}]


@pytest.mark.parametrize("stops", [("w28",), ("w28 w27",)])  # rows in one call, and token by token
@pytest.mark.parametrize("sampling", ["c", "torch"])
@pytest.mark.parametrize(("policy", "kind"), [("base", ""), ("plan", "adapter"), ("plan", "model")])
def test_nothing_absent_is_said_and_log_probs_are_those_of_training(policy, kind, sampling, stops):
    e = engine(policy=policy, kind=kind, sampling=sampling)
    requests = [asked(policy, 16, stops=stops, **more) for more in SAID]
    requests += [asked(policy, 4, context=(3, 4, 9), stops=stops), asked(policy, 1, stops=stops)]
    for request, found in zip(requests, e.sample(requests), strict=True):
        standing = set(DRAWN) & set(request.context)
        assert all(set(one.token_ids) & set(DRAWN) <= standing for one in found)
        segments = [Segment(parent=-1, token_ids=request.context)]
        segments += [Segment(parent=0, token_ids=one.token_ids, stream="pg") for one in found]
        trained = e.logprobs(Batch(policy=policy, segments=tuple(segments)))[1:]
        for one, logprobs in zip(found, trained, strict=True):
            assert one.logprobs == pytest.approx(logprobs, abs=2e-5)


def test_without_the_words_they_are_said():
    """What the tests above would find if nothing were hidden."""
    found = engine(drawn=None).sample([asked("base")])[0]
    assert {token for one in found for token in one.token_ids} & set(ABSENT)


def test_the_probability_is_that_among_the_words_that_stand():
    e = engine()
    logits = plain_logits(e.weights.base, CONTEXT)[-1]
    logits[ABSENT] = -torch.inf
    wanted = logits.log_softmax(-1)
    others = [i for i in range(SIZE) if i not in ABSENT]
    segments = [Segment(parent=-1, token_ids=CONTEXT)]
    segments += [Segment(parent=0, token_ids=(i,), stream="pg") for i in others]
    batch = Batch(policy="base", segments=tuple(segments))
    found = [one for (one,) in e.logprobs(batch)[1:]]
    assert found == pytest.approx(wanted[others].tolist(), abs=2e-5)
    assert np.exp(found).sum() == pytest.approx(1, abs=1e-5)
    p = wanted.exp()
    entropy = -(p * wanted.clamp(min=-1e4)).sum().item()
    for stats in e.inspect(batch)[1:]:
        assert stats.entropies == pytest.approx([entropy], abs=2e-5)


TERMS = {"pg": term("grpo", 1.0), "sft": term("sft", 1.0), "keep": term("kl", 1.0, reference="before")}


@pytest.mark.parametrize("rows", [0, 3])  # all at once, and chunks of three tokens
@pytest.mark.parametrize("stream", ["pg", "sft", "keep"])
def test_no_gradient_reaches_what_is_absent(stream, rows, monkeypatch):
    e = engine()
    e.fork("base", "before", "model")
    with torch.no_grad():  # what is absent would move the divergence most
        e.weights.copies["before"].get_output_embeddings().weight[ABSENT] += 1.0
    batch = rollouts(e, "base", stream)
    if rows:
        monkeypatch.setattr(objectives, "chunk_rows", lambda *_, **__: rows)
    metrics = reduce(e.forward_backward(batch, Objective((TERMS[stream],))))
    gradient = e.weights.base.get_output_embeddings().weight.grad
    said = {t for s in batch.segments for t in s.token_ids}
    never = [i for i in ABSENT if i not in said]
    assert never and not gradient[never].any()
    assert gradient[[i for i in range(SIZE) if i not in DRAWN]].any(-1).all()
    assert all(np.isfinite(value) for value in metrics.values())
    if stream == "pg":
        assert metrics["gap/sampler_max"] < 1e-4


def test_divergences_are_among_the_words_that_stand():
    e = engine()
    e.fork("base", "other", "model")
    with torch.no_grad():
        e.weights.copies["other"].get_output_embeddings().weight[ABSENT] += 5.0
    batch = rollouts(e, "base")
    for i, stats in enumerate(e.inspect(batch, ["other"])):
        if stats is not None:  # where 20 was heard it can be said, and the two differ
            heard = 20 in path_to(batch.segments, batch.segments[i].parent)
            assert (stats.kl["other"][0] < 1e-5) is not heard
    apart = engine(drawn=None)
    apart.fork("base", "other", "model")
    with torch.no_grad():
        apart.weights.copies["other"].get_output_embeddings().weight[ABSENT] += 5.0
    assert apart.inspect(batch, ["other"])[1].kl["other"][0] > 1e-3


def test_an_update_that_reads_what_sampling_left_has_the_same_gradient():
    e = engine(reuse_forward="on")
    batch = rollouts(e, "base", update=0)
    found = []
    for _ in range(2):
        e.forward_backward(batch, Objective((term("grpo", 10.0),)))
        own = e.weights.parameters("base")
        found.append({k: p.grad.clone() for k, p in own.items() if p.grad is not None})
        e.forget("base")
        e.kernel_weights.left.clear()
    for name, g in found[1].items():
        assert (found[0][name] - g).abs().max() <= 2e-5 * g.abs().max() + 1e-9, name


def test_a_model_that_was_saved_hides_them_too(tmp_path):
    e = engine()
    opened = from_path(on_disk(tmp_path / "model", e.weights.base)).model
    assert drawn_of(opened).ids_S.tolist() == DRAWN


@pytest.mark.parametrize("said", ["abc", [1, 1], [2, 1], [-1], [10**6], [1.0], {"1": 2}])
def test_a_configuration_that_names_no_words_is_refused(said, tmp_path):
    path = on_disk(tmp_path / "model", engine().weights.base)
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {KEY: said}))
    with pytest.raises(UserError, match=f"{KEY} of config.json is no list of token ids"):
        from_path(path)


def test_a_recipe_says_so_and_the_taskset_which(tmp_path):
    said = '[model]\nlayers = 2\nwidth = 32\nmlp = 64\nmasks_absent = true\n[[stage]]\nkind = "imitate"\n'
    path = tmp_path / "own.toml"
    path.write_text(f'name = "own"\ntask = {{ name = "desk" }}\n{said}')
    recipe = recipe_at(path)
    with pytest.raises(RecipeError, match="model.masks_absent: desk draws no words anew"):
        torch_engine(recipe, families.build(recipe.task))
    path.write_text(f'name = "own"\ntask = {{ name = "web", tasks = ["click-tab"] }}\n{said}')
    recipe = recipe_at(path)
    e = torch_engine(recipe, families.build(recipe.task))
    drawn = [e.decode([i]).strip() for i in drawn_of(e.weights.base).ids_S.tolist()]
    assert {"e1", "e120", "w1", "w160"} <= set(drawn) and all(word[0] in "ew" for word in drawn)


def test_a_model_that_may_say_anything_is_computed_as_it_was():
    spec = ModelSpec(width=32, layers=2, mlp=64)
    assert drawn_of(load(spec, ["a", "w1"], 32, 0).model) is None
    assert drawn_of(load(spec, ["a", "w1"], 32, 0, drawn=["w1"]).model).ids_S.tolist() == [4]
