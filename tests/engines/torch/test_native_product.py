"""Products of matrices by every set of instructions: those that this machine has as they are, AVX512-BF16 and
AMX in plain C with the results that Intel's manual defines for them (volume 2, VDPBF16PS and TDPBF16PS)."""

from __future__ import annotations

import ctypes
import itertools
import subprocess
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("torch")

from forethought.engines.torch.forest.native import instructions  # noqa: E402
from forethought.engines.torch.forest.native import library as module  # noqa: E402
from forethought.engines.torch.forest.native.instructions import (  # noqa: E402
    DOTS,
    FLOATS,
    ROUNDED,
    TILES,
    X86,
)
from forethought.engines.torch.forest.native.library import library, why_not  # noqa: E402

pytestmark = pytest.mark.skipif(library() is None, reason=why_not())

PRODUCT = [module.SOURCES / name for name in ("product.c", "crew.c")]
ROWS, COLUMNS, DEPTHS = (1, 2, 3, 8, 17, 33, 97), (1, 31, 70, 140), (1, 2, 31, 33, 77)
FUSED = {"avx512", "avx2", "emulated"}  # of the builds below: those that round a multiply-add once
CASES = [("here", FLOATS), ("here", ROUNDED), ("emulated", FLOATS), ("emulated", ROUNDED)]
CASES += [("emulated", DOTS), ("emulated", TILES)]
CASES += [(name, way) for name in ("avx2", "plain") if X86 for way in (FLOATS, ROUNDED)]
IDS = [f"{name} {('floats', 'rounded', 'dots', 'tiles')[way]}" for name, way in CASES]


class Build:
    """One build of `product.c`."""

    def __init__(self, lib: ctypes.CDLL):
        self.lib, self.width = lib, lib.ft_width()
        self.panel = 2 * self.width
        for name in ("ft_packed_size", "ft_product_work", "ft_transposed_work"):
            getattr(lib, name).restype = ctypes.c_long

    def packed(self, way: int, w_NK: np.ndarray) -> np.ndarray:
        n, k = w_NK.shape
        packed = np.zeros(self.lib.ft_packed_size(n, k, way), dtype=np.float32)
        w_NK = np.ascontiguousarray(w_NK, dtype=np.float32)
        self.lib.ft_pack_rows(0, n, k, at(w_NK), at(packed), way)
        return packed

    def product(self, way, a_MK, w_NK, bias_N=None, c_MN=None, threads=1) -> np.ndarray:
        """a w^T + bias (+ c), with a guard behind all that is written."""
        (m, k), n = a_MK.shape, len(w_NK)
        packed = self.packed(way, w_NK)
        out = np.full(m * n + 64, np.nan, dtype=np.float32)
        if c_MN is not None:
            out[: m * n] = c_MN.ravel()
        work = np.full(threads * self.lib.ft_product_work(k, way) + 64, np.nan, dtype=np.float32)
        bias = None if bias_N is None else np.concatenate([bias_N, np.zeros(64)]).astype(np.float32)
        a_MK = np.ascontiguousarray(a_MK, dtype=np.float32)
        given = at(bias), int(c_MN is not None), at(work)
        self.lib.ft_product(threads, way, m, n, k, at(a_MK), at(packed), at(out), *given)
        assert np.isnan(out[m * n :]).all() and np.isnan(work[-64:]).all()
        return out[: m * n].reshape(m, n)

    def transposed(self, way, a_KM, b_KN, c_MN) -> np.ndarray:
        (k, m), n = a_KM.shape, b_KN.shape[1]
        out = np.full(m * n + 64, np.nan, dtype=np.float32)
        out[: m * n] = c_MN.ravel()
        work = np.full(self.lib.ft_transposed_work(m, n, k, way) + 64, np.nan, dtype=np.float32)
        beyond = np.concatenate([b_KN.ravel(), np.full(self.panel, np.nan)]).astype(np.float32)
        a_KM = np.ascontiguousarray(a_KM, dtype=np.float32)
        self.lib.ft_product_transposed(way, m, n, k, at(a_KM), at(beyond), at(out), at(work))
        assert np.isnan(out[m * n :]).all() and np.isnan(work[-64:]).all()
        return out[: m * n].reshape(m, n)


