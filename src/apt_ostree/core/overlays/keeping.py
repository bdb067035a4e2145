"""Backs overlays up, restores them, and removes old ones."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from apt_ostree.core.overlays import edit
from apt_ostree.core.overlays.session import OverlaySession, change, opened
from apt_ostree.core.state import overlay_store
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import overlay_choice, overlay_cleanup
from apt_ostree.model.openfile import OpenFile
from apt_ostree.model.overlay import Definition, Overlay, Scope, State, Transition, checked_name, from_text
from apt_ostree.model.overlay_cleanup import Idle
from apt_ostree.model.requests.options import LiveOptions
from apt_ostree.model.requests.overlays import OverlayBackup, OverlayCleanup, OverlayRestore
from apt_ostree.model.result import Result
from apt_ostree.system import openfiles, statedb
from apt_ostree.system.ostree import backups, overlay_repo, signatures
from apt_ostree.system.ostree.repo import Repo
from apt_ostree.system.running import boot_id

#: The default directory of backups.
BACKUP_DIRECTORY = statedb.DIRECTORY / "overlays/backup"
#: The directory of keyrings (*.gpg) with the keys that may sign backups.
KEYRINGS = Path("/etc/apt-ostree/overlay-keys.d")


def backup(tx: Transaction, request: OverlayBackup) -> Result:
    """Write one overlay, or all, with their histories to a directory or a file; sign them if a key is set.

    Returns `path` and `overlays`. Raises UsageError for an unknown overlay, Refused if there are none, and
    ExternalFailure if it fails.
    """
    name, destination, sign_key = request.name, request.destination, tx.settings.overlay_sign_key
    with opened(tx, "back overlays up") as session:
        repo, overlays = tx.sysroot.repo, session.overlays
        chosen = [overlay_choice.find(overlays, name)] if name else list(overlays.values())
        if not chosen:
            raise Refused("there are no overlays")
        for overlay in chosen if sign_key else ():
            signatures.sign(repo, overlay.state.commit, sign_key)
        _write_backup(repo, chosen, destination)
        path = destination.name if destination else str(BACKUP_DIRECTORY)
        tx.message(f"Wrote {', '.join(overlay.id for overlay in chosen)} to {path}.")
        details = {"path": path, "overlays": [overlay.id for overlay in chosen]}
        return Result(changed=False, details=details)


def _write_backup(repo: Repo, overlays: Sequence[Overlay], destination: OpenFile | None) -> None:
    """Write overlays to a file or a directory that the client opened, or to the default directory."""
    commits = {f"{overlay_store.REFS}/{overlay.id}": overlay.state.commit for overlay in overlays}
    if destination is None:
        backups.write(repo, BACKUP_DIRECTORY, commits)
    elif openfiles.is_directory(destination):
        backups.write(repo, openfiles.path_of(destination), commits, label=destination.name)
    else:
        backups.write_file(repo, destination, commits)


def restore(tx: Transaction, request: OverlayRestore) -> Result:
    """Restore an overlay from a backup, or from one of its earlier commits.

    An overlay of a backup may only break the rules that the request allows, whatever its own definition says.
    Its content is checked before it is shown, like that of every overlay.

    Returns the result of `session.change`. Raises UsageError for an unknown commit or an invalid backup, and
    Refused for a backup without a valid signature.
    """
    with opened(tx, "restore an overlay", dry_run=request.dry_run) as session:
        if request.backup:
            transitions = [
                _restored(session, commit, definition, request.allow)
                for commit, definition in _from_backup(tx.sysroot.repo, request, request.backup)
            ]
        else:
            transitions = [_restored_commit(session, request)]
        return change(session, transitions, request.live, dry_run=request.dry_run)


def _restored_commit(session: OverlaySession, request: OverlayRestore) -> Transition:
    """Return the transition that restores an earlier commit of an overlay."""
    repo = session.tx.sysroot.repo
    commit = repo.resolve(request.commit or "")
    if not overlay_store.is_overlay_commit(repo, commit):
        raise UsageError(f"commit {commit[:12]} is not of an overlay of this machine", hint="see --history")
    definition = from_text(overlay_repo.definition_text(repo, commit))
    definition = replace(definition, name=request.name or definition.name)
    return _restored(session, commit, definition, definition.allow)


def _from_backup(
    repo: Repo, request: OverlayRestore, backup_file: OpenFile
) -> Iterator[tuple[str, Definition]]:
    """Copy the overlays of a backup, or one, to the repository; yield their commits and definitions.

    Raises Refused for an overlay without a valid signature, unless the request allows that.
    """
    path, label, name = openfiles.path_of(backup_file), backup_file.name, request.name
    if not backups.is_backup(path):
        raise UsageError(f"there is no backup {label}")
    with backups.opened(path, label) as source:
        refs = source.refs(overlay_store.REFS)
        names = {ref: ref.removeprefix(f"{overlay_store.REFS}/") for ref in refs}
        chosen = {ref: refs[ref] for ref in refs if name in (None, names[ref].rpartition("/")[2], names[ref])}
        if not chosen:
            present = ", ".join(sorted(names.values())) or "none"
            raise UsageError(
                f"the backup {label} has no overlay {name or ''}".rstrip(), hint=f"it has {present}"
            )
        for commit in chosen.values():
            backups.fetch(repo, source, commit)
    # Only root can write to the default directory.
    trusted = request.allow_unsigned or openfiles.is_same(backup_file, BACKUP_DIRECTORY)
    for ref, commit in chosen.items():
        if not (trusted or signatures.is_signed(repo, commit, KEYRINGS)):
            raise Refused(
                f"{names[ref]} has no valid signature by a key of {KEYRINGS}",
                hint="put the signer's keyring there, or restore it with --allow-unsigned",
            )
        definition = from_text(overlay_repo.definition_text(repo, commit))
        if definition.id != names[ref]:
            raise Refused(f"the ref {ref} of the backup {label} contains another overlay: {definition.id}")
        # An overlay of another image becomes one of the administrator.
        scope = Scope.SYSTEM if definition.scope is Scope.GLOBAL else definition.scope
        yield commit, replace(definition, scope=scope)


def _restored(
    session: OverlaySession, commit: str, definition: Definition, allow: Sequence[str]
) -> Transition:
    """Return the transition that makes the content of a commit the newest commit of an overlay."""
    definition = replace(definition, name=checked_name(definition.name), allow=tuple(allow))
    before = session.overlays.get(definition.id)
    repo = session.tx.sysroot.repo
    content = edit.read(repo, definition, commit)
    parent = before.state.commit if before else commit
    new_commit = edit.write(repo, content, parent=parent, subject=f"restore {commit[:12]}")
    enabled = before.state.enabled if before else True
    return overlay_choice.transition(before, State(definition.id, new_commit, enabled, boot_id()))


def cleanup(tx: Transaction, request: OverlayCleanup) -> Result:
    """Remove disabled overlays that exceed a limit, and the commits that an undo removed from overlays.

    Returns `overlays`, the ids of those that are removed. Raises ExternalFailure if it fails.
    """
    with opened(tx, "clean overlays up", dry_run=request.dry_run) as session:
        repo, removed = tx.sysroot.repo, _over_limits(session, request)
        undone = repo.refs(overlay_store.UNDONE)
        for overlay in removed:
            tx.message(f"Overlay {overlay.id} {'would be' if request.dry_run else 'is'} removed.")
        if not request.dry_run:
            if request.archive and removed:
                _write_backup(repo, removed, None)
            _remove(session, removed, undone)
        details = {"overlays": [overlay.id for overlay in removed]}
        return Result(changed=bool(removed or undone), live=False, details=details)


def _remove(session: OverlaySession, overlays: Sequence[Overlay], refs: Iterable[str]) -> None:
    """Remove overlays, and these refs of commits that an undo removed."""
    tx = session.tx
    if overlays:
        change(session, [Transition(o.id, o.state, None) for o in overlays], LiveOptions())
    for ref in (*refs, *(f"{overlay_store.UNDONE}/{overlay.id}" for overlay in overlays)):
        tx.sysroot.repo.set_ref(ref, None)
    tx.tidy_at_end(thorough=True)


def _over_limits(session: OverlaySession, request: OverlayCleanup) -> list[Overlay]:
    """Return the unneeded overlays that exceed a limit of the request."""
    repo, sized = session.tx.sysroot.repo, request.larger_than is not None

    def idle(overlay: Overlay) -> Idle:
        size = sum(overlay_store.files(repo, overlay.state.commit).values()) if sized else 0
        return Idle(overlay.id, repo.timestamp(overlay.state.commit), size)

    names = overlay_cleanup.unneeded((o.definition, o.state) for o in session.overlays.values())
    ids = overlay_cleanup.over_limits(
        [idle(session.overlays[name]) for name in names],
        now=time.time(),
        older_than=request.older_than,
        keep=request.keep,
        larger_than=request.larger_than,
    )
    return [session.overlays[name] for name in ids]
