"""Keeps what scripts did to /etc for the deployments that are to be booted, and plays it on their /etc.

Files in the state directory, for root alone: there may be keys in them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path

from apt_ostree.model import etc_delta, layout
from apt_ostree.model.deployment import Deployments
from apt_ostree.model.etc_delta import Delta, Entry
from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.system import files, statedb
from apt_ostree.system.failpoints import failpoint

#: The commit of the staged deployment whose /etc has to be completed, one per line: while another deployment
#: is staged, it may be either.
_DUE = "etc-due"


def read(commit: str) -> dict[str, Entry]:
    """Return the delta of a commit's deployment; empty if scripts did nothing."""
    try:
        return etc_delta.parse(_path(commit).read_text())
    except FileNotFoundError:
        return {}


def write(commit: str, delta: Delta) -> None:
    """Keep the delta of a commit's deployment."""
    path = _path(commit)
    if not delta:
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # there are others, or there never was one
            path.parent.rmdir()
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = etc_delta.format_delta(delta).encode()
    files.write_states([(path, FileState("file", 0o600, 0, 0, text))])


@contextlib.contextmanager
def provided(commit: str, delta: Delta, *, keep: bool) -> Iterator[None]:
    """Keep the delta of a commit's deployment inside the block, and afterwards if there is no error.

    keep: False restores the earlier one in any case.
    """
    earlier = read(commit)
    write(commit, delta)
    try:
        yield
    except BaseException:
        write(commit, earlier)
        raise
    if not keep:
        write(commit, earlier)


def due() -> frozenset[str]:
    """Return the commits of which one is the staged deployment's, whose /etc has to be completed."""
    return frozenset(files.text_of(statedb.DIRECTORY / _DUE).split())


def set_due(*commits: str) -> None:
    """Set the commits of which one is the staged deployment's."""
    text = "".join(f"{commit}\n" for commit in commits)
    state = FileState("file", 0o644, 0, 0, text.encode()) if commits else ABSENT
    files.write_states([(statedb.DIRECTORY / _DUE, state)])


def play(commit: str, etc: Path, removed: Collection[str] = ()) -> tuple[str, ...]:
    """Play the delta of a commit on an /etc; return what lies beside paths that somebody has changed.

    It can be repeated.

    removed: paths that the administrator removed since the scripts made them.
    """
    delta = read(commit)
    current = {path: files.read_state(etc / path) for path in delta}
    writes, kept = etc_delta.play(delta, current, removed)
    beside = etc_delta.beside(delta, kept)
    noted = FileState("file", 0o644, 0, 0, "".join(f"{path}\n" for path in beside).encode())
    failpoint("delta.before")
    files.write_states([(etc / path, state) for path, state in {**writes, **beside}.items()])
    files.write_states([(statedb.DIRECTORY / layout.ETC_BESIDE, noted if beside else ABSENT)])
    failpoint("delta.played")
    return tuple(beside)


def drop_others(deployments: Deployments) -> None:
    """Remove the deltas of commits that are not deployed, and that of a staged deployment that was dropped.

    Only the pending deployment can be due; another one may have the commit of one that was dropped. The
    booted deployment's was played.
    """
    needed = {deployment.checksum for deployment in deployments.all if not deployment.booted}
    dropped = due() - {deployments.pending.checksum if deployments.pending else ""}
    for path in (statedb.DIRECTORY / "etc").glob("*.json"):
        if path.stem not in needed or path.stem in dropped:
            write(path.stem, {})
    if dropped:
        set_due(*due() - dropped)


def _path(commit: str) -> Path:
    return statedb.DIRECTORY / "etc" / f"{commit}.json"