def at(array: np.ndarray | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


@pytest.fixture(scope="module")
def builds(tmp_path_factory) -> dict[str, Build]:
    """`here`: what the engine computes with. The others hold the products alone, built in seconds."""
    folder, flags = tmp_path_factory.mktemp("products"), [f for f in module.FLAGS if f != "-O3"]
    others = {name: instructions.BUILDS[name] for name in ("avx2", "plain") if X86}
    others["emulated"] = (instructions.NATIVE, "-DEMULATED=1")
    running = {
        name: subprocess.Popen(
            [*module._compiler(), "-O2", *flags, *more, *PRODUCT, "-o", folder / name, "-lm"]
        )
        for name, more in others.items()
    }
    assert [one.wait() for one in running.values()] == [0] * len(running)
    return {"here": Build(library())} | {name: Build(ctypes.CDLL(str(folder / name))) for name in others}


def draw(seed: int, *shape: int, size: float = 1.0) -> np.ndarray:
    return (size * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def as_bf16(x: np.ndarray) -> np.ndarray:
    """Rounded to bfloat16, to nearest, ties to even."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def fma(acc: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rounded once: in float64 the product of two float32 is exact, and so is the sum of numbers like
    these."""
    return (acc.astype(np.float64) + a.astype(np.float64) * b.astype(np.float64)).astype(np.float32)


def shapes() -> Iterator[tuple[int, int, int]]:
    yield from itertools.product(ROWS, COLUMNS, DEPTHS)


# Right ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "way"), CASES, ids=IDS)
def test_a_product_is_that_of_the_rounded_factors(builds, name, way):
    for m, n, k in shapes():
        a, w, bias, c = draw(1, m, k), draw(2, n, k), draw(3, n), draw(4, m, n)
        left, right = (a, w) if way == FLOATS else (as_bf16(a), as_bf16(w))
        wanted = left.astype(np.float64) @ right.T.astype(np.float64)
        scale = np.abs(left) @ np.abs(right).T + np.abs(bias) + np.abs(c) + 1
        for found, more in (
            (builds[name].product(way, a, w), 0),
            (builds[name].product(way, a, w, bias, c), bias + c.astype(np.float64)),
        ):
            assert (np.abs(found - (wanted + more)) <= 1e-6 * scale).all(), (m, n, k)


@pytest.mark.parametrize(("name", "way"), CASES, ids=IDS)
def test_a_transposed_product_is_added(builds, name, way):
    several = itertools.product((1, 16, 33, 64), (1, 31, 70), (1, 2, 31, 96))
    for m, n, k in (*several, (33, 530, 201)):  # of the last one the factors are laid out first
        a, b, c = draw(1, k, m), draw(2, k, n), draw(3, m, n)
        left, right = (a, b) if way == FLOATS else (as_bf16(a), as_bf16(b))
        wanted = c + left.T.astype(np.float64) @ right.astype(np.float64)
        scale = np.abs(left).T @ np.abs(right) + np.abs(c) + 1
        assert (np.abs(builds[name].transposed(way, a, b, c) - wanted) <= 1e-6 * scale).all(), (m, n, k)


@pytest.mark.parametrize(("name", "way"), CASES, ids=IDS)
def test_no_rows_are_a_product_too(builds, name, way):
    assert builds[name].product(way, draw(1, 0, 9), draw(2, 5, 9)).shape == (0, 5)


@pytest.mark.parametrize(("name", "way"), CASES, ids=IDS)
@pytest.mark.parametrize("k", [33, 77])
def test_a_rows_bits_do_not_depend_on_the_rows_beside_it(builds, name, way, k):
    a, w, bias, c = draw(1, 130, k), draw(2, 140, k), draw(3, 140), draw(4, 130, 140)
    every = builds[name].product(way, a, w, bias, c)
    for rows in ([0], [129], [5, 6], [1, 2, 3], range(8), range(60, 69), range(17), range(33), range(97)):
        rows = list(rows)
        alone = builds[name].product(way, a[rows], w, bias, c[rows])
        assert np.array_equal(alone, every[rows]), rows


@pytest.mark.parametrize(("name", "way"), CASES, ids=IDS)
def test_threads_share_the_columns_and_change_no_bit(builds, name, way):
    for m, n in itertools.product((1, 5, 40), (31, 140, 700)):
        a, w, bias, c = draw(1, m, 33), draw(2, n, 33), draw(3, n), draw(4, m, n)
        one, *more = (builds[name].product(way, a, w, bias, c, threads) for threads in (1, 2, 3))
        assert all(np.array_equal(other, one) for other in more), (m, n)


# To the bit -------------------------------------------------------------------------------------------------


def in_order(left_MK, right_NK, bias_N, c_MN, step) -> np.ndarray:
    acc = np.broadcast_to(bias_N, c_MN.shape).astype(np.float32)
    return step(acc, left_MK, right_NK) + c_MN


def by_floats(acc, left_MK, right_NK):
    for k in range(left_MK.shape[1]):
        acc = fma(acc, left_MK[:, k, None], right_NK[:, k])
    return acc


def by_dots(acc, left_MK, right_NK):
    """VDPBF16PS: of a pair the second product comes first."""
    odd = ((0, 0), (0, left_MK.shape[1] % 2))
    left_MK, right_NK = np.pad(left_MK, odd), np.pad(right_NK, odd)
    for k in range(0, left_MK.shape[1], 2):
        for at_ in (k + 1, k):
            acc = fma(acc, left_MK[:, at_, None], right_NK[:, at_])
    return acc


def by_tiles(left_MK, right_NK):
    """TDPBF16PS: of 16 pairs the first numbers and the second ones are summed apart, then both sums, then
    they are added."""
    rest = ((0, 0), (0, -left_MK.shape[1] % 32))
    left_MK, right_NK = np.pad(left_MK, rest), np.pad(right_NK, rest)
    acc = np.zeros((len(left_MK), len(right_NK)), dtype=np.float32)
    for k in range(0, left_MK.shape[1], 32):
        sums = [np.zeros_like(acc), np.zeros_like(acc)]
        for pair, which in itertools.product(range(16), (0, 1)):
            at_ = k + 2 * pair + which
            sums[which] = fma(sums[which], left_MK[:, at_, None], right_NK[:, at_])
        acc = acc + (sums[0] + sums[1])
    return acc


@pytest.mark.parametrize("k", [2, 31, 77])
@pytest.mark.parametrize(("name", "way"), CASES, ids=IDS)
def test_sums_are_formed_as_the_instruction_does(builds, name, way, k):
    """For float32 this is the order that runs of before had: its bits are what they were."""
    kind = name if name != "here" else instructions.NARROWER[builds[name].width]
    if kind not in FUSED:
        pytest.skip("multiplies and adds apart")
    a, w, bias, c = draw(1, 9, k), draw(2, 35, k), draw(3, 35), draw(4, 9, 35)
    found = builds[name].product(way, a, w, bias, c)
    left, right = (a, w) if way == FLOATS else (as_bf16(a), as_bf16(w))
    if way == TILES:
        wanted = c + (by_tiles(left, right) + bias)
    else:
        wanted = in_order(left, right, bias, c, by_dots if way == DOTS else by_floats)
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("name", sorted({name for name, _ in CASES}))
def test_rounded_in_memory_is_float32_of_rounded_factors(builds, name):
    """Few rows read the pairs themselves, many a panel that was unpacked: the same bits."""
    for m, k in itertools.product((1, 2, 5, 14, 15, 40, 130), (1, 30, 77)):
        a, w = draw(1, m, k), draw(2, 140, k)
        wanted = builds[name].product(FLOATS, as_bf16(a), as_bf16(w))
        assert np.array_equal(builds[name].product(ROUNDED, a, w), wanted), (m, k)


@pytest.mark.parametrize("way", [DOTS, TILES], ids=["dots", "tiles"])
def test_subnormal_numbers_are_zero_to_the_instructions(builds, way):
    """What goes in, and what comes out of a multiplication and an addition."""
    tiny, small = np.float32(1e-39), np.float32(2e-20)
    one = np.ones((1, 2), dtype=np.float32)
    emulated = builds["emulated"]
    assert emulated.product(way, one * tiny, one).tolist() == [[0.0]]
    assert emulated.product(way, one, one * tiny).tolist() == [[0.0]]
    assert emulated.product(way, one * small, one * small).tolist() == [[0.0]]  # 4e-40 each
    assert builds["emulated"].product(ROUNDED, one * small, one * small)[0, 0] > 0


@pytest.mark.parametrize(("name", "way"), CASES, ids=IDS)
def test_what_is_no_number_stays_none(builds, name, way):
    """In its own row alone: infinity times zero, in the padding, would be NaN."""
    a, w = draw(1, 20, 5), np.abs(draw(2, 40, 5)) + 1
    a[3, 2], a[7, 4], a[19, 0] = np.nan, np.inf, -np.inf
    found = builds[name].product(way, a, w)
    assert np.isnan(found[3]).all() and (found[7] == np.inf).all() and (found[19] == -np.inf).all()
    assert np.isfinite(np.delete(found, [3, 7, 19], axis=0)).all()


@pytest.mark.parametrize("name", sorted({name for name, _ in CASES}))
def test_matrices_are_rounded_to_nearest_even(builds, name):
    """Halfway between two bfloat16 numbers, both ways; NaN stays NaN, what is too large is infinite."""
    values = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 3.4e38, np.nan, 1 + 2**-8 + 2**-20], "f4")
    wanted = [1.0, 1 + 2**-6, -1.0, np.inf, np.nan, 1 + 2**-7]
    one = np.ones((1, 1), dtype=np.float32)
    np.testing.assert_array_equal(builds[name].product(ROUNDED, one, values[:, None])[0], wanted)
    np.testing.assert_array_equal(builds[name].product(ROUNDED, values[:, None], one)[:, 0], wanted)


