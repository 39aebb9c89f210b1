"""The displays, driven by scripted Events and a scripted clock."""

from __future__ import annotations

import io
import sys
import time

import pytest
from rich.console import Console

from forethought import display
from forethought.core.types import Event
from forethought.display.lines import Lines, line
from forethought.display.observer import Observer
from forethought.display.pace import clock_text, pace
from forethought.display.picture import ASCII, picture, summary
from forethought.display.seen import Seen, evaluation
from forethought.display.show import outline, samples
from forethought.display.spent import spent
from forethought.display.tables import evaluation_table
from forethought.display.terminal import Terminal
from forethought.recipe.kinds.imitate import Imitate
from forethought.recipe.schema import AdaptiveSpec, GateSpec, Recipe

FIRST = {
    "eval/plan": 0.5,
    "eval/act": 1.0,
    "eval/e2e": 0.5,
    "eval/plan@3": 0.75,
    "eval/plan@10": 0.25,
    "eval/act@3": 1.0,
}
LATER = FIRST | {"eval/plan": 0.75, "eval/act": 0.9375, "eval/plan@10": 0.5, "eval/goal": 0.125}


def story() -> list[Event]:
    """Two stages; 40 steps of the second, with a roll back and a note."""
    second = {"steps": 100, "stages": 2, "stage": 1, "stage_steps": 50}
    events = [
        Event(kind="start", text="runs/desk-1", steps=100, stages=2, roles=("plan", "act")),
        Event(kind="stage", text="imitate plan, act", steps=100, stages=2, stage_steps=50),
        Event(
            kind="eval",
            steps=100,
            stages=2,
            stage_steps=50,
            values={"eval/plan": 0.0, "eval/act": 0.0, "eval/e2e": 0.0},
        ),
        Event(kind="step", step=50, steps=100, stages=2, stage_step=50, stage_steps=50, values={"loss": 0.5}),
        Event(kind="stage", text="reinforce plan", step=50, **second),
        Event(kind="eval", step=50, values=FIRST, **second),
    ]
    values = {
        "loss": 0.25,
        "reward/plan": 0.5,
        "entropy/plan": 0.125,
        "lr": 1e-3,
        "tokens/trained": 1500.0,
        "tokens/sampled": 250.0,
    }
    events += [Event(kind="step", step=50 + i, stage_step=i, values=values, **second) for i in range(1, 41)]
    events += [
        Event(kind="eval", step=90, stage_step=40, values=LATER, **second),
        Event(kind="decision", text="eval/act fell by 0.062", outcome="roll_back", step=90),
        Event(kind="note", text="one\ntwo"),
    ]
    return events


class Ticks:
    """A clock that is moved by hand, or by `step` at each reading."""

    def __init__(self, step: float = 0.0):
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def seen_of(events: list[Event], seconds_per_event: float = 1.0) -> Seen:
    seen = Seen()
    for i, event in enumerate(events):
        seen.see(event, i * seconds_per_event)
    return seen


# Plain lines ------------------------------------------------------------------------------------------------


def test_plain_lines_tell_the_story():
    stream = io.StringIO()
    clock = Ticks(0.125)  # 8 events a second: 25 steps pass before 5 seconds do
    observe = Lines(stream, clock)
    for event in [*story(), Event(kind="end", text="done")]:
        observe(event)
    rates = "trained 12.0k tok/s sampled 2.0k tok/s"
    assert stream.getvalue().splitlines() == [
        "start runs/desk-1: stages 2, steps 100",
        "stage 1/2 imitate plan, act: steps 50",
        "eval step 0 plan 0.000 act 0.000 e2e 0.000",
        "step 50/100 stage 1/2 50/50 loss 0.5",
        "stage 2/2 reinforce plan: steps 50",
        "eval step 50 plan 0.500 act 1.000 e2e 0.500 levels 3,10: plan 0.75 0.25 levels 3: act 1.00",
        "step 51/100 stage 2/2 1/50 loss 0.25 reward/plan 0.5 entropy/plan 0.125",
        f"step 76/100 stage 2/2 26/50 loss 0.25 reward/plan 0.5 entropy/plan 0.125 {rates} about 0:03 left",
        "eval step 90 plan 0.750 act 0.938 e2e 0.500 goal 0.125 levels 3,10: plan 0.75 0.50 "
        "levels 3: act 1.00",
        "decision roll_back: eval/act fell by 0.062",
        "note: one two",
        "end: done",
    ]
    assert "\r" not in stream.getvalue() and "\x1b" not in stream.getvalue()


