"""The command line: one verb per thing to do. Heavy imports happen inside the verbs, so `--help` answers at
once.

Exit codes: 0 done; the others are those of faults.py.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from forethought import __version__
from forethought.cli.arguments import Parser
from forethought.cli.arms import add_arms
from forethought.cli.check import add_check
from forethought.cli.explain import add_explain
from forethought.cli.export import add_export
from forethought.cli.faults import explain
from forethought.cli.grams import add_grams
from forethought.cli.look import add_eval, add_sample, add_swap
from forethought.cli.new import add_new
from forethought.cli.pages import add_compare, add_recipes, add_report
from forethought.cli.runs import add_runs, add_watch
from forethought.cli.traces import add_traces
from forethought.cli.train import add_train
from forethought.core.consent import trusting


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code (argparse itself exits with 2 for a wrong command line)."""
    for stream in (sys.stdout, sys.stderr):
        # a terminal that knows ASCII or cp1252 alone is shown codes, and no text ends the program
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    # set by the verb that writes into one: where a traceback is kept, and what can be resumed
    args = argparse.Namespace(run_dir=None)
    # else Python looks for garbage in all of torch before it ends, longer than a step takes
    atexit.register(gc.freeze)
    try:
        _parser().parse_args(argv, args)
        with trusting(getattr(args, "trust_code", False)):
            code = args.do(args)
        sys.stdout.flush()
        return code
    except (Exception, KeyboardInterrupt) as error:
        with _heard(error):
            return explain(error, args.run_dir)


@contextmanager
def _heard(error: BaseException) -> Iterator[None]:
    """While a Ctrl-C is answered, a second one changes nothing: it would only put a traceback in place of the
    hint."""
    if not isinstance(error, KeyboardInterrupt) or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="forethought",
        description="Staged post-training of models that plan before they act.",
        epilog="Start with `forethought train`: it trains a small model on this machine.",
    )
    parser.add_argument("--version", action="version", version=f"forethought {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="VERB", title="verbs")
    add_train(verbs)
    add_eval(verbs)
    add_sample(verbs)
    add_swap(verbs)
    add_export(verbs)
    add_traces(verbs)
    add_watch(verbs)
    add_runs(verbs)
    add_arms(verbs)
    add_grams(verbs)
    add_new(verbs)
    add_check(verbs)
    add_explain(verbs)
    add_report(verbs)
    add_compare(verbs)
    add_recipes(verbs)
    return parser
