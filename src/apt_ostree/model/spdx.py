"""What an image is made of, as a software bill of materials in SPDX 2.3 (spdx.github.io/spdx-spec/v2.3).

It is a file of the image, which goes wherever the image goes and which scanners look for: they find no dpkg
database at its usual place. The commit does not have it, so that an import leaves it out by its name.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from apt_ostree.model import layout
from apt_ostree.model.package import Package

#: The file, in the tree: its directory is there in each tree that has packages.
PATH = f"{layout.SYSIMAGE}/sbom.spdx.json"

_DOCUMENT, _IMAGE = "SPDXRef-DOCUMENT", "SPDXRef-Image"
_UNKNOWN = "NOASSERTION"


@dataclass(frozen=True, slots=True, order=True)
class Record:
    """An installed package, as dpkg's database describes it.

    source, source_version: of the source package.
    maintainer: "NAME <MAIL>".
    """

    package: Package
    source: str
    source_version: str
    maintainer: str = ""
    homepage: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """The image that a document is about.

    name: the ref of the commit, or the commit.
    created: seconds since 1970.
    os_release: the text of os-release(5).
    program: name and version of the program that writes the document.
    is_commit: whether the image is that of the commit, and no other one that is derived from it.
    """

    name: str
    version: str
    commit: str
    created: int
    os_release: str
    program: str
    is_commit: bool = True


def derived(before: Mapping[str, Any], *, digest: str, os_release: str, program: str) -> Subject:
    """Return the subject of an image that is derived from the one which a document is about.

    digest: of what tells it apart, in the place of the commit.
    """
    created = datetime.fromisoformat(before["creationInfo"]["created"])
    (image,) = (package for package in before["packages"] if package["SPDXID"] == _IMAGE)
    return Subject(
        name=image["name"],
        version=image["versionInfo"],
        commit=digest,
        created=int(created.timestamp()),
        os_release=os_release,
        program=program,
        is_commit=False,
    )


def document(subject: Subject, records: Iterable[Record]) -> dict[str, Any]:
    """Return the document as a JSON object."""
    distribution = _distribution(subject.os_release)
    packages = [_package(record, distribution) for record in sorted(records)]
    relations = [(_DOCUMENT, "DESCRIBES", _IMAGE)]
    relations += [(_IMAGE, "CONTAINS", package["SPDXID"]) for package in packages]
    created = datetime.fromtimestamp(subject.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": _DOCUMENT,
        "name": f"{subject.name} {subject.version}".strip(),
        "documentNamespace": f"https://spdx.org/spdxdocs/apt-ostree-{subject.commit}",
        "creationInfo": {"created": created, "creators": [f"Tool: {subject.program}"]},
        "packages": [_image(subject), *packages],
        "relationships": [
            {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
            for one, kind, other in relations
        ],
    }


def architecture(records: Iterable[Record]) -> str:
    """Return the architecture of most packages, in Debian's words; "all" if all are independent of it."""
    found = Counter(record.package.architecture for record in records)
    del found["all"]
    return max(found, key=lambda name: (found[name], name), default="all")


def _image(subject: Subject) -> dict[str, Any]:
    return {
        "SPDXID": _IMAGE,
        "name": subject.name,
        "versionInfo": subject.version or subject.commit,
        "primaryPackagePurpose": "OPERATING-SYSTEM",
        "comment": f"OSTree commit {subject.commit}"
        if subject.is_commit
        else "an image that is derived from the one of this name",
        **_nothing_else(),
    }


def _package(record: Record, distribution: tuple[str, str]) -> dict[str, Any]:
    package = record.package
    name = re.sub(r"[^A-Za-z0-9.-]", "-", f"{package.name}-{package.architecture}")
    homepage = {"homepage": record.homepage} if record.homepage else {}
    return {
        "SPDXID": f"SPDXRef-Package-{name}",
        "name": package.name,
        "versionInfo": package.version,
        "supplier": _supplier(record.maintainer),
        "sourceInfo": f"built from the source package {record.source} {record.source_version}",
        **homepage,
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": _purl(record, distribution),
            }
        ],
        **_nothing_else(),
    }


def _nothing_else() -> dict[str, Any]:
    """Return what the format wants to be said and dpkg's database does not say."""
    unknown = ("downloadLocation", "licenseConcluded", "licenseDeclared", "copyrightText")
    return dict.fromkeys(unknown, _UNKNOWN) | {"filesAnalyzed": False}


def _supplier(maintainer: str) -> str:
    match = re.fullmatch(r"(.+?) *<(.+)>", maintainer)
    return f"Organization: {match[1]} ({match[2]})" if match else _UNKNOWN


def _purl(record: Record, distribution: tuple[str, str]) -> str:
    """Return the package URL, see github.com/package-url/purl-spec, types/deb."""
    package, (vendor, release) = record.package, distribution
    qualifiers = {
        "arch": package.architecture,
        "distro": f"{vendor}-{release}" if release else "",
        "upstream": f"{record.source}@{record.source_version}" if record.source != package.name else "",
    }
    rest = "&".join(f"{key}={_escaped(value)}" for key, value in qualifiers.items() if value)
    return f"pkg:deb/{vendor}/{_escaped(package.name)}@{_escaped(package.version)}?{rest}"


def _escaped(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._~-]", lambda found: f"%{ord(found[0]):02X}", text)


def _distribution(text: str) -> tuple[str, str]:
    """Return ID and VERSION_ID of os-release(5)."""
    pairs = (word.partition("=") for word in shlex.split(text, comments=True))
    values: Mapping[str, str] = {key: value for key, _, value in pairs}
    return values.get("ID") or "debian", values.get("VERSION_ID", "")
