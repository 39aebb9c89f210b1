"""Several values in one answer: lists, sets, tuples and intervals, unions, plus or minus, matrices."""

from __future__ import annotations

import re

from forethought.tasks.grading.value import MOST_ITEMS, Inner, Value, split

_MATRIX = re.compile(
    r"\\begin ?\{([bpvBV]?matrix|smallmatrix|array)\}(?: ?\{[clr| ]*\})?(.*)\\end "
    r"?\{\1\}",
    re.DOTALL,
)
_MATRIX_KIND = {"vmatrix": "determinant", "Vmatrix": "norm"}


def matrix(text: str, inner: Inner) -> Value | None:
    """A LaTeX matrix of at most MOST_ITEMS cells."""
    if "\\begin" not in text:
        return None
    bare = text[1:-1].strip() if text[:1] + text[-1:] in ("()", "[]") else text
    match = _MATRIX.fullmatch(bare)
    if match is None or "\\begin" in match[2]:
        return None
    rows = [row.split("&") for row in re.split(r"\\\\", match[2]) if row.strip()]
    if not rows or sum(map(len, rows)) > MOST_ITEMS:
        return None
    return Value(
        "matrix",
        (_MATRIX_KIND.get(match[1], ""), tuple(tuple(inner(cell.strip()) for cell in row) for row in rows)),
    )


def union(text: str, inner: Inner) -> Value | None:
    """Two or more sets or intervals joined by ∪."""
    if "∪" not in text:
        return None
    parts = split(text, "∪")
    if parts is None or not 2 <= len(parts) <= MOST_ITEMS or not all(part.strip() for part in parts):
        return None
    items = tuple(inner(part.strip()) for part in parts)
    if all(item.kind == "set" for item in items):
        return Value("set", tuple(one for item in items for one in item.body))
    return Value("union", items)


_OR = re.compile(r" ?,? ?⟦ ?,? ?(?:and|or|,) ?⟧ ?| ?,? (?:and|or) ")


_VALUED = re.compile(r"[\d=<>≤≥≠∈]")


def listed(text: str, inner: Inner) -> Value | None:
    """Values separated by commas, semicolons, "or" and "and"."""
    if "∧" in text or "∨" in text:
        if not all(_VALUED.search(part) for part in re.split("[∧∨]", text)):
            return None  # p ∧ q is logic; x = 1 ∨ x = 2 is two values
        text = text.replace("∧", "⟦and⟧").replace("∨", "⟦or⟧")
    joined = _OR.sub(";", text) if "or" in text or "and" in text or "⟦" in text else text
    if joined != text and ";" in joined and not all(part.strip() for part in joined.split(";")):
        return None
    parts = split(joined, ";" if ";" in joined and "," not in joined else ",;")
    if parts is None or len(parts) < 2 or len(parts) > MOST_ITEMS:
        return None
    parts = [part.strip() for part in parts]
    if not all(parts):
        return None
    if any(
        re.match(r"[⟦ ]*(?:so|then|where|which|but|with|for|if|because|since|when)\b", part)
        for part in parts[1:]
    ):
        return None
    items = tuple(inner(part) for part in parts)
    if all(item.kind == "tuple" and item.name and _opens(item) for item in items) and "⟦or⟧" in text.replace(
        " ", ""
    ) + ("⟦or⟧" if re.search(r"\bor\b", text) else ""):
        return Value("union", items, name=items[0].name)
    if any(item.kind == "words" and not item.body for item in items):
        return None
    return Value("list", _flat(items))


def _opens(item: Value) -> bool:
    return len(item.body[1]) == 2


def _flat(items: tuple[Value, ...]) -> tuple[Value, ...]:
    """A list in a list (`1, \\pm 2`) is one list."""
    flat: list[Value] = []
    for item in items:
        flat += item.body if item.kind == "list" and not item.unit else [item]
    return tuple(flat)


def plus_or_minus(text: str, inner: Inner) -> Value | None:
    """Two scalars from one "±"."""
    if (
        "±" not in text
        and "∓" not in text
        or text.count("±") + text.count("∓") > 2
        or split(text, ",;=<>") not in ([text],)
    ):
        return None
    plus, minus = text.replace("±", "+").replace("∓", "-"), text.replace("±", "-").replace("∓", "+")
    items = tuple(inner(side.strip().removeprefix("+").strip()) for side in (plus, minus))
    return Value("list", items) if all(item.kind == "scalar" for item in items) else None


_BRACKETS = {"(": ")]", "[": ")]", "〈": "〉"}
_BUILT = re.compile(r"([a-z])(?: ?∈ ?ℝ)? ?[:|] ?(.+)", re.DOTALL)


def bracketed(text: str, inner: Inner) -> Value | None:
    """A set, tuple, interval or sequence, by its brackets."""
    if text.startswith("\\{") and text.endswith("\\}") or text.startswith("{") and text.endswith("}"):
        cut = 2 if text[0] == "\\" else 1
        said = text[cut:-cut].strip()
        if not said:
            return Value("words", "∅")
        if (
            (built := _BUILT.fullmatch(said))
            and (found := inner(built[2])).kind == "tuple"
            and found.name == built[1]
        ):
            return found  # {x : 1 < x < 2}
        parts = split(said, ",;")
        if (
            parts is None
            or len(parts) > MOST_ITEMS
            or not all(part.strip() for part in parts)
            or cut == 1
            and len(parts) == 1
        ):
            return None
        return Value("set", _flat(tuple(inner(part.strip()) for part in parts)))
    if text[:1] == "]" or text[:1] in ("[", "(") and text[-1:] == "[":  # ]1, 2[ is (1, 2)
        text = text[0].replace("]", "(") + text[1:-1] + text[-1].replace("[", ")")
    if text[:1] not in _BRACKETS or text[-1:] not in _BRACKETS[text[0]]:
        return None
    parts = split(text[1:-1], ",;")
    if parts is None or not 2 <= len(parts) <= MOST_ITEMS or not all(part.strip() for part in parts):
        return None
    return Value("tuple", (text[0], tuple(inner(part.strip()) for part in parts), text[-1]))
