"""Reads Debian changelogs with python-debian."""

from __future__ import annotations

import gzip
import io
import logging
from collections.abc import Iterator

from debian.changelog import Changelog, ChangelogCreateError, ChangelogParseError

from apt_ostree.model.changelog import ChangelogEntry

#: It tells of each line that is not as it should be, of which old changelogs have many.
logging.getLogger("debian.changelog").disabled = True


def entries(content: bytes) -> Iterator[ChangelogEntry]:
    """Yield the entries of a changelog, compressed or not, the newest first; none of what is none."""
    try:
        data = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
        text = data.decode(errors="replace")
        for block in Changelog(io.StringIO(text), strict=False, allow_empty_author=True):
            yield ChangelogEntry(str(block.version), str(block).strip("\n"))
    except (OSError, EOFError, ValueError, ChangelogCreateError, ChangelogParseError):
        return
