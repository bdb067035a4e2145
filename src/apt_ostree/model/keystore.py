"""Java's key store (the format JKS), in which ca-certificates-java notes when it added each certificate."""

from __future__ import annotations

import hashlib
import struct

_MAGIC = 0xFEEDFEED
_CERTIFICATE = 2
#: What Java computes the digest at the end of a store from, besides its content; the first is the password.
_SALT = "changeit".encode("utf-16-be") + b"Mighty Aphrodite"
_DIGEST_SIZE = 20


def without_dates(store: bytes) -> bytes:
    """Return a store with the dates 0; one of another format or password is returned as it is."""
    body = bytearray(store[:-_DIGEST_SIZE])
    if store[-_DIGEST_SIZE:] != _digest(body):
        return store
    magic, version, count = struct.unpack_from(">III", body)
    if (magic, version) != (_MAGIC, 2):
        return store
    position = 12
    for _ in range(count):
        (tag,) = struct.unpack_from(">I", body, position)
        if tag != _CERTIFICATE:
            return store
        position = _after_text(body, position + 4)
        struct.pack_into(">Q", body, position, 0)
        position = _after_text(body, position + 8)
        (size,) = struct.unpack_from(">I", body, position)
        position += 4 + size
    return bytes(body) + _digest(body)


def _after_text(body: bytearray, position: int) -> int:
    (size,) = struct.unpack_from(">H", body, position)
    return position + 2 + int(size)


def _digest(body: bytes | bytearray) -> bytes:
    return hashlib.sha1(_SALT + bytes(body)).digest()
