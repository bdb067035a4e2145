"""Runs the administrator's scanners on files that are about to become current."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from apt_ostree.errors import ExternalFailure
from apt_ostree.model.package import Package
from apt_ostree.system import buildroot, process
from apt_ostree.system.ostree import diff, layers
from apt_ostree.system.ostree.sysroot import Sysroot


def scan(
    scanner: Sequence[str], directory: Path, *, timeout: float, packages: Iterable[Package] = ()
) -> ExternalFailure | None:
    """Run a scanner on a directory; return why it does not accept it, or None.

    packages: written to its stdin, a line "NAME VERSION ARCHITECTURE" for each, sorted.
    """
    lines = "".join(f"{p.name} {p.version} {p.architecture}\n" for p in sorted(packages))
    try:
        process.run(
            [*scanner, directory],
            what=f"run the scanner {scanner[0]}",
            merge_stderr=True,
            stdin=lines,
            timeout=timeout,
        )
    except ExternalFailure as error:
        return error
    return None


@contextmanager
def new_files(sysroot: Sysroot, old: str, new: str) -> Iterator[Path | None]:
    """Yield a directory with the files of /usr that a commit has new or changed; None if it has none."""
    difference = diff.diff_commits(sysroot.repo, old, new)
    if difference is None:
        yield None
        return
    layer = layers.write_layer(sysroot.repo, difference, subject=f"scan: {old} to {new}")
    with buildroot.scratch_directory(sysroot.state_dir / "work") as scratch:
        yield layers.check_out(sysroot.repo, layer, scratch)
