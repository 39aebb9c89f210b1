"""The verb that writes a run's models for other programs: export."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from forethought.cli.arguments import Verbs, add_trust, from_zero, verb
from forethought.core.printable import printable


def add_export(verbs: Verbs) -> None:
    """Declare `export RUN`."""
    parser = verb(
        verbs,
        "export",
        _export,
        "write a run's models as folders that transformers, vLLM and llama.cpp open, with a model card each",
    )
    parser.add_argument(
        "run",
        metavar="RUN",
        type=Path,
        help="a run directory, or a checkpoint in one (RUN/checkpoints/step-400)",
    )
    parser.add_argument(
        "--step", metavar="N", type=from_zero, help="the checkpoint of this step (default: the newest)"
    )
    parser.add_argument(
        "--role", metavar="NAME", help="the weights that speak this role alone (default: all)"
    )
    parser.add_argument(
        "--merge", action="store_true", help="whole models, with adapters added into their base"
    )
    parser.add_argument(
        "--gguf",
        metavar="PRECISION",
        nargs="?",
        const="f16",
        choices=("f16", "f32"),
        help="also a file for llama.cpp beside each, f16 or f32 (implies --merge)",
    )
    parser.add_argument(
        "--to", metavar="DIR", type=Path, help="a folder that is new or empty (default: RUN/export/step-N)"
    )
    add_trust(parser)


def _export(args: argparse.Namespace) -> int:
    from forethought.exports import command, export

    exported = export(
        args.run,
        step=args.step,
        to=args.to,
        role=args.role,
        merge=args.merge,
        gguf=args.gguf,
        tell=lambda text: print(printable(text), file=sys.stderr, flush=True),
    )
    print(printable(command(exported), keep="\n"))
    return 0
