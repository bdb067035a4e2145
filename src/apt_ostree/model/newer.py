"""Newer versions that archives offer of packages that stay at theirs.

These are packages that were requested with a version, or as a file.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from apt_ostree.errors import UsageError
from apt_ostree.model import jsonvalue
from apt_ostree.model.origin import Origin, pinned_requests, request_name


@dataclass(frozen=True, slots=True)
class Newer:
    """A newer version of a package.

    request: NAME=VERSION, with the version at which the package stays.
    version: the newer one.
    origin: of the newer one, such as "Debian:trixie-security/main".
    security: it is a security update.
    """

    request: str
    version: str
    origin: str
    security: bool = False


def ordered(versions: Iterable[Newer]) -> tuple[Newer, ...]:
    """Return the versions in the order in which they are told: security updates first."""
    return tuple(sorted(versions, key=lambda newer: (not newer.security, newer.request)))


def security_updates(versions: Iterable[Newer], yielding: Collection[str]) -> tuple[Newer, ...]:
    """Return the security updates that requests give way to.

    yielding: the requests that do.
    """
    return tuple(newer for newer in versions if newer.security and newer.request in yielding)


def follow(requests: Iterable[str], versions: Iterable[Newer]) -> tuple[str, ...]:
    """Return requests, those that gave way to newer versions with these."""
    new = {newer.request: f"{request_name(newer.request)}={newer.version}" for newer in versions}
    return tuple(new.get(request, request) for request in requests)


def of_origin(versions: Iterable[Newer], origin: Origin) -> tuple[Newer, ...]:
    """Return the versions that are about a deployment's packages."""
    pinned = frozenset(pinned_requests(origin))
    return tuple(newer for newer in versions if newer.request in pinned)


def format_record(versions: Iterable[Newer]) -> str:
    """Return the text of a record."""
    return json.dumps([asdict(newer) for newer in versions])


def parse_record(text: str) -> tuple[Newer, ...]:
    """Return the versions of a record; one that cannot be read has none, as it is a cache."""
    try:
        rows: Any = json.loads(text or "[]")
        return tuple(jsonvalue.read(Newer, row, name="newer version") for row in rows)
    except (ValueError, TypeError, UsageError):
        return ()
