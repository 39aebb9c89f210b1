"""A judge behind an endpoint: what it is asked, what its answers are worth, what is paid once, and what goes
wrong."""

from __future__ import annotations

import json

import pytest

from forethought.core.errors import UserError
from forethought.learn.batch_functions import is_batch_function
from forethought.rewards import Judge
from forethought.stages.distill.transport import Reply, Unanswered


class Endpoint:
    """A `Post` that answers by what it is asked."""

    def __init__(self, answers):
        self.answers, self.asked = answers, []

    def __call__(self, body):
        self.asked.append(body["messages"])
        answer = self.answers(body["messages"][-1]["content"])
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Reply):
            return answer
        choice = {"message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 3, "completion_tokens": 2}
        return Reply(status=200, headers={}, body=json.dumps({"choices": [choice], "usage": usage}))


def judge(tmp_path, answers, prompt="{prompt} / {completion} / {tone}", **fields):
    post = Endpoint(answers)
    given = {"key_env": "", "retries": 1, "price_in": 1e6, "price_out": 1e6, "cache": tmp_path / "c.jsonl"}
    return Judge("http://there/v1", "m", prompt, post=post, sleep=lambda s: None, **given | fields), post


ROWS = {"prompts": ["p", "p"], "completions": ["a", "b"], "tone": ["kind", "rude"], "trainer_state": None}


def test_scores_of_a_scale_with_what_they_cost(tmp_path):
    said = {"p / a / kind": "It is kind.\n8", "p / b / rude": "0"}
    ask, post = judge(tmp_path, said.get)
    logged = {}
    assert is_batch_function(ask)
    assert ask(**ROWS, log_metric=logged.__setitem__) == [0.8, 0.0]
    assert "from 0 to 10" in post.asked[0][0]["content"]
    assert logged == {"judge/requests": 2, "judge/tokens": 10, "judge/cost": 10, "judge/failed": 0}


def test_what_was_answered_is_paid_once(tmp_path):
    ask, post = judge(tmp_path, lambda text: "5")
    assert ask(**ROWS) == [0.5, 0.5]
    logged = {}
    assert ask(**ROWS, log_metric=logged.__setitem__) == [0.5, 0.5]
    again, other = judge(tmp_path, lambda text: "9")
    assert again(**ROWS) == [0.5, 0.5] and len(post.asked) == 2 and not other.asked
    assert logged["judge/requests"] == 0 and logged["judge/cost"] == 0
    twice = {"prompts": ["x"] * 2, "completions": ["y"] * 2, "tone": ["z"] * 2}
    assert ask(**twice) == [0.5, 0.5] and len(post.asked) == 3


def test_what_is_no_score_and_what_does_not_answer_is_none(tmp_path):
    broken = Reply(status=500, headers={}, body="no")
    for answer in ("eleven", "11", "", "-1", broken, Unanswered("timeout", "no answer within 1 s")):
        ask, _ = judge(tmp_path, lambda text, answer=answer: answer, cache=tmp_path / f"{id(answer)}.jsonl")
        logged = {}
        assert ask(**ROWS, log_metric=logged.__setitem__) == [None, None]
        assert logged["judge/failed"] == 2


def test_conversations_and_other_scales(tmp_path):
    ask, post = judge(tmp_path, lambda text: "0", "{prompt}|{completion}|{answer}", scale=(-1, 1))
    talk = [{"role": "user", "content": "hi"}], [{"role": "assistant", "content": "{prompt}"}]
    assert ask(prompts=[talk[0]], completions=[talk[1]]) == [0.5]
    assert post.asked[0][-1]["content"] == "hi|{prompt}|{answer}"


def test_an_endpoint_that_answers_nobody_is_told(tmp_path):
    ask, _ = judge(tmp_path, lambda text: Reply(status=401, headers={}, body="bad key"))
    with pytest.raises(UserError, match=r"status 401: bad key\. Check base_url, model and the key"):
        ask(**ROWS)


def test_settings_that_cannot_work(tmp_path, monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    for fields, said in (
        ({"scale": (5, 5)}, "scale goes from the least to the most"),
        ({"prompt": "How good?"}, r"says \{completion\}"),
        ({"per_minute": -1}, "per_minute"),
    ):
        with pytest.raises(UserError, match=said):
            judge(tmp_path, str, **fields)
    with pytest.raises(UserError, match="NO_SUCH_KEY is not set"):
        Judge("http://there/v1", "m", key_env="NO_SUCH_KEY")


def test_a_silent_endpoint_is_soon_given_up_and_tried_again_at_the_next_call(tmp_path):
    gone, slept = Unanswered("unreachable", "ConnectError: refused"), []
    ask, post = judge(tmp_path, lambda text: gone, retries=3, concurrency=1)
    ask._client._sleep = slept.append
    rows = {"prompts": ["p"] * 5, "completions": list("abcde"), "tone": ["kind"] * 5}
    assert ask(**rows) == [None] * 5
    # the first completion with all its retries, the second once: it could have been the first one's fault
    assert len(post.asked) == 4 + 1 and len(slept) == 3
    assert ask.silence == (
        "the judge at http://there/v1/chat/completions did not answer: ConnectError: refused"
    )
    assert (ask.asked, ask.failed) == (5, 5)
    assert ask(**rows) == [None] * 5 and len(post.asked) == 5 + 3  # one retry from now on
    post.answers = lambda text: "5"
    assert ask(**rows) == [0.5] * 5 and ask.silence == ""
    post.answers = lambda text: gone if "/ f" in text else "5"  # one of several is no silence
    rows["completions"] = list("fghij")
    assert ask(**rows) == [None] + [0.5] * 4 and ask.silence == ""