def test_slow_steps_are_told_every_five_seconds():
    stream, clock = io.StringIO(), Ticks(2.0)
    observe = Lines(stream, clock)
    for i in range(1, 8):  # at 2, 4, ... 14 s
        observe(Event(kind="step", step=i, steps=7, stages=1, stage_step=i, stage_steps=7))
    assert [line.split()[1] for line in stream.getvalue().splitlines()] == ["1/7", "4/7", "7/7"]


def test_an_evaluation_is_read_factors_first_and_levels_in_order():
    values = {
        "eval/goal": 0.1,
        "eval/e2e@10": 0.2,
        "eval/e2e@9": 0.3,
        "eval/e2e": 0.25,
        "eval/plan": 0.5,
        "eval/plan/low": 0.4,
        "step": 3.0,
    }
    overall, by_level = evaluation(values, ("plan", "act"))
    assert list(overall.items()) == [("plan", 0.5), ("e2e", 0.25), ("goal", 0.1)]
    assert {name: list(levels.items()) for name, levels in by_level.items()} == {"e2e": [(9, 0.3), (10, 0.2)]}


def test_a_step_of_reinforcement_says_what_its_users_follow():
    values = {
        "loss": -0.0125,
        "reward/act": 0.25,
        "reward_std/act": 0.433,
        "reward/act.valid": 0.5,
        "groups/zero": 0.375,
        "groups/all_failed": 12,
        "tokens/act": 17.25,
        "tokens/sampled": 2208.0,
        "tokens/trained": 1380.0,
        "kl/ref": 0.00123,
        "entropy/act": 0.5,
        "clip/share": 0.0312,
        "grad_norm/act": 0.75,
        "lr": 1e-3,
    }
    event = Event(kind="step", step=3, steps=9, stages=1, stage_step=3, stage_steps=9, values=values)
    stream = io.StringIO()
    Lines(stream)(event)
    assert stream.getvalue() == (
        "step 3/9 stage 1/1 3/9 loss -0.0125 reward/act 0.25 sd 0.43 signal 62% length/act 17.2 "
        "kl/ref 0.00123 entropy/act 0.5 clipped 3.1% grad 0.75\n"
    )
    rows = [row.plain for row in picture(seen_of([event]), 1.0, 60, 30, ASCII)]
    assert rows[-2:] == [
        "  loss -0.0125  reward/act 0.25 sd 0.43  signal 62%",
        "  length/act 17.2  kl/ref 0.00123  entropy/act 0.5",
    ]


# The picture ------------------------------------------------------------------------------------------------


def test_the_picture_shows_stages_numbers_changes_levels_and_decisions():
    rows = [
        row.plain.rstrip() for row in picture(seen_of(story()), now=60.0, width=80, height=30, signs=ASCII)
    ]
    # 40 steps one second apart: 10 steps left are 10 seconds. Bars are 30 and 28 cells wide.
    assert rows == [
        "forethought runs/desk-1" + " " * 36 + "1:00, about 0:10 left",
        "  x stage 1/2 imitate plan, act" + " " * 44 + "50/50",
        "  > stage 2/2 reinforce plan" + " " * 16 + "#" * 24 + "-" * 6 + " 40/50",
        "",
        "  plan        0.750 " + "#" * 21 + "-" * 7 + " ^ +0.250",
        "  act         0.938 " + "#" * 26 + "-" * 2 + " v -0.062",
        "  e2e         0.500 " + "#" * 14 + "-" * 14 + " = 0.000",
        "  goal        0.125 " + "#" * 4 + "-" * 24 + "  since the stage began",
        "",
        "  level           3    10",
        "  plan         0.75  0.50",
        "  act          1.00     -",
        "",
        "  trained 1.5k tok/s  sampled 250 tok/s  loss 0.25  reward/plan 0.5",
        "  entropy/plan 0.125",
        "",
        "  roll_back: eval/act fell by 0.062",
        "  note: one two",
    ]


