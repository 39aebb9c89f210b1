"""Hostile texts in names, paths, plans, answers and files: no raw control character reaches the terminal, no
page breaks or runs them."""

from __future__ import annotations

import functools
import gzip
import html.parser
import json
import re
import shutil
import unicodedata
from pathlib import Path

from attacks_kit import children, damage, kills
from attacks_kit.records import Outcome, Try, failed, held, rng_of, skipped

PAYLOADS = {
    "ESC": "\x1b]0;TITLE\x07\x1b[2J\x1b[31m",
    "BEL": "a\x07b",
    "CSI in one sign": "\x9b31mred",
    "backspaces": "abc\x08\x08\x08xyz",
    "return": "safe\rEVIL",
    "bidi": "\u202egnp.exe\u202c",
    "isolates": "\u2066\u2067x\u2069",
    "marks": "\u200f\u061cx",
    "a half character": "\ud800x",
    "the other half": "x\udfff",
    "a script": "</script><script>alert(1)</script>",
    "an image": "<img src=x onerror=alert(1)>",
    "a comment": "<!--<script>",
    "NUL": "a\x00b",
    "line separators": "a\u2028b\u2029c",
    "DEL": "a\x7fb",
    "tags": "\U000e0001\U000e0041",
    "long": "x" * 100_000,
    "zero width": "a\u200bb\ufeffc",
}
BIDI = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")
FIELDS = (
    "recipe name",
    "stage name",
    "decision reason",
    "tree text",
    "tree prompt",
    "tree reason",
    "tree task",
    "summary name",
    "metric name",
    "role",
    "format",
)
PLACES = (
    "--out",
    "--resume",
    "RECIPE",
    "--set",
    "--model",
    "report DIR",
    "eval SOURCE",
    "traces --task",
    "stage name of a recipe",
    "task option",
    "recipe name of a recipe",
    "file name in a run",
)


def tries(scale: float, seed: int) -> list[Try]:
    found = [
        Try(f"texts/{field}/{name}", functools.partial(in_a_run, field, payload))
        for field in FIELDS
        for name, payload in PAYLOADS.items()
    ]
    found += [
        Try(f"texts/{place}/{name}", functools.partial(on_the_line, place, payload))
        for place in PLACES
        for name, payload in PAYLOADS.items()
    ]
    return found if scale >= 1 else rng_of("texts", seed).sample(found, max(6, round(scale * len(found))))


def in_a_run(field: str, payload: str, folder: Path) -> Outcome:
    """A finished run whose files hold the payload: its page and its trees."""
    out = folder / "run"
    shutil.copytree(damage.base_of("adapters").folder / "finished" / "run", out)
    put(out, field, payload)
    report = children.run(["report", out], folder / "logs")
    traces = children.run(["traces", out, "--full", "--n", "0"], folder / "logs")
    wrong = [
        f"{verb}: {why}"
        for verb, ended in (("report", report), ("traces", traces))
        if (why := children.untyped(ended) or raw(ended.text))
    ]
    if report.code == 0:
        wrong += [f"page: {why}" for why in [page(out / "report.html")] if why]
    return failed("; ".join(wrong)) if wrong else held(reason=f"report {report.code}, traces {traces.code}")


