"""The body of a reply, decompressed piece by piece: never more of it is held than the limit, however small it
came."""

from __future__ import annotations

import zlib

_GZIP = 16 + zlib.MAX_WBITS  # zlib's way to say: a gzip header, and no other
_WINDOWS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": zlib.MAX_WBITS}


class Unreadable(Exception):
    """A reply that came and cannot be read: too long, in an encoding that was not asked for, or damaged.
    Asking again gives another one of its kind."""


class Body:
    """Takes the pieces of a body as they come. `encoding`: the Content-Encoding header. Unreadable for more
    than `most` bytes, before or after decompression, and for an encoding other than one of gzip, deflate and
    none: we ask for none, but some servers compress whatever they are asked for."""

    def __init__(self, encoding: str, most: int):
        self.most = most
        self.data = bytearray()
        self._came = 0
        names = [
            name
            for name in (part.strip().lower() for part in encoding.split(","))
            if name not in ("", "identity")
        ]
        if len(names) > 1 or not set(names) <= _WINDOWS.keys():
            raise Unreadable(f"a reply encoded as {', '.join(names)[:80]}, which was not asked for")
        self._name = names[0] if names else ""
        self._inflate = zlib.decompressobj(_WINDOWS[self._name]) if names else None

    def feed(self, piece: bytes) -> None:
        """Take one piece in. Unreadable if the reply, packed or unpacked, is longer than the limit, or
        damaged."""
        self._came += len(piece)
        if self._came > self.most:
            raise self._too_long()
        if self._inflate is None:
            self.data += piece
            return
        if self._inflate.eof:
            return  # what stands behind the end is none of it
        try:
            self.data += self._inflated(piece)
        except zlib.error as error:
            raise Unreadable(f"a reply that is no {self._name}: {error}") from None
        if len(self.data) > self.most:
            raise self._too_long()

    def whole(self) -> bytes:
        """All of it. Unreadable where compressed data break off."""
        if self._inflate is not None and self._came and not self._inflate.eof:
            raise Unreadable(f"a reply whose {self._name} breaks off")
        return bytes(self.data)

    def _inflated(self, piece: bytes) -> bytes:
        """At most one byte more than may still come."""
        assert self._inflate is not None
        room = self.most + 1 - len(self.data)
        first = self._name == "deflate" and not self.data and self._came == len(piece)
        try:
            return self._inflate.decompress(piece, room)
        except zlib.error:
            if not first:
                raise
            # some servers send deflate without the header that belongs to it
            self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
            return self._inflate.decompress(piece, room)

    def _too_long(self) -> Unreadable:
        return Unreadable(f"a reply of more than {self.most:,} bytes")
