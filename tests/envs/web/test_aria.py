"""Playwright's accessible tree as lines: a golden tree, quotes, unicode, frames, and rows that are none."""

from __future__ import annotations

import pytest

from forethought.envs.web.aria import lines, tree
from forethought.envs.web.snapshot import line_text

TREE = """\
- generic [active] [ref=e1]:
  - heading "Sign in" [level=2] [ref=e2]
  - generic [ref=e3]:
    - text: Username
    - textbox [ref=e4]: "bo: \\"x\\"\\n\\xe9"
  - paragraph [ref=e5]: Your password
  - textbox [active] [ref=e6]:
    - /placeholder: Password
  - checkbox "T3" [checked] [ref=e7]
  - text: T3
  - radio [ref=e8]
  - text: other
  - combobox "Colour" [ref=e9]:
    - option "red" [selected]
    - option "light blue"
  - 'button "Save: it''s \\"日本\\"" [disabled] [ref=e10]'
  - link "Home" [ref=e11] [cursor=pointer]:
    - /url: "#"
  - tablist [ref=e12]:
    - tab "One" [selected] [ref=e13]
  - iframe [ref=e14]:
    - button "Inside" [ref=f1e2]
  - generic [ref=e15] [cursor=pointer]: Tulsa
  - img [ref=e16]
  - generic [aria-hidden] [ref=e17]:
    - text: nobody is told
"""


def test_a_tree_is_read_as_lines():
    assert [line_text(line) for line in lines(TREE)] == [
        'heading "Sign in" [e2]',
        'text "Username" [e3]',
        'textbox "Username" [e4] = bo: "x" é',
        'text "Your password" [e5]',
        'textbox "Password" [e6] focused',
        'checkbox "T3" [e7] checked',
        'radio "other" [e8]',
        'text "other" [e1]',
        'select "Colour" [e9] = red',
        "option red",
        "option light blue",
        'button "Save: it\'s \\"日本\\"" [e10] disabled',
        'link "Home" [e11]',
        'tab "One" [e13] open',
        'button "Inside" [f1e2]',
        'text "Tulsa" [e15]',
        "img [e16]",
    ]


def test_what_is_no_row_is_refused_with_its_number():
    assert tree("") == []
    for wrong in ("- generic\nbutton", "- generic [ref=e1]:\n  - 'button", '- button "x" y'):
        with pytest.raises(ValueError, match=r"row [123] of the accessible tree cannot be read"):
            tree(wrong)


def test_a_field_in_a_table_is_named_by_its_row_and_a_tab_by_the_link_in_it():
    shown = """\
- table [ref=e1]:
  - row [ref=e2]:
    - rowheader "Director:" [ref=e3]
    - cell [ref=e4]:
      - textbox [ref=e5]
  - row [ref=e6]:
    - cell [ref=e7]:
      - textbox [ref=e8]
- tablist [ref=e9]:
  - tab [expanded] [selected] [ref=e10]:
    - 'link "Tab #1" [ref=e11]':
      - /url: "#tabs-1"
  - tab [ref=e12]:
    - button "Submit" [ref=e13]"""
    assert [line_text(line) for line in lines(shown)] == [
        'cell "Director:" [e3]',
        'textbox "Director" [e5]',
        "textbox [e8]",
        'tab "Tab #1" [e11] open',
        'button "Submit" [e13]',
    ]
