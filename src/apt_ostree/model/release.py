"""Release files of archives and lines of sources.list(5), for a commit's metadata.

Pure text in, values out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime


@dataclass(frozen=True, slots=True)
class Source:
    """A `deb` line of sources.list(5).

    options: the text in brackets, or empty.
    """

    options: str
    uri: str
    suite: str
    components: tuple[str, ...]


_SOURCE = re.compile(r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<components>.*)")


def parse_source(line: str) -> Source | None:
    """Return the source of a `deb` line of sources.list(5), or None for any other line."""
    match = _SOURCE.fullmatch(line.strip())
    if not match:
        return None
    return Source(match["options"] or "", match["uri"], match["suite"], tuple(match["components"].split()))


def source_line(source: Source) -> str:
    """Return the line of sources.list(5) for a source."""
    options = f" [{source.options}]" if source.options else ""
    return " ".join([f"deb{options}", source.uri, source.suite, *source.components])


def date_of(releases: Mapping[str, str], sources: Iterable[Source]) -> int:
    """Return the date of the first source whose Release file has one, in seconds since 1970, or 0.

    releases: as for `describe`.
    """
    texts = {_path_of(name): text for name, text in releases.items()}
    for source in sources:
        match = re.search(r"^Date: *(.+)$", texts.get(_place_of(source), ""), re.MULTILINE)
        if match:
            return int(parsedate_to_datetime(match[1]).timestamp())
    return 0


def describe(releases: Mapping[str, str], sources: Iterable[Source]) -> tuple[str, ...]:
    """Return "origin suite component version date" for each component of each source, sorted.

    Dates are UTC, in ISO 8601.

    releases: name in apt's lists directory -> text of a Release file.
    """
    texts = {_path_of(name): text for name, text in releases.items()}
    lines = set()
    for source in sources:
        text = texts.get(_place_of(source))
        if text is not None:
            lines |= {_describe(text, source.suite, component) for component in source.components}
    return tuple(sorted(lines))


def _place_of(source: Source) -> str:
    """Return host and directory of a source's Release file."""
    where = source.uri.split(":", 1)[-1].removeprefix("//").rstrip("/").rsplit("@", 1)[-1]
    return f"{where}/dists/{source.suite}"


def _describe(release: str, suite: str, component: str) -> str:
    fields = dict(re.findall(r"^(Origin|Version|Date): *(.*)$", release, re.MULTILINE))
    date = fields.get("Date", "")
    stamp = parsedate_to_datetime(date).strftime("%Y-%m-%dT%H:%M:%SZ") if date else "-"
    origin = (fields.get("Origin") or "-").replace(" ", "-")
    return f"{origin} {suite} {component} {fields.get('Version') or '-'} {stamp}"


def _path_of(name: str) -> str:
    """Return the host and directory of a file in apt's lists directory, from its name there."""
    path = re.sub(r"%([0-9a-fA-F]{2})", lambda match: chr(int(match[1], 16)), name.replace("_", "/"))
    return path.rpartition("/")[0]
