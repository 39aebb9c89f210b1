"""Tensors to disk, with a full disk reported as what it is."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """A safetensors file. safetensors wraps the system's error; it is an OSError again here, with its number."""
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as e:
        found = re.search(r"(?:os error|code:) (\d+)", str(e))
        number = int(found.group(1)) if found else errno.EIO
        raise OSError(number, f"cannot write tensors ({e})", str(path)) from e