def test_an_evaluation_after_a_step_comes_in_one_line_with_it():
    seen = Seen()
    position = {"steps": 9, "stages": 1, "stage_steps": 9}
    seen.see(Event(kind="eval", values={"eval/plan": 0.5, "eval_low/plan": 0.25}, **position), 0.0)
    assert seen.values == {} and seen.evals == {"eval/plan": 0.5}
    line = {"loss/pg": 0.5, "reward/plan": 1.0, "reward/plan.valid": 1.0, "tokens_per_second": 1234.0}
    seen.see(
        Event(
            kind="eval",
            step=1,
            stage_step=1,
            values=line | {"eval/plan": 0.75, "eval_low/plan": 0.5},
            **position,
        ),
        1.0,
    )
    assert (
        seen.values == line
        and seen.evals == {"eval/plan": 0.75}
        and seen.stages[0].first == {"eval/plan": 0.5}
    )
    assert [row.plain for row in picture(seen, 1.0, 80, 30, ASCII)][
        -1
    ] == "  1.2k tok/s  loss/pg 0.5  reward/plan 1"
    # measured after a roll back
    seen.see(Event(kind="eval", step=2, stage_step=1, values={"eval/plan": 0.5}, **position), 2.0)
    assert seen.values == line and seen.stages[0].last == {"eval/plan": 0.5}


def test_a_small_terminal_keeps_what_matters():
    seen = seen_of(story())
    heads = {
        height: [
            row.plain.split()[0] if row.plain.split() else ""
            for row in picture(seen, 60.0, 40, height, ASCII)
        ]
        for height in (16, 13, 9, 3, 1)
    }
    factors = ["forethought", "x", ">", "", "plan", "act", "e2e", "goal"]
    assert heads[16] == [*factors, "", "level", "plan", "act", "", "trained", "", "roll_back:"]
    assert heads[13] == [*factors, "", "trained", "", "roll_back:"]
    assert heads[9] == factors
    assert heads[3] == ["forethought", "x", ">"] and heads[1] == ["forethought"]
    for height in range(1, 30):
        rows = picture(seen, 60.0, 40, height, ASCII)
        assert len(rows) <= height and all(row.cell_len <= 40 for row in rows)


def test_colours_say_which_way_it_went():
    rows = picture(seen_of(story()), 60.0, 100, 30)
    styles = {row.plain[span.start : span.end].strip(): str(span.style) for row in rows for span in row.spans}
    assert styles["▲ +0.250"] == "green" and styles["▼ -0.062"] == "red" and styles["= 0.000"] == "dim"
    assert styles["roll_back"] == "bold red"


def test_the_summary_keeps_each_stage_and_what_went_wrong():
    seen = seen_of(
        [
            *story(),
            Event(kind="decision", text="fine", outcome="pass"),
            Event(kind="end", text="stopped by a gate"),
        ]
    )
    assert [row.plain for row in summary(seen, 60.0, ASCII)] == [
        "forethought runs/desk-1  1:00",
        "  x stage 1/2 imitate plan, act  50/50 steps",
        "    plan 0.000 -> 0.000   act 0.000 -> 0.000   e2e 0.000 -> 0.000",
        "  . stage 2/2 reinforce plan  40/50 steps",
        "    plan 0.500 -> 0.750   act 1.000 -> 0.938   e2e 0.500 -> 0.500",
        "  roll_back: eval/act fell by 0.062",
        "  stopped by a gate",
    ]


def test_time_left_leaves_out_the_steps_of_a_stage_that_ended_early():
    stage = {"steps": 100, "stages": 2}
    events = [Event(kind="start", steps=100, stages=2)]
    events += [
        Event(kind="step", step=i, stage_step=i, stage=0, stage_steps=60, **stage) for i in range(1, 11)
    ]
    events += [Event(kind="stage", step=10, stage=1, stage_steps=40, **stage)]
    events += [
        Event(kind="step", step=10 + i, stage_step=i, stage=1, stage_steps=40, **stage) for i in range(1, 5)
    ]
    seen = seen_of(events, seconds_per_event=2.0)
    # The second stage has taken 4 of 40 steps, 2 s each; the 50 steps that the first one did not need are not
    # to come.
    assert seen.left() == 72.0 and (seen.stages[0].done, seen.stages[0].steps) == (10, 60)


