"""The header of a GGUF file (llama.cpp's format, versions 2 and 3): its fields, and where each tensor lies.
No weight is read. Everything here raises ValueError with what is wrong; who opens the file says of which.

A file is somebody else's: every count and every offset is held against the file's own size before anything
follows from it.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

MAGIC, VERSIONS = b"GGUF", (2, 3)
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, ARRAY = 8, 9  # types of a field that are no number
MOST_DIMENSIONS = 4
# number of a type of tensor -> its name, the numbers in a block, the bytes of one
TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
}
PLAIN = ("F32", "F16", "BF16")  # numbers as they are


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor. `shape`: rows first, as torch has it. `start`, `size`: its bytes in the file."""

    kind: str
    shape: tuple[int, ...]
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Header:
    path: Path
    fields: Mapping[str, Any]
    tensors: Mapping[str, Stored]

    @property
    def architecture(self) -> str:
        """llama.cpp's name for the kind of model."""
        found = self.fields.get("general.architecture")
        if not isinstance(found, str):
            raise ValueError("it does not say of which architecture it is (general.architecture)")
        return found

    def own(self, key: str, default: Any = None) -> Any:
        """A field of the architecture."""
        return self.fields.get(f"{self.architecture}.{key}", default)

    @property
    def kinds(self) -> dict[str, int]:
        """Type of a tensor -> how many numbers are stored in it, the most first."""
        found: dict[str, int] = {}
        for tensor in self.tensors.values():
            found[tensor.kind] = found.get(tensor.kind, 0) + prod(tensor.shape)
        return dict(sorted(found.items(), key=lambda item: -item[1]))


def is_gguf(path: Path) -> bool:
    """Whether a file begins as a GGUF does."""
    try:
        with open(path, "rb") as file:
            return path.is_file() and file.read(4) == MAGIC
    except OSError:
        return False


def lacks_model(path: str) -> bool:
    """Whether a path means a folder or file, and none with a model: neither a GGUF file nor a config.json. A
    name is left to the hub. ValueError as `file_at` raises it."""
    local = Path(path).expanduser()
    if file_at(path) or (local / "config.json").is_file():
        return False
    return local.exists() or path.startswith((".", "/", "~"))


def file_at(path: str) -> Path | None:
    """The GGUF file that a path means: itself, or the one in a folder without a model of another format; None
    where it means none. ValueError for a folder with several, and for a file that only has the name."""
    local = Path(path).expanduser()
    if local.is_dir():
        if any(local.glob("*.safetensors")) or any(local.glob("*.safetensors.index.json")):
            return None
        found = sorted(local.glob("*.gguf"))
        if len(found) > 1:
            raise ValueError(
                f"it holds {len(found)} GGUF files ({', '.join(file.name for file in found[:4])}"
                f"{', ...' if len(found) > 4 else ''}); name the one to begin with"
            )
        return found[0] if found else None
    if not local.is_file():
        return None
    if is_gguf(local):
        return local
    if local.suffix == ".gguf":
        raise ValueError("it is no GGUF file: it does not begin with the word GGUF")
    return None


def read_header(path: Path) -> Header:
    """Fields and places of tensors. ValueError where the file is torn, of another version, one of several
    parts, or holds a type of numbers that is not known."""
    with open(path, "rb") as file:
        if path.stat().st_size < 24:
            raise ValueError("it is torn: it ends within its header")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _Reader(data).header(path)
            except struct.error:
                raise ValueError("it is torn: it ends within its header") from None
            except UnicodeDecodeError as e:
                raise ValueError(f"its header holds a text that is not UTF-8 ({e.reason})") from None


class _Reader:
    """A place in the file that moves on."""

    def __init__(self, data: mmap.mmap):
        self.data, self.at = data, 4

    def header(self, path: Path) -> Header:
        if self.data[:4] != MAGIC:
            raise ValueError("it is no GGUF file: it does not begin with the word GGUF")
        version = self.number("I")
        if version not in VERSIONS:
            hint = " (its bytes are in the other order)" if version >> 16 else ""
            raise ValueError(f"it is a GGUF of version {version}{hint}; versions 2 and 3 are read")
        tensors, fields = self.count("tensors"), self.count("fields")
        said = self.fields(fields)
        if said.get("split.count", 0) not in (0, 1):
            raise ValueError(
                f"it is one of {said['split.count']} parts; join them first (llama-gguf-split --merge "
                "FIRST.gguf WHOLE.gguf)"
            )
        return Header(path, said, self.tensors(tensors, said.get("general.alignment", 32)))

    def fields(self, count: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(count):
            key = self.text()
            if key in found:
                raise ValueError(f"its header gives {key} twice")
            found[key] = self.value(self.number("I"), key)
        return found

    def tensors(self, count: int, alignment: object) -> dict[str, Stored]:
        if type(alignment) is not int or not 0 < alignment <= 1 << 20:
            raise ValueError(f"general.alignment = {alignment!r} is no number of bytes")
        found: dict[str, tuple[int, tuple[int, ...], int]] = {}
        for _ in range(count):
            name, dimensions = self.text(), self.number("I")
            if name in found:
                raise ValueError(f"its header gives the tensor {name} twice")
            if dimensions > MOST_DIMENSIONS:
                raise ValueError(f"tensor {name} has {dimensions} dimensions; at most {MOST_DIMENSIONS} are")
            shape = tuple(self.number("Q") for _ in range(dimensions))
            found[name] = (self.number("I"), shape[::-1], self.number("Q"))
        start = -(-self.at // alignment) * alignment
        return {name: self.placed(name, *rest, start) for name, rest in found.items()}

    def placed(self, name: str, kind: int, shape: tuple[int, ...], offset: int, start: int) -> Stored:
        if kind not in TYPES:
            raise ValueError(f"tensor {name} is stored in a type with the number {kind}, which is not known")
        said, block, bytes_ = TYPES[kind]
        if not shape or prod(shape) == 0 or shape[-1] % block:
            raise ValueError(f"tensor {name} has the shape {list(shape)}, which {said} cannot hold")
        size = prod(shape) // block * bytes_
        if start + offset + size > len(self.data):
            raise ValueError(f"it is torn: tensor {name} would lie beyond its end")
        return Stored(said, shape, start + offset, size)

    def count(self, what: str) -> int:
        found = self.number("Q")
        if found > len(self.data):
            raise ValueError(f"its header says {found:,} {what}, more than it has bytes")
        return found

    def number(self, code: str) -> Any:
        (found,) = struct.unpack_from(f"<{code}", self.data, self.at)
        self.at += struct.calcsize(code)
        return found

    def text(self) -> str:
        size = self.count("characters")
        if self.at + size > len(self.data):
            raise ValueError("it is torn: it ends within its header")
        self.at += size
        return self.data[self.at - size : self.at].decode("utf-8")

    def value(self, kind: int, key: str) -> Any:
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind == TEXT:
            return self.text()
        if kind != ARRAY:
            raise ValueError(f"its field {key} is of a type with the number {kind}, which is not known")
        inner, size = self.number("I"), self.count("values")
        if inner == TEXT:
            return [self.text() for _ in range(size)]
        if inner not in NUMBERS:
            raise ValueError(
                f"its field {key} is a list of a type with the number {inner}, which is not read"
            )
        code = NUMBERS[inner]
        found = list(struct.unpack_from(f"<{size}{code}", self.data, self.at))
        self.at += size * struct.calcsize(code)
        return found
