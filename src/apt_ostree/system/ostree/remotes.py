"""Remotes: pulls from them, and what their configuration wants of signatures (ostree.repo-config(5))."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from apt_ostree.errors import ExternalFailure, Refused
from apt_ostree.model.events import Message, Progress, Report
from apt_ostree.model.sizes import show_size
from apt_ostree.system import signals
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree.gi_ostree import Gio, GLib, OSTree, explained, is_about_signatures
from apt_ostree.system.ostree.repo import Repo

#: Where remotes are configured besides the repository.
_REMOTES = Path("/etc/ostree/remotes.d")
#: How libostree says that a branch went back, for which it has no code.
_WENT_BACK = "is chronologically older than"
OLDER = "'upgrade --allow-downgrade' takes it, and so does naming the commit; nothing was changed"


class Verification(StrEnum):
    """Whether commits have to be signed."""

    REQUIRED = "required"
    EXEMPT = "exempt"  # by the configuration of their remote
    UNKNOWN = "unknown"  # their remote is not configured
    LOCAL = "local"  # they have no remote


@dataclass(frozen=True, slots=True)
class Remote:
    """The configuration of a remote, to be copied.

    rows: the keys of its group and their values, as they are written.
    keyring: the keys that its commits are verified with, if it has some of its own.
    """

    name: str
    rows: Mapping[str, str]
    keyring: Path | None

    @property
    def url(self) -> str:
        """Return where it is; "" without one."""
        return self.rows.get("url", "")

    def write(self, repo: Path) -> None:
        """Configure it in a repository that does not have it."""
        rows = "".join(f"{key}={value}\n" for key, value in self.rows.items())
        with (repo / "config").open("a") as config:
            config.write(f"\n[{_group(self.name)}]\n{rows}")
        if self.keyring:
            shutil.copyfile(self.keyring, repo / self.keyring.name)


def read(repo: Path, name: str) -> Remote | None:
    """Return the configuration of a remote, from the repository or from /etc; None if there is none."""
    keyring = repo / f"{name}.trustedkeys.gpg"
    for path in (repo / "config", *sorted(_REMOTES.glob("*.conf"))):
        file = GLib.KeyFile.new()
        with suppress(GLib.Error):  # libostree says what is wrong with it
            file.load_from_file(str(path), GLib.KeyFileFlags.NONE)
            keys, _length = file.get_keys(_group(name))
            rows = {key: file.get_value(_group(name), key) for key in keys}
            return Remote(name, rows, keyring if keyring.exists() else None)
    return None


def _group(name: str) -> str:
    return f'remote "{name}"'


def names(repo: Repo) -> frozenset[str]:
    """Return the names of the configured remotes."""
    return frozenset(repo.handle.remote_list() or ())


def verification(repo: Repo, remote: str | None) -> Verification:
    """Return whether commits of a remote must be signed with GnuPG."""
    if not remote:
        return Verification.LOCAL
    if remote not in names(repo):
        return Verification.UNKNOWN
    try:
        _ok, enabled = repo.handle.remote_get_gpg_verify(remote)
    except GLib.Error:  # a value that cannot be read excepts nothing
        return Verification.REQUIRED
    return Verification.REQUIRED if enabled else Verification.EXEMPT


def point(repo: Repo, refspec: str, commit: str) -> None:
    """Have REMOTE:REF be at a commit."""
    remote, _, ref = refspec.rpartition(":")
    with explained(f"write the ref {refspec}"):
        repo.handle.set_ref_immediate(remote, ref, commit, None)


def forget(repo: Repo, refspec: str) -> None:
    """Forget the newest commit of REMOTE:REF."""
    remote, _, ref = refspec.rpartition(":")
    with explained(f"remove the ref {refspec}"):
        repo.handle.set_ref_immediate(remote, ref, None, None)


def pull(
    repo: Repo, refspec: str, report: Report, *, allow_older: bool = False, newer_than: str | None = None
) -> None:
    """Fetch the newest commit of REMOTE:REF; its signatures are checked as the remote is configured.

    allow_older: also if it is older than the one that the repository has. Otherwise that is no update, even
        if it is signed: a mirror must not be able to downgrade us.
    newer_than: a commit that is here, than which it must not be older, either.

    Raises Refused for an older commit, and for one that is not signed as it has to be.
    """
    remote, _, ref = refspec.rpartition(":")
    settings = {
        "refs": GLib.Variant("as", [ref]),
        "timestamp-check": GLib.Variant("b", not allow_older),
    }
    if newer_than and not allow_older:
        settings["timestamp-check-from-rev"] = GLib.Variant("s", newer_than)
    _pull(repo, remote, settings, refspec, report)


def pull_commit(repo: Repo, remote: str, checksum: str, report: Report) -> None:
    """Fetch a commit, whatever refs it has; its signatures are checked as the remote is configured."""
    settings = {"refs": GLib.Variant("as", [checksum])}
    _pull(repo, remote, settings, f"commit {checksum[:12]}", report)


def pull_local(repo: Repo, source: Path, checksum: str, report: Report) -> None:
    """Copy a commit, and its signatures, from a repository on this machine; each object is verified."""
    settings = {
        "refs": GLib.Variant("as", [checksum]),
        "flags": GLib.Variant("i", int(OSTree.RepoPullFlags.UNTRUSTED)),
    }
    hint = f"'ostree fsck --repo={source}' finds damage"
    with explained(f"copy commit {checksum[:12]} from {source}", hint=hint):
        _fetch(repo, f"file://{source}", settings, f"Copying commit {checksum[:12]}", report)


def pull_history(repo: Repo, refspec: str, report: Report) -> list[str]:
    """Fetch the commits of REMOTE:REF without their trees; return them, the newest first.

    The signatures of the newest are checked. It names those before it by their checksums, and these may have
    been signed with keys that have expired since, or not at all.
    """
    remote, _, ref = refspec.rpartition(":")
    present = repo.resolve_or_none(refspec)
    newest_only = {
        "refs": GLib.Variant("as", [ref]),
        "flags": GLib.Variant("i", int(OSTree.RepoPullFlags.COMMIT_ONLY)),
    }
    all_before = {"depth": GLib.Variant("i", -1), "gpg-verify": GLib.Variant("b", False)}
    try:
        for settings in (newest_only, newest_only | all_before):
            _pull(repo, remote, settings, f"the history of {refspec}", report)
        newest = repo.resolve_or_none(refspec)
        failpoint("repo.after-history")
    finally:  # the pull has pointed the ref at a commit whose tree is not there
        with explained(f"write the ref {refspec}"):
            repo.handle.set_ref_immediate(remote, ref, present, None)
    return repo.history(newest)


def _pull(repo: Repo, remote: str, settings: Mapping[str, Any], what: str, report: Report) -> None:
    with _refusing(f"pull {what}", remote):
        _fetch(repo, remote, settings, f"Pulling {what}", report)


def _fetch(repo: Repo, remote: str, settings: Mapping[str, Any], title: str, report: Report) -> None:
    """Pull; raise libostree's errors. remote: its name, or a URL."""
    progress = OSTree.AsyncProgress.new()
    progress.connect(
        "changed",
        lambda p: report(Progress(title, p.get_uint("fetched"), p.get_uint("requested"))),
    )
    stop = Gio.Cancellable()
    try:
        with signals.held(stop.cancel):
            repo.handle.pull_with_options(remote, GLib.Variant("a{sv}", settings), progress, stop)
    finally:
        progress.finish()
    if parts := progress.get_uint("total-delta-parts"):
        size = show_size(progress.get_uint64("total-delta-part-size"))
        report(Message(f"Received a static delta of {size} ({parts} parts)."))


@contextmanager
def _refusing(what: str, remote: str) -> Iterator[None]:
    """Raise Refused for a commit that must not be taken, and ExternalFailure for what else fails."""
    try:
        with explained(what, hint=f"check the remote with 'ostree remote show-url {remote}'"):
            yield
    except ExternalFailure as failure:
        cause = failure.__cause__
        if is_about_signatures(cause):
            raise Refused(
                failure.message,
                hint=f"'ostree remote list-gpg-keys {remote}' lists the keys that may sign",
                concerns_trust=True,
            ) from cause
        if _WENT_BACK in failure.message:
            raise Refused(
                failure.message,
                hint=OLDER,
                concerns_trust=True,
            ) from cause
        raise
