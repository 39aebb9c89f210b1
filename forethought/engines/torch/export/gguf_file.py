"""The bytes of a GGUF file (version 3): fields, places of tensors, and their numbers, written one tensor at a
time."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch

from forethought.engines.gguf_header import ARRAY, MAGIC, TEXT, TYPES

ALIGNMENT = 32
KINDS = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
NUMBER = {name: number for number, (name, _, _) in TYPES.items()}
# of a field: Python's type -> the file's number for it, and its code; a bool is also an int
SCALARS = ((bool, 7, "?"), (int, 4, "I"), (float, 6, "f"))
Tensors = Callable[[], Iterable[tuple[str, torch.Tensor]]]


def write_file(to: Path, fields: Mapping[str, Any], tensors: Tensors) -> None:
    """`fields`: whole numbers, floats, texts, truth values, or lists of one of them. `tensors` is asked
    twice: for their places, and for their numbers."""
    places, offset = [], 0
    for name, tensor in tensors():
        places.append((name, tuple(tensor.shape), tensor.dtype, offset))
        offset += -(-tensor.numel() * tensor.element_size() // ALIGNMENT) * ALIGNMENT
    with open(to, "wb") as file:
        file.write(MAGIC + struct.pack("<IQQ", 3, len(places), len(fields)))
        for key, value in fields.items():
            _text(file, key)
            _field(file, value)
        for name, shape, dtype, at in places:
            _text(file, name)
            file.write(struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1]))
            file.write(struct.pack("<IQ", NUMBER[KINDS[dtype]], at))
        _align(file)
        for _, tensor in tensors():
            file.write(tensor.contiguous().view(torch.uint8).numpy().data)
            _align(file)


def _text(file: BinaryIO, text: str) -> None:
    raw = text.encode()
    file.write(struct.pack("<Q", len(raw)) + raw)


def _field(file: BinaryIO, value: Any) -> None:
    if isinstance(value, str):
        file.write(struct.pack("<I", TEXT))
        _text(file, value)
    elif isinstance(value, Sequence):
        _list(file, value)
    else:
        number, code = _scalar(value)
        file.write(struct.pack(f"<I{code}", number, value))


def _list(file: BinaryIO, values: Sequence[Any]) -> None:
    if values and isinstance(values[0], str):
        file.write(struct.pack("<IIQ", ARRAY, TEXT, len(values)))
        for value in values:
            _text(file, value)
        return
    # llama.cpp reads whole numbers in lists as signed ones
    number, code = _scalar(values[0]) if values else (6, "f")
    number, code = (5, "i") if number == 4 else (number, code)
    file.write(struct.pack(f"<IIQ{len(values)}{code}", ARRAY, number, len(values), *values))


def _scalar(value: Any) -> tuple[int, str]:
    return next((number, code) for kind, number, code in SCALARS if isinstance(value, kind))


def _align(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % ALIGNMENT))
