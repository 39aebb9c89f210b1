"""A recipe of blink, think and link on the desk, and what a fake engine may say in each role."""

from __future__ import annotations

from forethought.engines.fake.engine import FakeEngine

ROLES = ("blink", "think", "link")
TASK = {
    "name": "desk",
    "levels": [1, 2],
    "widgets": 4,
    "plans": "path",
    "tags": {"plan": "think", "act": "link"},
}
IMITATE = {"kind": "imitate", "until": {"steps": 2}, "batch": 4}
REINFORCE = {
    "kind": "reinforce",
    "until": {"steps": 2},
    "batch": 2,
    "tree": {"blink": 3, "think": 2, "link": 2},
    "credit": {"name": "role_baseline"},
    "reward": {"blink": {"valid": 1}, "think": {"valid": 1}, "link": {"outcome": 1}},
}


def choices(text: str, role: str) -> list[str]:
    """For each role a wrong turn, the right one, and one that the interface refuses (links: one without an
    end)."""
    screen, _, asked = text.partition(" GOAL ")
    words, (goal, value, *said) = screen.split(), asked.split()
    parent = {words[i]: words[i + 1] for i in range(0, len(words), 4)}
    cell = {words[i]: words[i + 2 : i + 4] for i in range(0, len(words), 4)}
    path = [goal]
    while parent[path[-1]] != "desk":
        path.append(parent[path[-1]])
    if role == "blink":
        return [f"{min(set(parent) - {goal})} </blink>", f"{' '.join(path)} </blink>", "GOAL </blink>"]
    if role == "think":
        return [f"{goal} {goal} </think>", f"{' '.join(path[::-1])} </think>", "GOAL </think>"]
    plan = said[said.index("<think>") + 1 : said.index("</think>")]
    clicks = " ".join(" ".join([name, *cell[name]]) for name in plan)
    return [f"{clicks} v{(int(value[1:]) + 1) % 8} </link>", f"{clicks} {value} </link>", f"{value} {clicks}"]


def engine_of(recipe, taskset, **fields) -> FakeEngine:
    stops = {role: taskset.stop(role) for role in ROLES}
    return FakeEngine(taskset.words(ROLES), stops, choices=choices, **fields)
