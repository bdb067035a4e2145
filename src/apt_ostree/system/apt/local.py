"""Local packages: .deb files, stored by checksum, and offered to libapt as an archive.

libapt then resolves their dependencies like any other package's. The archive needs no signature, as the
administrator has named its files; no other package is taken from it.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import apt_inst
import apt_pkg

from apt_ostree.errors import UsageError
from apt_ostree.model.events import Report
from apt_ostree.model.openfile import OpenFile
from apt_ostree.model.origin import LocalPackage
from apt_ostree.system import local_debs, openfiles
from apt_ostree.system.apt import acquire, config


def keep(file: OpenFile) -> LocalPackage:
    """Copy a .deb into the store and return its description; UsageError if it is not a package."""
    if not openfiles.is_file(file):
        raise UsageError(f"{file.name} is not a file")
    path = openfiles.path_of(file)
    try:
        control = _control(path)
    except (SystemError, apt_pkg.Error) as error:
        raise UsageError(f"{file.name} is not a Debian package: {error}") from error
    section = apt_pkg.TagSection(control)
    digest = digest_of(path)
    local_debs.add(path, digest)
    return LocalPackage(digest, section["Package"], section["Version"], section["Architecture"])


def offer(report: Report, packages: Sequence[LocalPackage], scratch: Path) -> None:
    """Make stored packages available to libapt."""
    if packages:
        archive = config.local_directory(scratch)
        archive.mkdir(exist_ok=True)
        copies = {Path(shutil.copy(local_debs.path_of(p), archive)): p.sha256 for p in packages}
        publish(report, copies, scratch, "local")


def store_again(scratch: Path) -> None:
    """Copy those back into the store that another command has removed, for which nothing needed them yet."""
    for copy in config.local_directory(scratch).glob("*.deb"):
        local_debs.add(copy, copy.stem)


def publish(report: Report, archives: Mapping[Path, str], scratch: Path, name: str) -> None:
    """Make .deb files that lie in one directory available to libapt, as an archive of this name.

    archives: path -> SHA-256 of the file.
    """
    (directory,) = {path.parent for path in archives}
    paragraphs = []
    for path, digest in archives.items():
        control, size = _control(path), path.stat().st_size
        _forget_download(control)
        paragraphs.append(f"{control.strip()}\nFilename: ./{path.name}\nSize: {size}\nSHA256: {digest}\n")
    (directory / "Packages").write_text("\n".join(paragraphs))
    extra = config.add_source_list(scratch, name, f"deb [trusted=yes] file:{directory} ./\n")
    with config.only_source(extra):
        acquire.refresh_lists(report, everything=False)


def _forget_download(control: str) -> None:
    """Remove a file of the same name from the cache: libapt would use it if it has the same size."""
    section = apt_pkg.TagSection(control)
    path = config.cached_archive(section["Package"], section["Version"], section["Architecture"])
    path.unlink(missing_ok=True)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def label_of(path: Path) -> str:
    """Return NAME VERSION of a .deb."""
    section = apt_pkg.TagSection(_control(path))
    return f"{section['Package']} {section['Version']}"


def _control(path: Path) -> str:
    with path.open("rb") as stream:
        data: bytes = apt_inst.DebFile(stream).control.extractdata("control")
    return data.decode()