def put(out: Path, field: str, payload: str) -> None:
    """The payload in one field of a run's files."""

    def lines(name: str, change) -> None:
        rows = [json.loads(line) for line in (out / name).read_text(encoding="utf-8").splitlines()]
        for row in rows:
            change(row)
        (out / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def table(name: str, change) -> None:
        said = json.loads((out / name).read_text(encoding="utf-8"))
        change(said)
        (out / name).write_text(json.dumps(said), encoding="utf-8")

    def trees(change) -> None:
        for path in (out / "trees").glob("*.gz"):
            found = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
            for tree in found:
                change(tree)
            path.write_bytes(gzip.compress("".join(json.dumps(t) + "\n" for t in found).encode(), mtime=0))

    node = {"tree text": "text", "tree reason": "reason"}
    if field in node:
        trees(lambda tree: tree["nodes"][1].update({node[field]: payload, "status": "refused"}))
    elif field in ("tree prompt", "tree task"):
        trees(lambda tree: tree.update({field.split()[1]: payload}))
    elif field == "recipe name":
        table("recipe.json", lambda r: r.update(name=payload))
    elif field == "stage name":
        table("recipe.json", lambda r: r["stage"][0].update(name=payload))
        lines("metrics.jsonl", lambda row: row.update(stage_name=payload))
    elif field == "role":
        table("summary.json", lambda s: s["stages"][0].update(roles=[payload]))
    elif field == "format":
        table("recipe.json", lambda r: r["probes"].update(formats={"x": payload}))
    elif field == "decision reason":
        lines("decisions.jsonl", lambda row: row.update(reason=payload, name=payload))
    elif field == "summary name":
        table("summary.json", lambda s: s.update(name=payload))
    else:
        lines("metrics.jsonl", lambda row: row.update({f"eval/{payload}": 0.5}))


def on_the_line(place: str, payload: str, folder: Path) -> Outcome:
    """The payload as part of a command; nothing needs to work, everything must be said without harm."""
    if "\x00" in payload:
        return skipped("no argument of a process holds a NUL")
    payload = payload[:200] if place not in ("--set", "task option") else payload
    path = folder / f"d{payload.replace('/', '_')}"
    recipe = kills._recipe("shared-fp32", folder)
    tables = json.loads(recipe.read_text(encoding="utf-8"))
    if place == "stage name of a recipe":
        tables["stage"][0]["name"] = payload
    elif place == "recipe name of a recipe":
        tables["name"] = payload
    elif place == "task option":
        tables["task"] |= {payload: payload}
    tables["stage"] = tables["stage"][:1]
    tables["stage"][0]["until"]["steps"] = 2
    recipe.write_text(json.dumps(tables), encoding="utf-8")
    argv = {
        "--out": ["train", recipe, "--out", path],
        "--resume": ["train", "--resume", path],
        "RECIPE": ["train", path],
        "--set": ["train", recipe, "--set", f"name={payload}", "--dry-run"],
        "--model": ["train", recipe, "--model", path, "--out", folder / "r"],
        "report DIR": ["report", path],
        "eval SOURCE": ["eval", path],
    }.get(place, ["train", recipe, "--out", folder / "r"])
    if place in ("traces --task", "file name in a run"):
        shutil.copytree(damage.base_of("adapters").folder / "finished" / "run", folder / "run")
        argv = ["traces", folder / "run", "--task", payload]
        if place == "file name in a run":
            try:
                (folder / "run" / "trees" / f"step-{payload.replace('/', '_')[:100]}.jsonl.gz").write_bytes(
                    b"x"
                )
            except (OSError, ValueError) as error:
                return skipped(f"no file can have such a name: {error}")
            argv = ["traces", folder / "run", "--n", "0"]
    try:
        ended = children.run([_argument(a) for a in argv], folder / "logs")
    except (OSError, UnicodeEncodeError) as error:
        return skipped(f"no argument can hold this: {error}")
    why = children.untyped(ended) or raw(ended.text)
    pages = list(folder.rglob("report.html"))
    why = why or next((w for p in pages if (w := page(p))), "")
    return failed(why) if why else held(reason=f"exit {ended.code}")


def _argument(value: object) -> str:
    """As the system passes it: half a character is bytes that are not UTF-8."""
    return str(value).encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")


def raw(text: str) -> str:
    """The first control character that a terminal would act on, or ""."""
    for at, sign in enumerate(text):
        if (unicodedata.category(sign) == "Cc" and sign not in "\n\t") or sign in BIDI:
            if (
                sign == "\r"
                and text[at : at + 2] == "\r\n"
                or sign == "\r"
                and "Loading weights" in text[at : at + 40]
            ):
                continue  # a bar that a library draws
            return f"raw {sign!r} reaches the terminal, in {text[max(0, at - 40) : at + 10]!r}"
    return ""


class _Page(html.parser.HTMLParser):
    """Which elements a page has, and attributes that run something."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.runs: list[str] = []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.seen.append(tag)
        self.runs += [f"{tag} {name}" for name, _ in attributes if name.startswith("on")]


def page(path: Path) -> str:
    """What is wrong with a page, or "": it is not UTF-8, holds control characters or bidirectional marks, an
    element that nobody put there, or data that cannot be read."""
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        return f"is not UTF-8: {error}"
    if bad := next(
        (c for c in text if (unicodedata.category(c) == "Cc" and c not in "\n\t\r") or c in BIDI), None
    ):
        return f"holds {bad!r} raw"
    found = _Page()
    found.feed(text)
    if "img" in found.seen or found.runs:
        return f"has {'an <img>' if 'img' in found.seen else found.runs[0]}"
    for data in re.findall(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL):
        try:
            json.loads(data)
        except ValueError as error:
            return f"has data that is not JSON: {error}"
    return "" if "</html>" in text.lower()[-200:] or "html" in text[:200].lower() else "has no end"