# Which ------------------------------------------------------------------------------------------------------

ALL = 1 << FLOATS | 1 << ROUNDED | 1 << DOTS | 1 << TILES
NO_TILES, PLAIN = ALL & ~(1 << TILES), 1 << FLOATS | 1 << ROUNDED


@pytest.mark.parametrize(
    ("ways", "width", "name", "chosen"),
    [
        (ALL, 16, "", ("amx", TILES, "")),
        (ALL, 16, "avx512_bf16", ("avx512_bf16", DOTS, "")),
        (ALL, 16, "avx512", ("avx512", ROUNDED, "")),
        (NO_TILES, 16, "", ("avx512_bf16", DOTS, "")),
        (PLAIN, 16, "", ("avx512", ROUNDED, "")),
        (PLAIN, 8, "", ("avx2", ROUNDED, "")),
        (PLAIN, 4, "", ("plain", ROUNDED, "")),
        (PLAIN, 16, "amx", ("avx512", ROUNDED, "not amx: this machine does not have it")),
    ],
)
def test_the_widest_is_taken_that_is_there_and_asked_for(monkeypatch, ways, width, name, chosen):
    monkeypatch.setattr(instructions, "tiles_refused", lambda: "")
    assert instructions.chosen(ways, width, name) == chosen


def test_without_permission_for_amx_the_next_one_is_taken_and_it_is_said(monkeypatch):
    refused = "the system gives no permission for AMX (Operation not permitted)"
    monkeypatch.setattr(instructions, "tiles_refused", lambda: refused)
    assert instructions.chosen(ALL, 16) == ("avx512_bf16", DOTS, refused)
    assert instructions.chosen(ALL, 16, "amx") == ("avx512_bf16", DOTS, f"not amx: {refused}")
    assert instructions.chosen(ALL, 16, "avx512").note == ""  # nobody asked for it


