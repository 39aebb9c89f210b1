"""The rows of losses on numbers that know their slopes: by hand, and what a row says of itself."""

from __future__ import annotations

import math

import pytest
from loss_cases import CASES

from forethought.core.errors import CodeFault, RecipeError
from forethought.core.metrics import reduce
from forethought.core.types import Batch, Objective, Segment
from forethought.engines.fake.numbers import Numbers
from forethought.engines.fake.objectives import Tokens
from forethought.learn.losses import LOSSES, row, term
from forethought.learn.losses.row import Loss
from forethought.learn.losses.terms import measure, split


@pytest.mark.parametrize("name", CASES)
def test_a_loss_and_its_slopes_by_hand(name):
    case = CASES[name]
    own = term(case.loss, 1.0, stream=case.segments[0].stream, options=case.options)
    leaves = Numbers(case.logps, [{i: 1.0} for i in range(len(case.logps))])
    batch = Batch(policy="base", segments=tuple(case.segments))
    total, metrics = measure(own, Tokens(batch, range(len(case.segments)), own, leaves))
    assert total.item() == pytest.approx(case.total)
    assert [total.slopes[0].get(i, 0.0) for i in range(len(case.logps))] == pytest.approx(case.slopes)
    line = reduce(metrics)
    assert {k: line[k] for k in case.measured} == pytest.approx(case.measured)
    assert set(row(case.loss).measures) <= set(metrics)


@pytest.mark.parametrize("name", [name for name in LOSSES if "old" in LOSSES[name].needs])
def test_on_policy_every_ratio_is_plain_policy_gradient(name):
    segments = (
        Segment(parent=0, token_ids=(3, 3), stream="pg", weight=(1.0, 0.5), advantage=(2.0, -3.0)),
        Segment(parent=0, token_ids=(3,), stream="pg", weight=(1.0,), advantage=(1.0,), sequence=4),
    )
    own, leaves = term(name, 1.0), Numbers([-1.0, -2.0, -3.0], [{0: 1.0}, {1: 1.0}, {2: 1.0}])
    total, metrics = measure(own, Tokens(Batch(policy="p", segments=segments), (0, 1), own, leaves))
    assert total.slopes[0] == pytest.approx({0: -2.0, 1: 1.5, 2: -1.0})
    assert reduce(metrics)["clip/share"] == 0 == reduce(metrics)["gap/sampler_max"]


def test_gspo_on_sequences_of_one_token_is_grpo():
    segments = tuple(
        Segment(
            parent=0, token_ids=(3,), stream="pg", weight=(1.0,), advantage=(a,), old_logprobs=(-1.0 - gap,)
        )
        for a, gap in ((1.0, 0.1), (-1.0, 0.1), (1.0, 0.5), (-1.0, 0.5), (1.0, -0.5), (-1.0, -0.5))
    )
    found = []
    for name in ("gspo", "grpo"):
        own = term(name, 1.0, options={"clip_low": 0.2, "clip_high": 0.2})
        leaves = Numbers([-1.0] * 6, [{i: 1.0} for i in range(6)])
        total, _ = measure(own, Tokens(Batch(policy="p", segments=segments), range(6), own, leaves))
        found.append((total.item(), [total.slopes[0].get(i, 0.0) for i in range(6)]))
    assert found[0][0] == pytest.approx(found[1][0]) and found[0][1] == pytest.approx(found[1][1])


def test_numbers_move_as_calculus_says():
    """Every operation that a loss may use, against differences."""
    x, h = [0.3, 1.7, -0.6], 1e-6
    operations = {
        "exp": lambda a: a.exp(),
        "expm1": lambda a: a.expm1(),
        "log": lambda a: (a * a).log(),
        "sigmoid": lambda a: a.sigmoid(),
        "abs": lambda a: a.abs(),
        "clamp": lambda a: a.clamp(-0.5, 1.0),
        "minimum": lambda a: a.minimum(a * 2),
        "maximum": lambda a: a.maximum(0.5),
        "arithmetic": lambda a: (1 - a) / (a + 2) - 3 * a * -a + 1 / (a - 5),
        "detach": lambda a: a.detach() * a,
    }
    for name, f in operations.items():
        found = f(Numbers(x, [{i: 1.0} for i in range(3)]))
        for i in range(3):
            fixed = x[i] if name == "detach" else None
            up, down = (y * fixed if fixed else f(Numbers([y])).item() for y in (x[i] + h, x[i] - h))
            assert found.slopes[i].get(i, 0.0) == pytest.approx((up - down) / (2 * h), abs=1e-6), name


