"""To be imported before the kernels are loaded: AVX512-BF16 and AMX are then computed in plain C
(`bfloat16.h`), so that whole models are sampled and trained by them where no processor has them."""

from __future__ import annotations

from forethought.engines.torch.forest.native import instructions, library

library.FLAGS = (*library.FLAGS, "-DEMULATED=1")
instructions.tiles_refused = lambda: ""
