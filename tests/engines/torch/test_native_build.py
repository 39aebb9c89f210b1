"""How the kernels come to be: built once, kept, found again; and where they cannot be had, PyTorch computes
and the run says why."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from torch_kit import engine_of, model_of

from forethought.core.types import Request
from forethought.engines.torch.forest.native import cache as cache_module
from forethought.engines.torch.forest.native import library as module
from forethought.engines.torch.forest.native.library import library, why_not

NEEDS = pytest.mark.skipif(library() is None, reason=why_not())
POSIX = pytest.mark.skipif(os.name != "posix", reason="the stand-in for a compiler is a shell script")


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A cache folder of its own, and nothing remembered of what was found before or will be found here."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FORETHOUGHT_KERNELS", raising=False)
    library.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    library.cache_clear()
    library()


def kept(folder: Path) -> list[Path]:
    """The libraries in a cache folder; each has a note of its own beside it, and what was timed by them may
    lie there."""
    found = [p for p in sorted((folder / "forethought").iterdir()) if not p.name.startswith("ways-")]
    libraries = [p for p in found if p.suffix == ".so"]
    assert {p.name for p in found} == {name for p in libraries for name in (p.name, f"{p.name}.sum")}
    return libraries


def compiler(folder: Path, monkeypatch, says: str = "") -> Path:
    """A stand-in that copies what was built before, and notes that it was asked; returns where it notes."""
    built, log = (
        next(
            p
            for p in sorted((USUAL / "forethought").iterdir())
            if p.name == f"kernels-{module._key(USUAL_COMPILER)}.so"
        ),
        folder / "asked",
    )
    script = folder / "cc-here"
    script.write_text(
        f'#!/bin/sh\necho "$*" >> "{log}"\n{says}\nwhile [ "$1" != -o ]; do shift; done\ncp "{built}" "$2"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("CC", str(script))
    return log


USUAL = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
USUAL_COMPILER = module._compiler()


def sampled() -> tuple[str, tuple[int, ...]]:
    """(what computes, as the run says it; some tokens) of an engine made now."""
    engine = engine_of(model_of("llama", head_dim=16, initializer_range=0.3))
    out = engine.sample([Request(policy="base", context=(3, 4, 5), n=1, stops=(), max_tokens=6, seed=0)])
    return engine.facts()["kernels"], out[0][0].token_ids


@pytest.fixture(scope="module")
def with_kernels() -> tuple[str, tuple[int, ...]]:
    return sampled()


# Where they cannot be had -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("set_", "reason"),
    [
        ({"FORETHOUGHT_KERNELS": "0"}, "switched off by FORETHOUGHT_KERNELS=0"),
        ({"PATH": "", "CC": ""}, "no C compiler (cc, gcc or clang) was found"),
        ({"CC": "false"}, "false could not build the kernels: exit status 1"),
        ({"CC": "no-such-compiler -O1"}, "[Errno 2] No such file or directory: 'no-such-compiler'"),
        ({"CC": 'cc "'}, "No closing quotation"),
    ],
)
def test_without_kernels_pytorch_computes_and_says_why(with_kernels, fresh, monkeypatch, set_, reason):
    for key, value in set_.items():
        monkeypatch.setenv(key, value)
    library.cache_clear()
    assert library() is None and why_not() == reason
    assert sampled() == (f"torch: {reason}", with_kernels[1])


@POSIX
def test_of_what_a_compiler_says_the_first_error_is_told(fresh, monkeypatch):
    script = fresh / "cc-there"
    said = [
        "decode.c: In function x:",
        "decode.c:3: error: no such thing",
        "decode.c:9: error: another",
        "compilation terminated.",
    ]
    script.write_text("#!/bin/sh\n" + "".join(f'echo "{line}" >&2\n' for line in said) + "exit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("CC", str(script))
    assert library() is None
    assert why_not() == f"{script} could not build the kernels: decode.c:3: error: no such thing"
    assert list((fresh / "cache" / "forethought").iterdir()) == []  # nothing half done is left


@NEEDS
@POSIX
def test_a_compiler_that_does_not_come_back_is_given_up(fresh, monkeypatch):
    compiler(fresh, monkeypatch, says="exec sleep 20")
    monkeypatch.setattr(module, "SECONDS", 0.1)
    assert library() is None and why_not().endswith("took more than 0.1 s for the kernels")


def test_a_fresh_process_without_kernels(tmp_path):
    """Nothing that is found at import depends on them."""
    script = "from test_native_build import sampled; print(*sampled())"
    env = os.environ | {
        "CC": "false",
        "FORETHOUGHT_KERNELS": "",
        "XDG_CACHE_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])]),
    }
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("torch: false could not build the kernels: exit status 1 (")


def test_a_model_that_the_kernels_do_not_compute_says_so():
    fact = engine_of(model_of("gpt2")).facts()["kernels"]
    assert fact == (
        "torch: the kernels do not compute this GPT2LMHeadModel" if library() else f"torch: {why_not()}"
    )


# Built once -------------------------------------------------------------------------------------------------


@NEEDS
@POSIX
def test_the_file_is_built_once_and_found_again(fresh, monkeypatch):
    log = compiler(fresh, monkeypatch)
    assert sampled()[0] == "c"
    (built,) = kept(fresh / "cache")
    before = built.stat().st_mtime_ns, built.stat().st_ino
    library.cache_clear()
    assert library() is not None and (built.stat().st_mtime_ns, built.stat().st_ino) == before
    assert module.build() == cache_module.digest(built)[:16]
    (asked,) = log.read_text().splitlines()
    assert "native/decode.c" in asked and "native/train.c" in asked and "-shared" in asked


@NEEDS
@POSIX
@pytest.mark.parametrize(
    "broken",
    [b"", b"\x7fELF\x02\x01\x01\x00\x00\x00", b"no library at all" * 1000],
    ids=["empty", "cut", "other"],
)
def test_a_broken_file_is_built_anew(fresh, monkeypatch, broken):
    log = compiler(fresh, monkeypatch)
    target = fresh / "cache" / "forethought" / f"kernels-{module._key(module._compiler())}.so"
    target.parent.mkdir(parents=True)
    target.write_bytes(broken)
    assert library() is not None and library().ft_width() in (4, 8, 16)
    assert (
        target.read_bytes()[:4] == b"\x7fELF"
        and target.stat().st_size > 20_000
        and len(log.read_text().splitlines()) == 1
    )


def flipped(data: bytes) -> bytes:
    return data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]


@NEEDS
@POSIX
@pytest.mark.parametrize(
    "spoil",
    [
        lambda so, note: so.write_bytes(so.read_bytes()[:5000]),  # what the dynamic loader maps, and dies of
        lambda so, note: so.write_bytes(flipped(so.read_bytes())),
        lambda so, note: so.write_bytes(so.read_bytes() + b"more"),
        lambda so, note: note.unlink(),
        lambda so, note: note.write_bytes(b""),
        lambda so, note: note.write_bytes(b"\xff\x00"),
        lambda so, note: so.chmod(0o777),
        lambda so, note: note.chmod(0o666),
        lambda so, note: (so.rename(so.with_name("elsewhere")), so.symlink_to("elsewhere")),
    ],
    ids=["cut", "flipped", "longer", "no note", "empty note", "no text", "open file", "open note", "a link"],
)
def test_what_is_not_what_was_built_is_never_loaded_and_is_built_anew(fresh, monkeypatch, spoil):
    log = compiler(fresh, monkeypatch)
    assert library() is not None
    (built,) = kept(fresh / "cache")
    good = built.read_bytes()
    spare = fresh / "spare"  # the library that is mapped here keeps its pages: only a copy is spoiled
    spare.write_bytes(good)
    spare.chmod(0o700)
    os.replace(spare, built)
    spoil(built, built.with_name(f"{built.name}.sum"))
    assert not cache_module.whole(built)
    library.cache_clear()
    assert library() is not None and len(log.read_text().splitlines()) == 2
    assert cache_module.whole(built) and built.read_bytes() == good and not built.is_symlink()


@NEEDS
@POSIX
def test_a_file_of_somebody_else_is_not_loaded(fresh, monkeypatch):
    compiler(fresh, monkeypatch)
    assert library() is not None
    (built,) = kept(fresh / "cache")
    assert cache_module.whole(built)
    me = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: me + 1)
    assert not cache_module.whole(built)


@NEEDS
@POSIX
def test_the_cache_folder_is_closed_to_others_where_it_is_the_users_own_and_left_where_it_is_not(
    fresh, monkeypatch
):
    compiler(fresh, monkeypatch)
    monkeypatch.setattr(cache_module.tempfile, "tempdir", str(fresh))
    folder = fresh / "cache" / "forethought"
    folder.mkdir(parents=True)
    folder.chmod(0o775)  # as many systems make it
    assert (
        library() is not None and folder.stat().st_mode & 0o777 == 0o755 and len(kept(fresh / "cache")) == 1
    )
    me = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: me + 1)
    # nor from a folder of mine among the temporary files
    with pytest.raises(OSError, match="code is not loaded from there"):
        (fresh / f"forethought-{me + 1}").mkdir()
        cache_module.folder_of("kernels-x.so")


@NEEDS
@POSIX
def test_two_that_build_at_once(fresh, monkeypatch):
    """Each builds beside and renames: whoever is last, the file is whole."""
    log = compiler(fresh, monkeypatch, says="sleep 0.3")
    with ThreadPoolExecutor(2) as pool:
        libraries = list(pool.map(lambda _: module._loaded(), range(2)))
    assert [lib.ft_width() for lib in libraries] == [library().ft_width()] * 2
    assert len(kept(fresh / "cache")) == 1 and len(log.read_text().splitlines()) == 2


@NEEDS
def test_the_key_knows_sources_compiler_and_flags(tmp_path, monkeypatch):
    found = {module._key(["cc"]), module._key(["cc", "-O1"]), module._key(["gcc"])}
    for name in ("decode.c", "vectors.h"):
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(module, "SOURCES", tmp_path)
    found.add(module._key(["cc"]))
    (tmp_path / "vectors.h").write_text("2")
    found.add(module._key(["cc"]))
    monkeypatch.setattr(module, "FLAGS", (*module.FLAGS, "-g"))
    found.add(module._key(["cc"]))
    assert len(found) == 6 and module._key(["cc"]) in found


# Where it is kept -------------------------------------------------------------------------------------------


@NEEDS
@POSIX
@pytest.mark.parametrize("cache", ["/dev/null/cache", "relative"])
def test_without_a_cache_folder_it_is_kept_among_temporary_files(fresh, monkeypatch, cache):
    """In a folder that nobody else can write to."""
    compiler(fresh, monkeypatch)
    monkeypatch.chdir(fresh)
    monkeypatch.setattr(cache_module.tempfile, "tempdir", str(fresh))
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    assert library() is not None
    folder = fresh / f"forethought-{os.getuid()}"
    assert (
        folder.stat().st_mode & 0o777 == 0o700
        and len(list(folder.glob("*.so"))) == 1
        and not (fresh / "relative").exists()
    )


@POSIX
@pytest.mark.parametrize(
    "make",
    [lambda p: (p.mkdir(), p.chmod(0o777)), lambda p: (p.parent.joinpath("x").mkdir(), p.symlink_to("x"))],
    ids=["open to all", "a link"],
)
def test_code_is_not_loaded_from_a_folder_that_others_can_write_to(fresh, monkeypatch, make):
    monkeypatch.setattr(cache_module.tempfile, "tempdir", str(fresh))
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/cache")
    monkeypatch.setenv("CC", "false")
    make(fresh / f"forethought-{os.getuid()}")
    assert library() is None and "code is not loaded from there" in why_not()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    (fresh / "forethought-12345").mkdir(mode=0o700)
    library.cache_clear()
    assert library() is None and "belongs to somebody else" in why_not()


def test_large_rooms_ask_for_large_pages(monkeypatch):
    """Whole pages inside the room alone: what lies beside it is somebody else's. Where nobody can be asked,
    nothing is."""
    asked = []
    monkeypatch.setattr(module, "_madvise", lambda: lambda *given: asked.append(given))
    room, page = module.floats(3 << 20), module.LARGE_PAGE
    ((first, size, advice),) = ((a.value, b.value, c) for a, b, c in asked)
    assert first % page == size % page == 0 and advice == 14
    assert room.data_ptr() <= first and first + size <= room.data_ptr() + room.nbytes
    assert size > room.nbytes - 2 * page
    module.floats(1 << 18)
    module.large_pages(4096, page)
    assert len(asked) == 1
    monkeypatch.setattr(module, "_madvise", lambda: None)
    assert module.floats(3 << 20).shape == (3 << 20,)
