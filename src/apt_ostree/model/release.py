"""Release files of archives and lines of sources.list(5), as far as a commit's metadata needs them.

Pure text in, values out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime


@dataclass(frozen=True, slots=True)
class Source:
    """A line of sources.list(5): options as text, or empty."""

    options: str
    uri: str
    suite: str
    components: tuple[str, ...]


_SOURCE = re.compile(r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<components>.*)")


def parse_source(line: str) -> Source | None:
    """Return a `deb` line of sources.list(5), or None for anything else."""
    found = _SOURCE.fullmatch(line.strip())
    if not found:
        return None
    return Source(found["options"] or "", found["uri"], found["suite"], tuple(found["components"].split()))


def source_line(source: Source) -> str:
    """Return the line of sources.list(5)."""
    options = f" [{source.options}]" if source.options else ""
    return " ".join([f"deb{options}", source.uri, source.suite, *source.components])


def describe(release: str, sources: Iterable[Source]) -> tuple[str, ...]:
    """Return "origin suite component version date" for each component taken from one Release file.

    The suite is the name that the sources use (Codename or Suite of the file); date is in UTC, ISO 8601.
    """
    fields = dict(re.findall(r"^(Origin|Suite|Codename|Version|Date): *(.*)$", release, re.MULTILINE))
    names = {fields.get("Suite"), fields.get("Codename")}
    date = fields.get("Date", "")
    stamp = parsedate_to_datetime(date).strftime("%Y-%m-%dT%H:%M:%SZ") if date else "-"
    words = (fields.get("Origin") or "-").replace(" ", "-"), fields.get("Version") or "-"
    return tuple(
        f"{words[0]} {source.suite} {component} {words[1]} {stamp}"
        for source in sources
        if source.suite in names
        for component in source.components
    )
