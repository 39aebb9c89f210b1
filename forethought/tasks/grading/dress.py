r"""What changes the look of an answer alone, taken off: every text that says the same in other dress becomes
one text.

    undressed(r"**\(\dfrac12\)**.") == r"\frac{1}{2}"
    undressed(r"18\,\text{ cm}^2") == "18⟦cm⟧^{2}"

Words of \text{...} stand between ⟦ and ⟧, so that a unit or a word is never taken for a product of letters.
Currency signs, percent and degrees stay. Of signs with one meaning one is left: U+2212 and the hyphens are
"-", \cdot is "*", \le is "≤", \pi is "π".
"""

from __future__ import annotations

import re
import unicodedata

OPEN, CLOSE = "⟦", "⟧"  # around words

_FULLWIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_ALIKE = str.maketrans(
    {
        **dict.fromkeys("\u2212\u2010\u2011\ufe63\u02d7", "-"),
        **dict.fromkeys("\u2019\u2018\u02bc\u0060\u00b4", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u00ab\u00bb", '"'),
        "×": "*",
        "·": "*",
        "⋅": "*",
        "∙": "*",
        "•": "*",
        "∗": "*",
        "÷": "/",
        "∕": "/",
        "⁄": "/",
        "º": "°",
        "˚": "°",
        "\u2032": "'",
        "\u2033": '"',
        "𝜋": "π",
        "ϖ": "π",
        "⩽": "≤",
        "⩾": "≥",
        "≦": "≤",
        "≧": "≥",
        "∣": "|",
        "⟨": "〈",
        "⟩": "〉",
        "ℯ": "e",
        "ⅈ": "i",
        "∅": "∅",
        "Ø": "∅",
        "⌀": "∅",
        "µ": "μ",
        "…": "...",
        "⋯": "...",
        "∶": ":",
        "、": ",",
        "，": ",",
        "﹪": "%",
        "٪": "%",
        OPEN: "(",
        CLOSE: ")",
    }
)
_SUPER = {code: sign for code, sign in zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿ", "0123456789+-()n", strict=True)}
_SUB = {code: sign for code, sign in zip("₀₁₂₃₄₅₆₇₈₉₍₎", "0123456789()", strict=True)}
_RAISED, _LOWERED = re.compile(f"[{''.join(_SUPER)}]+"), re.compile(f"[{''.join(_SUB)}]+")
_VULGAR = {
    "½": (1, 2),
    "⅓": (1, 3),
    "⅔": (2, 3),
    "¼": (1, 4),
    "¾": (3, 4),
    "⅕": (1, 5),
    "⅖": (2, 5),
    "⅗": (3, 5),
    "⅘": (4, 5),
    "⅙": (1, 6),
    "⅚": (5, 6),
    "⅛": (1, 8),
    "⅜": (3, 8),
    "⅝": (5, 8),
    "⅞": (7, 8),
    "⅐": (1, 7),
    "⅑": (1, 9),
    "⅒": (1, 10),
}
_SPECIAL = re.compile(f"[{''.join(_VULGAR)}]")
_METRES = re.compile(r"(?<![A-Za-z\\])m(?=[²³])")  # nobody raises the letter m this way
# a dash for a minus: before a number
_DASH = re.compile(r"(?:^|(?<=[(\[{,=<>≤≥*/+^:;±⟦]))(\s*)[\u2012-\u2015](?=\s*[\d.\\$€£¥√πa-zA-Z∞])")

_SYMBOLS = {  # command -> sign
    "pi": "π",
    "infty": "∞",
    "infinity": "∞",
    "cdot": "*",
    "times": "*",
    "ast": "*",
    "div": "/",
    "le": "≤",
    "leq": "≤",
    "leqslant": "≤",
    "ge": "≥",
    "geq": "≥",
    "geqslant": "≥",
    "lt": "<",
    "gt": ">",
    "ne": "≠",
    "neq": "≠",
    "pm": "±",
    "mp": "∓",
    "cup": "∪",
    "cap": "∩",
    "in": "∈",
    "emptyset": "∅",
    "varnothing": "∅",
    "degree": "°",
    "circ": "∘",
    "ldots": "...",
    "dots": "...",
    "cdots": "...",
    "dotsc": "...",
    "lbrace": r"\{",
    "rbrace": r"\}",
    "lbrack": "[",
    "rbrack": "]",
    "langle": "〈",
    "rangle": "〉",
    "lvert": "|",
    "rvert": "|",
    "vert": "|",
    "mid": "|",
    "colon": ":",
    "land": "∧",
    "lor": "∨",
    "vee": "∨",
    "wedge": "∧",
    "euro": "€",
    "pounds": "£",
    "textdollar": "$",
    "texteuro": "€",
    "cent": "¢",
    "approx": "≈",
    "imath": "i",
    "exponentialE": "e",
    "setminus": "∖",
    "backslash": "∖",
    "to": "→",
    "rightarrow": "→",
    "prime": "'",
    "textdegree": "°",
    "lparen": "(",
    "rparen": ")",
    "mathbb{R}": "ℝ",
    "mathbb R": "ℝ",
    "Re": "ℝ",
    "textbackslash": "∖",
    "textpercent": "%",
    "percent": "%",
}
_LOOKS = re.compile(
    r"\\(?:left|right|displaystyle|textstyle|scriptstyle|limits|nolimits|bigl|bigr|Bigl|Bigr|biggl|biggr|big|Big|bigg|Bigg|middle"
    r"|bf|rm|it|sf"
    r"|tt|bfseries|itshape|large|Large|LARGE|huge|small|tiny|normalsize|centering|noindent|strut|nobreak|allowbreak|mathstrut|null|hfill"
    r"|boldmath|therefore|protect"
    r"|unboldmath|kern|mkern|mathrel|mathbin|mathord|mathop|mathpunct|mathopen|mathclose|qed|blacksquare|square|checkmark)"
    r"(?![A-Za-z])\s*\.?(?=[^\d]|\s*\d)|\\[/]|✓|✅"
)
_DOT_LEFT = re.compile(r"\\(?:left|right)\s*\.")
_SPACES = re.compile(
    r"(?<!\\)\\(?:[,;:> "
    r"\n]|quad(?![A-Za-z])|qquad(?![A-Za-z])|space(?![A-Za-z])|enspace(?![A-Za-z])|thinspace(?![A-Za-z])"
    r"|medspace(?![A-Za-z])|nbsp(?![A-Za-z]))|~|&nbsp;"
    r"|\\(?:hspace|vspace|phantom|hphantom|vphantom|label|tag)\*?\s*\{[^{}]*\}"
)
_WORDS = re.compile(
    r"\\(?:textbf|textit|textrm|textsf|texttt|textnormal|textup|textsc|textmd|text|mathrm|mbox|hbox|operatorname\*?|rm"
    r"|unit|si"
    r"|emph|mathtt|mathsf)\s*\{([^{}]*)\}"
)
_BARE = re.compile(
    r"\\(?:mathbf|mathit|mathcal|mathnormal|boldsymbol|bm|pmb|underline|uline|boxed|fbox|framebox|ensuremath|mathopen"
    r"|mathclose"
    r"|mathord|cancel|hl|underbrace|overbrace|sout|smash|num|mathstrut|bold)\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"
)
_ABOUT = re.compile(r"^(?:[=≈]|\\(?:approx|simeq|sim|doteq)(?![A-Za-z])) ?(?=[^=])")
_DECIMAL_COMMA = re.compile(
    r"(?<![\d.,}])(\d+) ?\{,\} ?(\d{1,2}|\d{4,})(?![\d{]| ?\{,\})"
)  # 3{,}5; 1{,}234 is a group
_BOX_TOKEN = re.compile(r"\\boxed\s*([0-9A-Za-z])(?![0-9A-Za-z])")
_COLOUR = re.compile(
    r"\\(?:textcolor|colorbox)\s*(?:\[[^\]]*\])?\s*\{[^{}]*\}|\\color\s*(?:\[[^\]]*\])?\s*\{[^{}]*\}"
)
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_FUNCTION_WORDS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log exp lcm gcd max min det".split()
)
_PAIRS = (
    ("\\(", "\\)"),
    ("\\[", "\\]"),
    ("$$", "$$"),
    ("$", "$"),
    ("***", "***"),
    ("**", "**"),
    ("__", "__"),
    ("*", "*"),
    ("`", "`"),
    ('"', '"'),
    ("'", "'"),
    ("<b>", "</b>"),
    ("<strong>", "</strong>"),
    ("<answer>", "</answer>"),
    ("``", "''"),
)
_END = re.compile(r"(?:\s|(?<!\\)[.,;:]|\\\\|\\$)+$")
_SAYS = re.compile(  # words that announce the answer and say nothing of it
    rf"^[\s{OPEN}]*(?:(?:so|thus|therefore|hence|then|and|my|the|our|its?|is|are|was|equals?|equal "
    rf"to|final|correct|right|answer|ans"
    r"|result|value"
    rf"|solution|total|sum|we|get|have|option|choice|would be|must be|will be|should "
    rf"be)[\s,:{OPEN}{CLOSE}]+)*"
    rf"(?:is|are|equals|equal "
    rf"to|be|answer|ans|get|have|option|choice)[\s:={OPEN}{CLOSE}]+(?=[^\s:={OPEN}{CLOSE}])",
    re.IGNORECASE,
)
_LABEL = re.compile(
    rf"^[\s{OPEN}]*(?=[A-Za-z])[A-Za-z][A-Za-z "
    rf",']{{2,40}}?[\s{CLOSE}]*:[\s{CLOSE}]*(?=[^\s{CLOSE}])"
)
_MINUS = re.compile(rf"^{OPEN}?(?:minus|negative){CLOSE}? ?(?=[\d.√]|\\frac|\\sqrt)")
_NOT = re.compile(
    r"\b(?:not|never|no|isn't|wrong|incorrect|false|except|neither|un\w+|less|more|least|most|over|under|about"
    r"|base|mod|remainder)\b",
    re.IGNORECASE,
)


def undressed(text: str) -> str:
    """See the module. Any text in, never an exception; at most a few times its length out."""
    text = _one_sign_each(text)
    before = None
    for _ in range(6):  # dress inside of dress
        if text == before:
            break
        before = text
        text = _off(text)
    text = _DECIMAL_COMMA.sub(r"\1.\2", _fractions(_commands(text)))
    text = re.sub(r" ?\{,\} ?", ",", text)
    text = _MINUS.sub("-", text.replace("{-}", "-").replace("+/-", "±"))
    return re.sub(r"\s+", " ", text).strip()


def _one_sign_each(text: str) -> str:
    if not (text.isascii() and text.isprintable()):
        text = unicodedata.normalize("NFC", _METRES.sub(f"{OPEN}m{CLOSE}", text.translate(_ALIKE)))
        text = text.translate(_FULLWIDTH)
        text = _RAISED.sub(lambda m: "^{" + "".join(_SUPER[c] for c in m[0]) + "}", text)
        text = _LOWERED.sub(lambda m: "_{" + "".join(_SUB[c] for c in m[0]) + "}", text)
        text = _SPECIAL.sub(lambda m: r"\frac{{{}}}{{{}}}".format(*_VULGAR[m[0]]), text)
        text = "".join(map(_plain_sign, text))
        text = _DASH.sub(r"\1-", text)
    return re.sub(r"\s+", " ", text).strip()


def _plain_sign(sign: str) -> str:
    if sign.isascii():
        return sign if sign.isprintable() else " " if sign.isspace() else ""
    if sign.isdecimal():
        return str(unicodedata.digit(sign, 0))
    if sign.isspace():
        return " "
    kind = unicodedata.category(sign)
    return "" if kind[0] == "C" and kind != "Cn" or kind == "Mn" and "\ufe00" <= sign <= "\ufe0f" else sign


def _off(text: str) -> str:
    """One layer."""
    if "\\" in text or "~" in text or "&" in text or "✓" in text or "✅" in text:
        text = _DOT_LEFT.sub("", text)
        text = re.sub(r"\s*(?<!\\)\\!\s*", "", text)
        text = _COLOUR.sub("", _SPACES.sub(" ", text))
        text = _BOX_TOKEN.sub(r"\1", text)
        text = re.sub(r"\\q?quad(?![A-Za-z])", " ", _LOOKS.sub(" ", text))
        text = _WORDS.sub(_word, text)
        text = _BARE.sub(
            lambda m: (
                m[1]
                if text.startswith("\\") and m.end() - m.start() == len(text)
                else " " + m[1] + " "
                if not re.search(r"[A-Za-z]", m[1])
                else m[1]
            ),
            text,
        )
    text = text.strip()
    for left, right in _PAIRS:
        if text.startswith(left) and text.endswith(right) and len(text) > len(left) + len(right):
            inner = text[len(left) : -len(right)]
            if left not in inner and right not in inner:
                text = inner.strip()
    text = re.sub(r"(?<!\*)\*\*(?=\S)([^*]+?)(?<=\S)\*\*(?!\*)", r"\1", text)  # bold inside of a sentence
    if "$" in text:
        text = _mathematics(text)
    text = _inner_braces(_ABOUT.sub("", text.replace("{}", "")))
    ended = _END.sub("", text)
    if ended and not re.search(r"\.\.\.\s*$", text):
        text = ended
    return _announced(text).strip()


def _announced(text: str) -> str:
    if text[:1].isalpha() or text[:1] == OPEN:
        for said in (_SAYS, _LABEL):
            match = said.match(text)
            if match and not _NOT.search(match[0]) and text[match.end() :].strip(" .,:"):
                rest = text[match.end() :]
                if rest.count(CLOSE) > rest.count(OPEN):
                    rest = OPEN + rest
                return rest
    return text


def _mathematics(text: str) -> str:
    r"""Dollar signs that open and close mathematics are dropped; \$ and a sign without a partner are money,
    written ＄ until then."""
    text = text.replace("\\$", "＄")
    if text.count("$") % 2 == 0:
        text = text.replace("$", " ")
    return text.replace("$", "＄")


def _word(match: re.Match[str]) -> str:
    inner = match[1].strip()
    if not re.search(r"[A-Za-zÀ-ɏ]", inner):
        return match[1] if inner else " "
    if inner in _FUNCTION_WORDS and match[0].startswith(("\\operatorname", "\\mathrm", "\\text{")):
        return "\\" + inner + " "
    if "mathrm" in match[0] and inner in ("e", "i", "d"):
        return inner
    return OPEN + inner.replace(OPEN, "").replace(CLOSE, "") + CLOSE


def _inner_braces(text: str) -> str:
    """`{24}` is 24: a brace that closes at the end."""
    if not (text.startswith("{") and text.endswith("}")):
        return text
    depth = 0
    for at, sign in enumerate(text):
        depth += (sign == "{") - (sign == "}")
        if depth == 0:
            return text[1:-1].strip() if at == len(text) - 1 else text
    return text


def _commands(text: str) -> str:
    if "\\" in text:
        text = re.sub(r"\^\s*\{?\s*\\circ\s*\}?", "°", text)
        text = re.sub(r"\\mathbb\s*\{?R\}?", "ℝ", text)
        text = re.sub(r"\\not\s*=", "≠", text)
        text = re.sub(
            r"\{([^{}]*)\\over(?![A-Za-z])([^{}]*)\}|^([^{}]*)\\over(?![A-Za-z])([^{}]*)$",
            lambda m: rf"\frac{{{(m[1] or m[3] or '').strip()}}}{{{(m[2] or m[4] or '').strip()}}}",
            text,
        )
        text = _COMMAND.sub(
            lambda m: _SYMBOLS[m[1]] + (" " if m[1] in ("pi",) else "") if m[1] in _SYMBOLS else m[0], text
        )
        text = (
            text.replace("\\%", "%")
            .replace("\\&", "&")
            .replace("\\_", "_")
            .replace("\\#", "#")
            .replace("\\|", "|")
        )
    text = re.sub(r"(?<![A-Za-z\\])pi(?![A-Za-z])", "π", text)
    text = re.sub(r"(?<=\d) ?(?:\^ ?(?:\{ ?o ?\}|o(?![A-Za-z]))|\\deg(?![A-Za-z]))", "°", text)
    return re.sub(r"\^\s*\{?\s*[°∘]\s*\}?", "°", text)


def _fractions(text: str) -> str:
    r"""Every fraction as \frac{a}{b}: \frac12, \frac1{2}, \dfrac and the rest."""
    if "frac" not in text:
        return text
    text = re.sub(r"\\(?:[dtcs]frac|nicefrac|flatfrac|xfrac)(?![A-Za-z])", r"\\frac", text)
    text = re.sub(r"\\frac\s*(\d)\s*(\d)(?!\})", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac\s*([\dA-Za-zπ])\s*(?=\{)", r"\\frac{\1}", text)
    text = re.sub(r"\\frac\s*([\dA-Za-zπ])\s*([\dA-Za-zπ])", r"\\frac{\1}{\2}", text)
    return re.sub(r"(\\frac\s*\{[^{}]*\})\s*([\dA-Za-zπ])", r"\1{\2}", text)
