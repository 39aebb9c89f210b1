"""`forethought export`: the models of a run as folders that other programs open.

    DIR/ROLE/    for each set of weights, named by the roles that speak through it (plan, act, plan-act)
    DIR/base/    the base that a run has trained, where adapters lie on it and no role speaks through it alone

Nothing is left behind where it fails: everything is written beside DIR, which appears when all is there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from forethought.core.errors import UserError, quoted, unknown
from forethought.engines.base import BASE
from forethought.engines.saved import Saved, saved
from forethought.exports.card import Folder, card, class_of, hides_words
from forethought.exports.checkpoint import find
from forethought.exports.numbers import Origin, measured
from forethought.exports.prompts import Turns, turns_of
from forethought.recipe.layout import planners
from forethought.store.files import remove

MOST = 256  # tokens of a turn, where nothing says how many
Precision = Literal["f16", "f32"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """`folders`: name -> the roles that speak through it. `notes`: what a reader should know."""

    to: Path
    step: int
    folders: dict[str, tuple[str, ...]]
    notes: tuple[str, ...] = ()


def export(
    source: Path,
    *,
    step: int | None = None,
    to: Path | None = None,
    role: str | None = None,
    merge: bool = False,
    gguf: Precision | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Exported:
    """Write the models of the run at `source` (its newest checkpoint, or that of `step`; a checkpoint's
    folder is its run at its step) to the folder `to` (None: export/step-N in the run).

    `role`: that of this role alone. `merge`: whole models, with adapters added in. `gguf`: also a file for
    llama.cpp beside each. UserError where there is no run, no such step or role, where `to` is not empty, and
    where an architecture has no converter; CheckpointError for a damaged checkpoint.
    """
    found = find(source, step)
    recipe, policies = found.recipe, found.policies
    if role is not None and role not in policies:
        raise UserError(f"--role: {unknown('role', role, policies)}")
    to = (to or found.run / "export" / found.folder.name).absolute()
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        kind = "is not empty" if to.is_dir() else "is a file"
        raise UserError(f"--to: {to} {kind}; give a folder that is new or empty")
    chosen = {name: policy for name, policy in policies.items() if role in (None, name)}
    groups = {
        policy: tuple(name for name, own in chosen.items() if own == policy) for policy in chosen.values()
    }
    said = measured(found.run, found.step)
    origin = Origin(run=found.run, step=found.step, recipe=recipe, measured=said)
    turns, notes = turns_of(recipe)
    beside, there = to.parent / f".{to.name}.{os.getpid()}.tmp", to.parent.exists()
    try:
        remove(beside)
        beside.mkdir(parents=True)
        writing = Writing(beside, to, origin, turns, merge, gguf, tell)
        folders = writing.all(
            {saved(found.folder / "engine", policy): roles for policy, roles in groups.items()}
        )
        os.replace(beside, to)
    except BaseException as error:
        remove(beside)
        if not there and to.parent.is_dir() and not any(to.parent.iterdir()):
            to.parent.rmdir()
        if isinstance(error, FileNotFoundError) and not found.folder.is_dir():
            raise UserError(
                f"{found.folder} has gone while it was copied: the run goes on, and keeps the newest "
                f"{recipe.save.keep} (save.keep); export it again"
            ) from error
        raise
    return Exported(to=to, step=found.step, folders=folders, notes=(*notes, *writing.notes))


class Writing:
    """One export on its way: `beside` is written, and becomes `to`."""

    def __init__(
        self,
        beside: Path,
        to: Path,
        origin: Origin,
        turns: Turns,
        merge: bool,
        gguf: Precision | None,
        tell: Callable[[str], None],
    ):
        self.beside, self.to, self.origin, self.turns = beside, to, origin, turns
        self.merge, self.gguf, self.tell = merge or gguf is not None, gguf, tell
        self.notes: list[str] = []

    def all(self, found: dict[Saved, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        """Write every set of weights; name of the folder -> its roles."""
        names = {one: "-".join(roles) for one, roles in found.items()}
        bases = {one.base: names[one] for one in found if one.policy == BASE or one.kind == "base"}
        folders: dict[str, tuple[str, ...]] = {}
        for one, roles in found.items():
            if one.kind == "base" and not self.merge:
                self.notes.append(
                    f"{' and '.join(roles)}: {one.base} itself, which the run has not changed; nothing is "
                    "written for it (--merge copies it)"
                )
                continue
            if one.kind == "adapter" and one.inside and not self.merge and one.base not in bases:
                bases[one.base] = BASE
                self._base(one)
            folders[names[one]] = roles
            self._one(one, names[one], roles, bases)
        if not folders:
            raise UserError(f"there is nothing to write: {self.notes[0]}")
        return folders

    def _base(self, adapter: Saved) -> None:
        """The base that the run has trained, under adapters alone."""
        from forethought.engines.torch.export import folders

        self.tell(f"{BASE}: the base under the adapters")
        whole = Saved(
            policy=BASE,
            kind="model",
            folder=Path(adapter.base),
            base=adapter.base,
            tokenizer=adapter.tokenizer,
            inside=True,
        )
        folders.copy_model(whole, self.beside / BASE)

    def _one(self, one: Saved, name: str, roles: tuple[str, ...], bases: dict[str, str]) -> None:
        from forethought.engines.torch.export import folders

        folder, recipe = self.beside / name, self.origin.recipe
        merged = self.merge and one.kind != "model"
        base = ""
        if merged:
            self.tell(
                f"{name}: {'the adapter added into its base' if one.kind == 'adapter' else 'the base itself'}"
            )
            folders.write_merged(one, folder, recipe.model.trust_remote_code)
        elif one.kind == "adapter":
            base = str(self.to / bases[one.base]) if one.inside else one.base
            self.tell(f"{name}: an adapter on {base}")
            folders.copy_adapter(one, folder, base)
        else:
            self.tell(f"{name}: a whole model")
            folders.copy_model(one, folder)
        strange = folders.strange_tokenizer(folder)
        if strange:
            self.notes.append(
                f"{name}: AutoTokenizer, and so vLLM, makes another tokenizer of this kind of model than its "
                f"tokenizer.json is; open it with PreTrainedTokenizerFast"
            )
        stops = [stop for role in roles if (stop := self.turns.stops.get(role))]
        ending = folders.ends(folder, stops, one.base)
        folders.write_generation(folder, ending)
        file = ""
        if self.gguf is not None:
            from forethought.engines.torch.export.gguf import write_gguf

            file = f"{name}-{self.gguf}.gguf"
            self.tell(f"{name}: {file}")
            write_gguf(folder, folder / file, self.gguf, f"{recipe.name}-{name}")
        model = recipe.planner if roles[0] in planners(recipe) else recipe.model
        page = card(
            self.origin,
            Folder(
                path=self.to / name,
                roles=roles,
                kind="adapter" if one.kind == "adapter" and not merged else "model",
                base=base,
                # what the run began from, for the licence and the hub; "" for a model from scratch
                began=" with the adapter ".join(filter(None, (model.path, model.adapter))),
                gguf=file,
                stops=tuple(dict.fromkeys(stops)),
                rank=recipe.adapter.rank,
                most=max((self.turns.budgets.get(role, MOST) for role in roles), default=MOST),
                model=class_of(folder, Path(one.base)),
                hides=hides_words(folder, Path(one.base)),
                tokenizer="PreTrainedTokenizerFast" if strange else "AutoTokenizer",
            ),
            {role: self.turns.prompt(role, folder) for role in roles},
        )
        (folder / "README.md").write_text(page, encoding="utf-8")


def command(exported: Exported) -> str:
    """What the command line says at the end."""
    lines = [f"step {exported.step} -> {exported.to}"]
    for name, roles in exported.folders.items():
        lines.append(
            f"  {name}: {' and '.join(roles)}; how to run it: {quoted(exported.to / name / 'README.md')}"
        )
    return "\n".join([*lines, *(f"note: {note}" for note in exported.notes)])