def test_a_stage_that_runs_again_takes_its_steps_again():
    stage = {"steps": 100, "stages": 2, "stage": 0, "stage_steps": 60}
    events = [Event(kind="start", steps=100, stages=2), Event(kind="stage", **stage)]
    events += [Event(kind="step", step=i, stage_step=i, **stage) for i in range(1, 61)]
    # measured after the roll back: a step of the run
    events += [Event(kind="eval", step=61, stage_step=60, values=FIRST, **stage)]
    events += [
        Event(kind="decision", text="imitate: once more, with 0.5 of its learning rate", outcome="retry")
    ]
    events += [Event(kind="stage", step=61, **stage)]
    events += [Event(kind="step", step=61 + i, stage_step=i, **stage) for i in range(1, 11)]
    seen, stream = seen_of(events, seconds_per_event=2.0), io.StringIO()
    # 71 steps are taken; 50 of the stage and 40 of the next one, 2 s each, are to come.
    assert (seen.to_go(), seen.total(), seen.left()) == (90, 161, 180.0)
    observe = Lines(stream, Ticks(10.0))
    for event in events:
        observe(event)
    assert stream.getvalue().splitlines()[-1] == "step 71/161 stage 1/2 10/60 about 15:00 left"


def test_steps_to_go_after_a_resume_that_knows_nothing_of_the_first_stage():
    seen = seen_of(
        [
            Event(kind="start", step=80, steps=100, stages=2),
            Event(kind="step", step=81, steps=100, stages=2, stage=1, stage_step=1, stage_steps=40),
        ]
    )
    # the first stage ran longer than planned: 39 of the second are left, not 19
    assert (seen.to_go(), seen.total()) == (39, 120)
    assert Seen(step=3, steps=10).to_go() == 7


@pytest.mark.parametrize(
    ("outcome", "style"),
    [
        ("isolate", "yellow"),
        ("share", "green"),
        ("retry", "yellow"),
        ("fork", "cyan"),
        ("core", "cyan"),
        ("random", "cyan"),
        ("fuse", "cyan"),
    ],
)
def test_decisions_on_weights_have_a_colour_and_fit(outcome, style):
    text = (
        f"{outcome}: act under oracle plans changed by -0.175 [-0.294, -0.056] since the stage's start,\n"
        + "and may fall; " * 20
    )
    seen = seen_of([*story(), Event(kind="decision", text=text, outcome=outcome)])
    for width in (20, 40, 80):
        rows = picture(seen, 60.0, width, 30)
        assert all(row.cell_len <= width for row in rows)
    row = next(row for row in rows if row.plain.strip().startswith(outcome))
    # a name that is the outcome is said once
    assert row.plain.startswith(f"  {outcome}: act under oracle plans changed by -0.175")
    assert {row.plain[span.start : span.end]: str(span.style) for span in row.spans}[outcome] == style
    assert any(kept.plain.startswith(f"  {outcome}: act") for kept in summary(seen, 60.0)) == (
        outcome != "fork"
    )


def test_a_decision_is_one_plain_line():
    stream = io.StringIO()
    Lines(stream)(Event(kind="decision", text="core: regions of 6 weights;\nJaccard 0.03", outcome="core"))
    Lines(stream)(Event(kind="decision", text="isolation: act fell", outcome="isolate"))
    assert (
        stream.getvalue()
        == "decision core: regions of 6 weights; Jaccard 0.03\ndecision isolate: isolation: act fell\n"
    )


def test_the_outline_says_whose_weights_train_and_what_follows_a_roll_back():
    gates = (
        GateSpec(max_drop=0.01, on_fail="roll_back", then="isolate", isolate="model"),
        GateSpec(max_drop=0.01, on_fail="roll_back", then="lower_rate", rate=0.25),
        GateSpec(at_least=0.5, then="isolate"),
    )
    stage = Imitate(roles=("plan",), gates=gates, adaptive=AdaptiveSpec(to="keep_kl"))
    text = outline(Recipe(layout="models", stage=(stage, Imitate(roles=("plan",), weights="base"))))
    assert text.splitlines()[1:] == [
        "# stage 1/2 imitate: trains plan (model), frozen act, 100 steps of 32 tasks, all levels, "
        "isolates by keep_kl where a role is harmed",
        "#   gate: eval/act max_drop 0.01, else roll_back and run it again isolated (model)",
        "#   gate: eval/act max_drop 0.01, else roll_back and run it again with 0.25 of its rate",
        "#   gate: eval/act at_least 0.5, else stop",
        "# stage 2/2 imitate: trains plan (base), 100 steps of 32 tasks, all levels",
    ]


