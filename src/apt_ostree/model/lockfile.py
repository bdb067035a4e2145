"""Lockfiles: the exact versions of a compose, in rpm-ostree's format.

{"packages": {NAME: {"evra": "VERSION.ARCHITECTURE"}}}; the name of a package of a foreign architecture is
NAME:ARCHITECTURE. What else is in the file is not looked at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import jsonvalue
from apt_ostree.model.package import Package

#: What dpkg accepts; a pattern of apt_preferences(5) is no name, and no version.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]*(:[a-z0-9-]+)?")
_EVRA = re.compile(r"(?P<version>[A-Za-z0-9.+~:-]+)\.[a-z0-9-]+")


@dataclass(frozen=True, slots=True)
class _Locked:
    evra: str


@dataclass(frozen=True, slots=True)
class _Document:
    packages: Mapping[str, _Locked] = field(default_factory=dict)


def parse(text: str, *, name: str) -> dict[str, str]:
    """Return NAME -> version. name: of the file; UsageError names a mistake."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{name} is not JSON: {error}") from error
    if not isinstance(value, dict) or "packages" not in value:
        raise UsageError(f"{name} is not a lockfile: it has no packages")
    document = jsonvalue.read(_Document, {"packages": value["packages"]}, name=name)
    return {
        package: _version(package, locked.evra, name=name) for package, locked in document.packages.items()
    }


def _version(package: str, evra: str, *, name: str) -> str:
    match = _EVRA.fullmatch(evra)
    if not _NAME.fullmatch(package):
        raise UsageError(f"{name}: packages: expected NAME or NAME:ARCHITECTURE, got {package!r}")
    if not match:
        raise UsageError(f"{name}: packages[{package!r}].evra: expected VERSION.ARCHITECTURE, got {evra!r}")
    return match["version"]


def format_lockfile(packages: Iterable[Package]) -> str:
    """Return the text of the lockfile of packages."""
    rows = {one.name: {"evra": f"{one.version}.{one.architecture}"} for one in sorted(packages)}
    return json.dumps({"packages": rows}, indent=1) + "\n"


def check(packages: Iterable[Package], locked: Mapping[str, str], *, strict: bool) -> None:
    """Raise Refused if packages are not as they are locked, or, if strict, are not locked.

    packages: what the archives make of the treefile.
    """
    problems = []
    for one in sorted(packages):
        version = locked.get(one.name)
        if version is None and strict:
            problems.append(f"{one.name} {one.version} is not locked")
        elif version not in (None, one.version):
            problems.append(f"{one.name} {version} is locked, and {one.version} is what there is")
    if problems:
        raise Refused(
            f"the archives have not what is locked: {len(problems)} packages differ",
            details=problems,
            hint="an archive of old versions, such as snapshot.debian.org, may have them",
        )
