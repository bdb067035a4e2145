"""Reads a dpkg status file (deb822) given as bytes, with libapt's parser."""

from __future__ import annotations

import os

import apt_pkg

from apt_ostree.model.package import Package
from apt_ostree.system.apt.config import explained

#: States of a package whose files are not there (dpkg(1)).
_ABSENT = ("not-installed", "config-files")


def installed(status: bytes) -> frozenset[Package]:
    """Return the packages that a status file lists as installed, completely or not."""
    with os.fdopen(os.memfd_create("status"), "w+b") as stream:
        stream.write(status)
        stream.seek(0)
        with explained("read the dpkg database"), apt_pkg.TagFile(stream) as paragraphs:
            return frozenset(
                Package(section["Package"], section["Version"], section["Architecture"])
                for section in paragraphs
                if section["Status"].split()[-1] not in _ABSENT
            )
