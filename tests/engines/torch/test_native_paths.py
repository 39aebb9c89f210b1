"""Whole models by each set of instructions, in a process of its own: those that this machine can execute, and
AVX512-BF16 and AMX as `emulated.py` has them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from forethought.engines.torch.forest.native.instructions import X86  # noqa: E402
from forethought.engines.torch.forest.native.library import library, why_not  # noqa: E402

TESTS = Path(__file__).parents[2]
WIDE = library() is not None and library().ft_width() > 4
AGREE = ("test_native.py", "test_native_train.py", "test_native_model.py")


@pytest.mark.slow
@pytest.mark.skipif(library() is None, reason=why_not())
@pytest.mark.skipif(not X86, reason="instructions of x86-64")
@pytest.mark.parametrize(
    ("name", "emulated"), [("avx2", False), ("plain", False), ("amx", True), ("avx512_bf16", True)]
)
def test_models_are_sampled_and_trained_by(name, emulated):
    """The tests of the kernels hold, and it is these instructions that form the products."""
    if name == "avx2" and not WIDE:
        pytest.skip("this machine does not have them")
    code = (
        "from forethought.engines.torch.forest.native.library import library\n"
        f"assert library().products[0] == '{name}', library().products\n"
        "import pytest, sys; sys.exit(pytest.main(sys.argv[1:]))"
    )
    args = ["-q", "-x", "-W", "ignore", *(str(Path(__file__).with_name(file)) for file in AGREE)]
    if emulated:
        code, args = "import emulated\n" + code, ["-k", "bf16", *args]
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"FORETHOUGHT_KERNELS": name, "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", code, *args], env=env, capture_output=True, text=True, cwd=TESTS.parent
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
