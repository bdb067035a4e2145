"""Compresses with zstd (python3-zstandard), and decompresses. The same version gives the same bytes."""

from __future__ import annotations

from typing import IO, Protocol

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


def reader(stream: IO[bytes]) -> IO[bytes]:
    """Return what reads the content of a compressed stream; it raises ValueError for what is damaged."""
    return _Reader(zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True))  # type: ignore[return-value]


class _Reader:
    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error
