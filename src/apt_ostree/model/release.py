"""Release files of archives and lines of sources.list(5), as far as a commit's metadata needs them.

Pure text in, values out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
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


def describe(releases: Mapping[str, str], sources: Iterable[Source]) -> tuple[str, ...]:
    """Return "origin suite component version date" for each component of each source, sorted.

    releases: Release files by the name that apt gives them in its lists directory. Dates are UTC, ISO 8601.
    """
    texts = {_path_of(name): text for name, text in releases.items()}
    found = set()
    for source in sources:
        where = source.uri.split(":", 1)[-1].removeprefix("//").rstrip("/").rsplit("@", 1)[-1]
        text = texts.get(f"{where}/dists/{source.suite}")
        if text is not None:
            found |= {_describe(text, source.suite, component) for component in source.components}
    return tuple(sorted(found))


def _describe(release: str, suite: str, component: str) -> str:
    fields = dict(re.findall(r"^(Origin|Version|Date): *(.*)$", release, re.MULTILINE))
    date = fields.get("Date", "")
    stamp = parsedate_to_datetime(date).strftime("%Y-%m-%dT%H:%M:%SZ") if date else "-"
    origin = (fields.get("Origin") or "-").replace(" ", "-")
    return f"{origin} {suite} {component} {fields.get('Version') or '-'} {stamp}"


def _path_of(name: str) -> str:
    """Return the place that a file in apt's lists came from, without scheme and file name."""
    path = re.sub(r"%([0-9a-fA-F]{2})", lambda found: chr(int(found[1], 16)), name.replace("_", "/"))
    return path.rpartition("/")[0]
