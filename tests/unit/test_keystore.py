"""Java's key store does not tell when it was made."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import pytest

from apt_ostree.core.compose import rootfs
from apt_ostree.model import keystore

#: From what Java computes the digest (sun.security.provider.JavaKeyStore).
SALT = b"\0c\0h\0a\0n\0g\0e\0i\0t" + b"Mighty Aphrodite"


def store(*dates: int, tag: int = 2, magic: int = 0xFEEDFEED) -> bytes:
    body = struct.pack(">III", magic, 2, len(dates))
    for date in dates:
        body += struct.pack(">IH", tag, 5) + b"alias" + struct.pack(">Q", date)
        body += struct.pack(">H", 5) + b"X.509" + struct.pack(">I", 3) + b"DER"
    return body + hashlib.sha1(SALT + body).digest()


def test_dates_are_dropped():
    assert keystore.without_dates(store(1700000000000, 1800000000000)) == store(0, 0)
    assert keystore.without_dates(store()) == store()


@pytest.mark.parametrize(
    "other", [store(1, tag=1), store(1, magic=1), store(1)[:-1] + b"x", b"", b"PKCS", bytes(64)]
)
def test_what_is_not_understood_stays(other):
    assert keystore.without_dates(other) == other


def test_the_store_of_a_root(tmp_path: Path):
    rootfs.drop_dates(tmp_path)
    path = tmp_path / "etc/ssl/certs/java/cacerts"
    path.parent.mkdir(parents=True)
    path.write_bytes(store(1))
    rootfs.drop_dates(tmp_path)
    assert path.read_bytes() == store(0)