def test_clock_text():
    assert [clock_text(s) for s in (0.9, 61, 3600, 36_061.5)] == ["0:00", "1:01", "1:00:00", "10:01:01"]


# The live display -------------------------------------------------------------------------------------------


def terminal(height: int = 30, width: int = 80) -> tuple[Terminal, io.StringIO]:
    stream = io.StringIO()
    console = Console(
        file=stream, force_terminal=True, width=width, height=height, color_system=None, legacy_windows=False
    )
    return Terminal(console, period=0.01), stream


def test_live_draws_and_leaves_a_summary_without_an_alternate_screen():
    observe, stream = terminal()
    with observe:
        for event in story():
            observe(event)
        deadline = time.monotonic() + 10
        while "roll_back" not in stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
        drawn = stream.getvalue()
        assert "reinforce plan" in drawn and "roll_back: eval/act fell by 0.062" in drawn
        observe(Event(kind="end", text="done"))
        observe(Event(kind="note", text="after the end"))  # heard, and nothing is drawn again
    text = stream.getvalue()
    assert "\x1b[?1049h" not in text  # the alternate screen
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor goes away and comes back
    assert text.rstrip().endswith("  done") and "after the end" not in text
    assert not observe.thread.is_alive() and not observe.dead


def test_live_closes_when_the_run_raises():
    observe, stream = terminal()
    with pytest.raises(ValueError, match="the run's own"), observe:
        observe(story()[0])
        raise ValueError("the run's own")
    assert stream.getvalue().count("\x1b[?25h") == 1 and not observe.thread.is_alive()
    assert "forethought runs/desk-1" in stream.getvalue().split("\x1b[?25h")[1]


def test_live_that_cannot_draw_says_so_once_and_the_run_goes_on(capsys, monkeypatch):
    calls = []

    def broken(*args):  # the first picture is drawn, the second fails in the drawing thread
        calls.append(args)
        if len(calls) > 1:
            raise RuntimeError("no room")
        return picture(*args)

    monkeypatch.setattr("forethought.display.terminal.picture", broken)
    observe, stream = terminal()
    with observe:
        observe(story()[0])
        observe.thread.join(timeout=10)
        for event in [*story(), Event(kind="end", text="done")]:
            observe(event)
    assert (
        capsys.readouterr().err
        == "forethought: the display stopped (RuntimeError: no room); the run goes on\n"
    )
    assert (
        stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h") == 1 and len(calls) == 2
    )


def test_plain_that_cannot_write_says_so_once(capsys):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

    observe = display.plain(Gone())
    with observe:
        for event in story():
            observe(event)
    assert capsys.readouterr().err == "forethought: nobody reads the output any more; the run goes on\n"


def test_an_event_that_makes_no_sense_does_not_stop_a_run(capsys):
    observe = display.plain(io.StringIO())
    observe(Event(kind="step", stage=-7, stages=1))
    observe(Event(kind="note", text="x"))
    assert capsys.readouterr().err.startswith("forethought: the display stopped (IndexError") and observe.dead


@pytest.mark.parametrize(
    ("tty", "term", "plain", "kind"),
    [
        (True, "xterm", False, Terminal),
        (True, "xterm", True, Lines),
        (False, "xterm", False, Lines),
        (True, "dumb", False, Lines),
    ],
)
def test_choose(monkeypatch, tty, term, plain, kind):
    class Stream(io.StringIO):
        def isatty(self):
            return tty

    monkeypatch.setenv("TERM", term)
    chosen = display.choose(Stream(), plain)
    assert type(chosen) is kind and isinstance(chosen, Observer)


@pytest.mark.parametrize(
    ("tty", "plain", "shown"),
    [
        (True, False, "desk: loading\n"),
        (False, True, "desk: loading\n"),
        (True, True, "desk: loading\n"),
        (False, False, ""),
    ],
)
def test_the_opening_line_is_for_whoever_waits(tty, plain, shown):
    class Stream(io.StringIO):
        def isatty(self):
            return tty

    stream = Stream()
    display.opening(stream, plain, "desk:\nloading")
    assert stream.getvalue() == shown