def test_where_amx_is_the_next_one_is_its_rival(monkeypatch):
    monkeypatch.setattr(instructions, "tiles_refused", lambda: "")
    rivals = lambda ways, name="": instructions.rivals(instructions.chosen(ways, 16, name), ways)  # noqa: E731
    assert rivals(ALL) == ("amx", "avx512_bf16") and rivals(NO_TILES) == rivals(PLAIN) == ("",)
    assert rivals(ALL, "avx512") == ("",)


def test_the_system_is_asked_for_permission(monkeypatch):
    """As arch_prctl(2) answers: refused with a reason, given and taken back, given."""
    answers = {"refused": (-1, 0), "taken back": (0, 0), "given": (0, 1 << instructions.TILE_DATA)}
    found = {}
    for name, (status, mask) in answers.items():

        def call(number, code, argument, status=status, mask=mask):
            assert number == 158
            if code == 0x1023:
                assert argument == 18
                ctypes.set_errno(1)
                return status
            ctypes.c_uint64.from_address(ctypes.addressof(argument._obj)).value = mask
            return 0

        lib = type("Lib", (), {"syscall": staticmethod(call)})
        monkeypatch.setattr(instructions.ctypes, "CDLL", lambda *args, lib=lib, **more: lib)
        monkeypatch.setattr(instructions.sys, "platform", "linux")
        found[name] = instructions.tiles_refused.__wrapped__()
    assert found["refused"] == "the system gives no permission for AMX (Operation not permitted)"
    assert found["taken back"] == "the system gave permission for AMX and took it back"
    assert found["given"] == ""


def test_an_unknown_name_is_refused(monkeypatch):
    monkeypatch.setenv("FORETHOUGHT_KERNELS", "avx3")
    expected = "FORETHOUGHT_KERNELS=avx3: expected 0, auto, amx, avx512_bf16, avx512, avx2 or plain"
    with pytest.raises(ValueError, match=expected):
        instructions.asked()
    monkeypatch.setattr(instructions, "X86", False)
    with pytest.raises(ValueError, match="these are instructions of x86-64"):
        instructions.build_for("avx2")
    assert instructions.build_for("amx") == "native" == instructions.build_for("")