def test_equal_numbers_share_the_slope_of_their_minimum():
    a = Numbers([2.0], [{0: 1.0}]).minimum(Numbers([2.0], [{1: 1.0}]))
    assert a.slopes == [{0: 0.5, 1: 0.5}]


def test_the_options_of_a_row_are_what_its_function_takes():
    assert LOSSES["dapo"].options() == {"clip_low": 0.2, "clip_high": 0.28}
    assert LOSSES["sft"].options() == {} and LOSSES["gspo"].bounds_of("clip_low") == (0, 1)
    assert LOSSES["grpo"].bounds_of("other") == (-math.inf, math.inf)


def test_a_stream_without_a_term_is_an_error_and_a_term_without_tokens_is_none():
    objective = Objective((term("grpo", 2.0), term("sft", 3.0)))
    assert [t.loss for t in split(objective, "base", {"sft"})[0]] == ["sft"]
    with pytest.raises(ValueError, match="no loss for the keep stream"):
        split(objective, "base", {"pg", "keep"})


@pytest.mark.parametrize(
    ("per_token", "message"),
    [
        (lambda t: (t.ref, {}), "reads t.ref; its row must say needs={'ref', ...}"),
        (lambda t: (t.mean(t.logp), {}), "reads t.mean; its row must say needs={'sequences', ...}"),
        (lambda t: t.logp, "must return (loss of each token, {name: number of each token})"),
        (lambda t: (t.logp.sum(), {}), "must give the loss as one number for each of 2 tokens"),
        (lambda t: (1.0, {}), "must give the loss as one number for each of 2 tokens"),
        (lambda t: (t.logp, {"x": t.logp.max()}), "must give x as one number for each of 2 tokens"),
    ],
)
def test_a_row_that_does_not_keep_its_word_is_refused(per_token, message, monkeypatch):
    monkeypatch.setitem(LOSSES, "mine", Loss(per_token=per_token))
    segments = (Segment(parent=0, token_ids=(3, 3), stream="pg", weight=(1.0, 1.0)),)
    own, leaves = term("mine", 1.0), Numbers([-1.0, -2.0], [{0: 1.0}, {1: 1.0}])
    with pytest.raises(CodeFault) as caught:
        measure(own, Tokens(Batch(policy="p", segments=segments), (0,), own, leaves))
    assert (caught.value.key, str(caught.value)) == ("loss", f"mine {message}")


def test_an_error_of_the_machine_in_a_row_is_not_the_rows(monkeypatch):
    def short_of_memory(t):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setitem(LOSSES, "mine", Loss(per_token=short_of_memory))
    segments = (Segment(parent=0, token_ids=(3,), stream="pg", weight=(1.0,)),)
    own, leaves = term("mine", 1.0), Numbers([-1.0], [{0: 1.0}])
    with pytest.raises(RuntimeError, match="CUDA"):
        measure(own, Tokens(Batch(policy="p", segments=segments), (0,), own, leaves))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"needs": {"advantages", "old"}}, "unknown need 'advantages'; did you mean 'advantage'"),
        ({"bounds": {"strong": (0, 1)}}, "unknown option 'strong'; did you mean 'strength'"),
    ],
)
def test_a_row_that_says_what_there_is_not_is_refused_where_it_is_made(fields, message):
    def mine(t, *, strength=1.0):
        return t.logp * strength, {}

    with pytest.raises(ValueError, match=f"Loss of mine: {message}"):
        Loss(per_token=mine, **fields)


def test_a_row_in_a_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from forethought.learn.losses.row import Loss\n"
        "def squared(t, *, scale=1.0):\n    return t.logp * t.logp * scale, {}\n"
        "SQUARED = Loss(per_token=squared, stream='sft')\n"
    )
    found = row(f"{file}:SQUARED")
    assert isinstance(found, Loss) and found.options() == {"scale": 1.0}
    assert term(f"{file}:SQUARED", 1.0).stream == "sft"
    with pytest.raises(RecipeError, match="stage.0.loss: .*squared is a function, not a row of losses"):
        row(f"{file}:squared", "stage.0.loss")
    with pytest.raises(RecipeError, match="stage.0.loss: .*missing.py does not exist"):
        row(f"{tmp_path}/missing.py:SQUARED", "stage.0.loss")
    with pytest.raises(RecipeError, match="unknown loss 'grppo'; did you mean 'grpo'"):
        row("grppo")