def test_an_opening_line_that_nobody_can_read_stops_nothing():
    class Broken(io.StringIO):
        def write(self, text):
            written.append(text)
            raise BrokenPipeError

    written = []
    display.opening(Broken(), True, "desk: loading")
    assert written == ["desk: loading\n"]


def test_a_library_that_prints_is_shown_above_the_picture(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    observe = Terminal(
        Console(file=stream, force_terminal=True, width=80, height=30, color_system=None), period=0.01
    )
    with observe:
        observe(story()[0])
        print("a library speaks")
        assert sys.stdout is not stream  # the live display stands between
    assert sys.stdout is stream and "a library speaks\n" in stream.getvalue()


def test_a_plan_that_its_budget_cut_off_is_not_called_wrong():
    out = io.StringIO()
    samples(
        [
            {
                "task": "t",
                "level": 1,
                "oracle": {},
                "turns": [
                    {
                        "role": "plan",
                        "text": "a b",
                        "valid": 0.0,
                        "status": "truncated",
                        "reason": "no </plan>",
                    }
                ],
            }
        ],
        out,
    )
    assert "a b  [cut off: no </plan>]" in out.getvalue() and "wrong" not in out.getvalue()


def test_an_evaluation_that_takes_its_time_is_told():
    busy = Event(kind="busy", text="evaluating 500 tasks")
    stream, clock = io.StringIO(), Ticks()
    lines = Lines(stream, clock)
    for seconds in (5.0, 75.0, 1.0):
        lines(busy)
        clock.now += seconds
        lines(Event(kind="eval", values=FIRST))
    told = [line for line in stream.getvalue().splitlines() if line.startswith("evaluating")]
    assert told == ["evaluating 500 tasks", "evaluating 500 tasks (the last time 1:15)"]  # 5 s were too few
    seen = Seen()
    for now, event in ((0.0, busy), (9.0, Event(kind="eval", values=FIRST)), (20.0, busy)):
        seen.see(event, now)
    row = "  evaluating 500 tasks: 0:04 of about 0:09"
    assert row in [row.plain for row in picture(seen, 24.0, 80, 40, ASCII)]
    seen.see(Event(kind="note", text="n"), 25.0)
    assert seen.busy
    seen.see(Event(kind="eval", values=LATER), 29.0)
    assert seen.busy is None


def test_a_resumed_stage_shows_the_evaluations_that_it_has():
    values = LATER | {name.replace("eval/", "eval_start/"): x for name, x in FIRST.items()}
    seen = seen_of([Event(kind="stage", text="s", stage_step=40, stage_steps=50, stages=1, values=values)])
    assert seen.evals == LATER and seen.stages[0].first == FIRST
    rows = [row.plain for row in picture(seen, 1.0, 80, 40, ASCII)]
    assert any(row.startswith("  act         0.938") and "v -0.062" in row for row in rows)


def test_pace_in_words():
    assert pace(0, 500, "tasks", 0.0) == "0 of 500 tasks"
    assert pace(144, 500, "tasks", 12.0) == "144 of 500 tasks, 12/s, about 0:29 left"
    assert pace(1, 4, "visits", 120.0) == "1 of 4 visits, 0.5/min, about 6:00 left"
    assert pace(20, 100, "tasks", 5.0, before=10) == "20 of 100 tasks, 2/s, about 0:40 left"
    assert pace(4, 4, "visits", 480.0) == "4 of 4 visits in 8:00"


def doing(done: int, of: int) -> Event:
    return Event(kind="busy", text="evaluating 500 tasks", stages=1, values={"done": done, "of": of})


def test_an_evaluation_shows_how_far_it_is_how_fast_it_goes_and_what_is_left():
    seen = Seen()
    seen.see(Event(kind="busy", text="evaluating 500 tasks", stages=1), 0.0)
    assert seen.doing() == ""
    for now, done in ((2.0, 40), (12.0, 140)):
        seen.see(doing(done, 500), now)
    assert seen.doing() == "evaluating 500 tasks: 140 of 500 tokens at most, 10/s, about 0:36 left"
    rows = [row.plain for row in picture(seen, 12.0, 100, 40, ASCII)]
    assert f"  {seen.doing()}" in rows
    seen.see(doing(20, 1000), 13.0)  # the next role: it begins anew
    seen.see(doing(60, 1000), 15.0)
    assert seen.doing() == "evaluating 500 tasks: 60 of 1,000 tokens at most, 20/s, about 0:47 left"
    seen.see(Event(kind="eval", stages=1, values=FIRST), 16.0)
    assert seen.busy is None and seen.took == {"evaluating 500 tasks": 16.0}


def test_time_left_counts_the_evaluations_to_come():
    """Steps one second apart, 7 to go; an evaluation of 20 s at the end of the stage, and of the next."""
    seen, at = Seen(), {"steps": 15, "stages": 2, "stage_steps": 10}
    seen.see(Event(kind="stage", text="imitate plan", **at), 0.0)
    seen.see(Event(kind="busy", text="evaluating 500 tasks", **at), 0.0)
    seen.see(Event(kind="eval", values=FIRST, **at), 20.0)
    for i in (1, 2, 3):
        seen.see(Event(kind="step", step=i, stage_step=i, values={"loss": 1.0}, **at), 20.0 + i)
    assert seen.left() == 7 + 5 + 2 * 20
    seen.see(Event(kind="eval", step=10, stage_step=10, values={"loss": 1.0} | FIRST, **at), 30.0)
    assert seen.left() == 5 + 20


def test_the_table_at_the_end_says_what_each_part_took_and_worked_on():
    lines = [
        {"seconds_part/sampling": 50.0, "seconds_part/other": 29.9, "memory/sampling": 2e9},
        {"seconds_part/sampling": 50.0, "seconds_part/probes": 0.1, "tokens/sampled": 24_000},
        {"seconds_part/training": 70.0, "memory/training": 3e9, "tokens/forward": 700},
    ]
    assert spent(lines) == [
        "where the time went          time  share  peak memory",
        "  sampling                   1:40    50%      2.00 GB  24.0k tokens, 240/s",
        "  training                   1:10    35%      3.00 GB  700 tokens, 10/s",
        "  tasks, credit, waiting   29.9 s    15%            -",
        "  the whole                  3:20   100%      3.00 GB",
    ]
    assert spent([{"step": 1}]) == []


def test_plain_lines_tell_of_a_long_evaluation_now_and_then():
    clock = iter([0.0, 1.0, 25.0, 26.0, 50.0])
    stream = io.StringIO()
    lines = Lines(stream, lambda: next(clock))
    lines(Event(kind="busy", text="evaluating 500 tasks", stages=1))
    for done in (10, 100, 110, 400):
        lines(doing(done, 500))
    told = stream.getvalue().splitlines()
    assert told[0] == "evaluating 500 tasks" and len(told) == 3
    assert (
        told[1].startswith("evaluating 500 tasks: 100 of 500 tokens at most, 3.75/s")
        and "400 of 500" in told[2]
    )


def test_what_nothing_judges_shows_its_rewards():
    values = {"eval_reward/act": 0.831, "eval_reward/act.short": 0.5}
    event = Event(kind="eval", step=20, stages=1, stage_steps=40, values=values, roles=("act",))
    seen = seen_of([event])
    assert line(event, seen) == "eval step 20 reward/act 0.831"
    rows = [row.plain for row in picture(seen, 1.0, 80, 40, ASCII)]
    assert any(row.startswith("  reward/act  0.831") for row in rows) and not any(
        "waiting" in r for r in rows
    )
    assert any("reward/act 0.831 -> 0.831" in row.plain for row in summary(seen, 1.0, ASCII))


def test_levels_are_said_once_and_not_at_all_where_there_is_one():
    both = {f"eval/{name}@{level}": 0.5 for name in ("plan", "act") for level in (1, 2)}
    event = Event(kind="eval", step=1, stages=1, stage_steps=4, values=both, roles=("plan", "act"))
    assert line(event, seen_of([event])) == "eval step 1 levels 1,2: plan 0.50 0.50 act 0.50 0.50"
    flat = {"eval/e2e": 0.5, "eval/e2e@0": 0.5}
    event = Event(kind="eval", step=1, stages=1, stage_steps=4, values=flat, roles=("act",))
    assert line(event, seen_of([event])) == "eval step 1 e2e 0.500"


def test_a_small_setting_is_not_shown_as_nothing():
    said = evaluation_table({"settings": {"temperature": 0.6, "top_p": 1e-9, "min_p": 0.0}})
    assert said.split(maxsplit=1)[1] == "temperature 0.6, top_p 1e-09, min_p 0"
