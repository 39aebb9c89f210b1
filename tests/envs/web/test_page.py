"""Pages in a real browser: what is seen, what is done, and each way in which it can go wrong by its name."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from envs.web.sites import needs_browser, pages, play

from forethought.core.errors import UserError
from forethought.envs.web.browser import DIALOGS, USES, Browser, Lost
from forethought.envs.web.page import check
from forethought.interface.actions import Action
from forethought.interface.elements import ground

pytestmark = needs_browser

FORM = """<h2>Sign&#8203; in</h2><label for=u>Name:</label><input id=u>
<label><input type=checkbox> Remember</label> <select id=c><option>red<option>light blue</select>
<p>Some <b>bold</b> text</p><button onclick="document.title=u.value">Go</button><div hidden>nothing</div>
<svg width=20 height=20><circle cx=5 cy=5 r=5 fill=red /></svg>
<span class=trash style="display:inline-block;width:9px;height:9px"></span>
<iframe srcdoc="<button>Inside</button>"></iframe><input type=date id=d><input readonly placeholder=fixed>"""


def ref(snapshot, words):
    return ground(words, snapshot.lines).value.ref


def test_a_form_is_read_and_filled(tmp_path):
    async def plan(browser, episode):
        one = episode()
        seen = await one.reset("form", 3)
        told = [f"{x.role} {x.name}".strip() for x in seen.lines]
        assert told == [
            "heading Sign in",
            "text Name:",
            "textbox Name:",
            "checkbox Remember",
            "select c",
            "option red",
            "option light blue",
            "text Some bold text",
            "button Go",
            "circle",
            "img trash",
            "button Inside",
            "textbox d",
            "textbox fixed",
        ]
        assert seen.lines[9].state[:2] == ("red", "10x10") and len(seen.lines[0].box) == 4
        assert seen.line(seen.lines[2].ref) is seen.lines[2] and seen.line("") is None
        again = await one.look()
        assert [x.ref for x in again.lines] != [x.ref for x in seen.lines]
        text = "it's \"so\" <b> ' </script>"
        for op, words, value, state in (
            ("type", 'textbox "Name:"', text, ("= " + text, "focused")),
            ("select", 'select "c"', "light blue", ("= light blue",)),
            ("click", 'checkbox "Remember"', None, ("checked", "focused")),
            ("type", 'textbox "d"', "04/29/2019", ("= 2019-04-29", "focused")),
        ):
            done = await one.act(Action(op=op, id=ref(one.snapshot, words), value=value))
            assert done.status == "done"
            assert ground(words, done.snapshot.lines).value.state == state
        go = Action(op="click", id=ref(one.snapshot, 'button "Go"'))
        assert (await one.act(go)).status == "done" and (await one.act(go)).status == "stale"
        assert await one._call("() => document.title") == text
        for op, words, value in (("select", 'select "c"', "green"), ("type", 'button "Go"', "x")):
            wrong = Action(op=op, id=ref(one.snapshot, words), value=value)
            assert (await one.act(wrong)).status == "refused"
        fixed = Action(op="type", id=ref(one.snapshot, 'textbox "fixed"'), value="x")
        assert (await one.act(fixed)).status == "disabled"
        taken, width, height = await one.picture((120, 10**6))
        assert taken.startswith(b"\x89PNG") and (width, height) == (120, browser.window.height)
        framed = ground('button "Inside"', one.snapshot.lines).value.box
        assert (
            framed[0] > ground('img "trash"', one.snapshot.lines).value.box[0]
        )  # of the window, not the frame
        await one.close()

    play(pages(tmp_path, form=FORM), plan)


MOUSE = """<style>@keyframes go {from {left: 0} to {left: 300px}}</style>
<button id=a>Under</button><div style="position:fixed;left:0;top:0;width:90px;height:40px"></div>
<p style="margin-top:60px"><button id=b onclick="this.textContent='hit'">Free</button></p><input id=t>
<button onclick="window.open('about:blank')">Opens</button>
<iframe srcdoc="<button onclick='this.textContent = 9'>Framed</button>" height=40></iframe>
<button style="position:fixed;top:200px;animation:go 1s linear infinite">Runs</button>"""


def test_a_mouse_hits_only_what_can_be_hit(tmp_path):
    async def plan(browser, episode):
        one = episode()
        await one.reset("mouse", 0)
        for op, words, value, status in (
            ("click", 'button "Under"', None, "covered"),
            ("click", 'button "Runs"', None, "moving"),
            ("click", 'button "Free"', None, "done"),
            ("click", 'button "Opens"', None, "done"),
            ("click", 'button "Framed"', None, "done"),
            ("type", "textbox", "aé日", "done"),
            ("press", "", "Backspace", "done"),
        ):
            at = ref(one.snapshot, words) if words else ""
            done = await one.act(Action(op=op, id=at, value=value))
            assert done.status == status, words
        assert ground('button "hit"', one.snapshot.lines).value
        assert ground('button "9"', one.snapshot.lines).value
        assert ground("textbox", one.snapshot.lines).value.state[0] == "= aé"
        await one.close()
        assert browser.counts["popups"] == 1

    play(pages(tmp_path, mouse=MOUSE), plan, "mouse")


MENU = """<button onclick="setTimeout(() => m.style.display = 'block', 250)">Menu</button>
<ul id=m style="display:none"><li>Entry</li></ul>"""


def test_a_page_that_answers_late_is_waited_for(tmp_path):
    async def plan(browser, episode):
        one = episode()
        seen = await one.reset("menu", 0)
        done = await one.act(Action(op="click", id=ref(seen, 'button "Menu"')))
        assert done.snapshot.lines[-1].name == "Entry"
        await one.close()

    play(pages(tmp_path, menu=MENU), plan)


BAD = {
    "hung": "<button onclick='for (;;);'>x</button>",
    "dialogs": "<button onclick='for (;;) alert(1)'>x</button>",
    "navigated": "<button onclick='location.href = \"fine.html\"'>x</button>",
    "fine": "<button onclick='throw 1'>x</button>",
}


def test_a_page_that_breaks_costs_its_own_episode(tmp_path):
    async def plan(browser, episode):
        good = episode()
        await good.reset("fine", 0)
        for task in ("hung", "dialogs", "navigated"):
            one = episode()
            seen = await one.reset(task, 0)
            with pytest.raises(Lost) as lost:
                await one.act(Action(op="click", id=seen.lines[0].ref))
            assert lost.value.status == task
            await one.close()
        assert (await good.act(Action(op="click", id=good.snapshot.lines[0].ref))).status == "done"
        await good.close()
        await asyncio.sleep(0.1)
        assert browser.counts["errors"] == 1 and browser.counts["starts"] == 1
        assert browser.counts["dialogs"] > DIALOGS

    play(pages(tmp_path, **BAD), plan)


def test_a_crashed_page_is_replaced_and_a_dead_browser_started_again(tmp_path):
    async def plan(browser, episode):
        one = episode()
        await one.reset("fine", 0)
        with suppress(Exception):
            await one._page.page.goto("chrome://crash")
        with pytest.raises(Lost, match="crashed"):
            await one.look()
        await one.close()
        two, three = episode(), episode()
        await two.reset("fine", 0)
        await browser._browser.close()
        with pytest.raises(Lost, match="lost"):
            await two.look()
        await two.close()
        assert (await three.reset("fine", 0)).lines[0].name == "x"
        await three.close()
        assert browser.counts["starts"] == 2 and browser.counts["crashed"] == browser.counts["lost"] == 1

    play(pages(tmp_path, fine=BAD["fine"]), plan)


def test_pages_are_used_again_and_not_for_ever(tmp_path):
    async def plan(browser, episode):
        for seed in range(USES + 2):
            one = episode()
            await one.reset("fine", seed)
            await one.close()
        assert browser.counts["opened"] == 2 and browser.pages == 1
        held = [episode() for _ in range(3)]
        for one in held:
            await one.reset("fine", 0)
        assert browser.pages == 3
        for one in held:
            await one.close()

    play(pages(tmp_path, fine="<p>x"), plan)


def test_a_page_that_is_not_there_is_said(tmp_path):
    async def plan(browser, episode):
        with pytest.raises(Lost, match="unreachable: .*nowhere.html"):
            await episode().reset("nowhere", 0)

    play(pages(tmp_path), plan)
    with pytest.raises(UserError, match="did not start as a browser"):
        play(pages(tmp_path, fine="x"), lambda b, e: e().reset("fine", 0), path="/bin/true")


def test_a_large_page_is_cut(tmp_path):
    async def plan(browser, episode):
        one = episode()
        seen = await one.reset("large", 0)
        assert seen.cut and len(seen.lines) == 2000
        await one.close()

    play(pages(tmp_path, large="<p>word</p>" * 20_000), plan)


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (Action(op="drag", id="e1"), "'drag' is none of click"),
        (Action(op="click"), "names no element"),
        (Action(op="click", id="e1", value="x"), "takes no value"),
        (Action(op="type", id="e1"), "takes a text"),
        (Action(op="select", id="e1", value=[]), "takes an option"),
        (Action(op="press", value="Meta+Q"), "is no key"),
    ],
)
def test_an_action_that_no_page_takes_is_refused(action, said):
    with pytest.raises(ValueError, match=said):
        check(action)


def test_a_browser_that_is_no_program():
    with pytest.raises(UserError, match="'/nowhere/chrome' is no program"):
        asyncio.run(Browser("/nowhere/chrome").take("about:blank"))
