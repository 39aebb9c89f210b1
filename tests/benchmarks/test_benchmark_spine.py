"""What the spine takes: the work is what it says, and sampling is not counted."""

from __future__ import annotations

import time

import pytest
from bench_load import script

spine = script("spine")


@pytest.mark.parametrize("name, most", [("one turn", 1), ("stepwise", 4)])
def test_384_episodes_of_desk(name, most):
    grow = spine.growth(spine.WORK[name])
    trees, _ = grow(0)
    acts = [node for tree in trees for node in tree.nodes if node.role == "act"]
    episodes = {(id(tree), node.branch) for tree in trees for node in tree.nodes if node.role == "act"}
    plans = [node for tree in trees for node in tree.nodes if node.role == "plan"]
    assert (len(trees), len(plans), len(episodes)) == (32, 128, 384)
    assert {node.status for node in acts} == {"finished"} and 384 <= len(acts) <= 384 * most
    ends = [node.reward_parts for node in acts if node.reward_parts]
    assert len(ends) == 384 and {parts["outcome"] for parts in ends} == {1.0}
    assert (
        {parts["follows"] for parts in ends} == {node.reward_parts["valid"] for node in plans} == {0.0, 1.0}
    )
    assert spine.digest(grow(0)[0]) == spine.digest(trees) != spine.digest(grow(1)[0])


def test_what_the_engine_takes_is_not_counted(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "process_time", lambda: clock[0])
    grow = spine.growth(spine.WORK["one turn"])
    base = spine.found("engines.fake.engine:FakeEngine")
    sample = base.sample

    def slow(self, requests):
        clock[0] += 100.0
        return sample(self, requests)

    monkeypatch.setattr(base, "sample", slow)
    assert grow(0)[1] == 0.0 and clock[0] == 200.0


def test_a_name_that_is_nowhere_is_said():
    with pytest.raises(SystemExit, match="none of nowhere:Thing is there"):
        spine.found("nowhere:Thing")
