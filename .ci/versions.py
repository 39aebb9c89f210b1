"""Requirements for the second environment of CI, one a line, from pyproject.toml.

python .ci/versions.py lowest     what opens models and files, at the lowest versions that the bounds
                                  allow
python .ci/versions.py extras     what the extras bring, but for the benchmarks' and the tests' own, and for
                                  one that does not go with the others
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

OPENS = ("transformers", "peft", "safetensors", "tokenizers")
# openenv takes an mcp below 2, verifiers the 2.0; what `web` brings needs a Chromium, which CI has not; what
# `screen` brings has hundreds of megabytes
OTHERS = ("test", "bench", "openenv", "web", "screen")


def main(which: str) -> list[str]:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    if which == "extras":
        return sorted(
            {r for name, some in project["optional-dependencies"].items() if name not in OTHERS for r in some}
        )
    bounds = dict(re.match(r"([\w-]+)>=([\w.]+)", r).groups() for r in project["dependencies"])
    # which the lowest transformers asks for
    return [f"{name}=={bounds[name]}" for name in OPENS] + ["huggingface_hub<2"]


if __name__ == "__main__":
    print(*main(sys.argv[1]), sep="\n")
