"""Seeds by address: what is drawn depends on where it stands in the run, on nothing that was drawn before."""

from __future__ import annotations

import hashlib


def seed_of(*parts: object) -> int:
    """A 63-bit seed that depends on all parts and on nothing else (not on the process, not on the order of
    calls)."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()) >> 1
