"""Compresses with zstd (python3-zstandard). The same version of the library gives the same bytes."""

from __future__ import annotations

from typing import Protocol

import zstandard

_LEVEL = 3


class Compressor(Protocol):
    """Compresses a stream piece by piece, as zlib's objects do."""

    def compress(self, data: bytes, /) -> bytes:
        """Return what is ready after a further piece."""

    def flush(self) -> bytes:
        """Return the rest."""


def compressor() -> Compressor:
    """Return what compresses one stream, in one thread."""
    made: Compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compressobj()
    return made
