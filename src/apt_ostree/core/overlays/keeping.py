"""Keeps overlays: backs them up, restores them, and removes what is old."""

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
from apt_ostree.model.requests import LiveOptions, OverlayBackup, OverlayCleanup, OverlayRestore
from apt_ostree.model.result import Result
from apt_ostree.system import openfiles, statedb
from apt_ostree.system.ostree import backups
from apt_ostree.system.ostree import overlays as trees
from apt_ostree.system.ostree.repo import Repo
from apt_ostree.system.statedb import boot_id

#: Where backups go unless a place is named.
PLACE = statedb.DIRECTORY / "overlays/backup"
#: Keyrings (*.gpg) of those whose backups are restored.
KEYRINGS = Path("/etc/apt-ostree/overlay-keys.d")


def backup(tx: Transaction, request: OverlayBackup) -> Result:
    """Write an overlay, or all, with their histories into a directory, or one file; sign them, if so set."""
    name, destination, repo_key = request.name, request.destination, tx.settings.overlay_sign_key
    with opened(tx, "back overlays up") as session:
        repo, overlays = tx.sysroot.repo, session.overlays
        chosen = [overlay_choice.find(overlays, name)] if name else list(overlays.values())
        if not chosen:
            raise Refused("there are no overlays")
        for overlay in chosen if repo_key else ():
            backups.sign(repo, overlay.state.commit, repo_key)
        _write_backup(repo, chosen, destination)
        place = destination.name if destination else str(PLACE)
        tx.message(f"Wrote {', '.join(overlay.id for overlay in chosen)} to {place}.")
        details = {"path": place, "overlays": [overlay.id for overlay in chosen]}
        return Result(changed=False, details=details)


def _write_backup(repo: Repo, overlays: Sequence[Overlay], destination: OpenFile | None) -> None:
    """Write overlays into a file or a directory that the client opened, or into our own directory."""
    commits = {f"{overlay_store.REFS}/{overlay.id}": overlay.state.commit for overlay in overlays}
    if destination is None:
        backups.write(repo, PLACE, commits)
    elif openfiles.is_directory(destination):
        backups.write(repo, openfiles.path_of(destination), commits, label=destination.name)
    else:
        backups.write_file(repo, destination, commits)


def restore(tx: Transaction, request: OverlayRestore) -> Result:
    """Bring an overlay back: from a backup, or an earlier commit of its own.

    The rules that it may break are those of the request; what it says itself is not asked. Its content is
    judged before it shows, like everybody's.
    """
    with opened(tx, "restore an overlay", dry_run=request.dry_run) as session:
        if request.backup:
            moves = [
                _restored(session, commit, definition, request.allow)
                for commit, definition in _from_backup(tx.sysroot.repo, request, request.backup)
            ]
        else:
            moves = [_restored_commit(session, request)]
        return change(session, moves, request.live, dry_run=request.dry_run)


def _restored_commit(session: OverlaySession, request: OverlayRestore) -> Transition:
    """Return what brings an earlier commit of an overlay back."""
    repo = session.tx.sysroot.repo
    commit = repo.resolve(request.commit or "")
    if not overlay_store.is_known(repo, commit):
        raise UsageError(f"commit {commit[:12]} is none of this machine's overlays", hint="see --history")
    definition = from_text(trees.definition_text(repo, commit))
    definition = replace(definition, name=request.name or definition.name)
    return _restored(session, commit, definition, definition.allow)


def _from_backup(
    repo: Repo, request: OverlayRestore, backup_file: OpenFile
) -> Iterator[tuple[str, Definition]]:
    """Copy the overlays of a backup, or one, to the repository; yield them where they may be trusted."""
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
    # Our own directory is root's alone, as the record is.
    trusted = request.allow_unsigned or openfiles.is_same(backup_file, PLACE)
    for ref, commit in chosen.items():
        if not (trusted or backups.is_signed(repo, commit, KEYRINGS)):
            raise Refused(
                f"{names[ref]} has no good signature by a key of {KEYRINGS}",
                hint="put the signer's keyring there, or restore it with --allow-unsigned",
            )
        definition = from_text(trees.definition_text(repo, commit))
        if definition.id != names[ref]:
            raise Refused(f"the backup {label} calls overlay {definition.id} by another name: {ref}")
        # What came with another image is the administrator's here.
        mine = Scope.SYSTEM if definition.scope is Scope.GLOBAL else definition.scope
        yield commit, replace(definition, scope=mine)


def _restored(
    session: OverlaySession, commit: str, definition: Definition, allow: Sequence[str]
) -> Transition:
    """Return what brings a commit's content back as an overlay's newest."""
    definition = replace(definition, name=checked_name(definition.name), allow=tuple(allow))
    before = session.overlays.get(definition.id)
    repo = session.tx.sysroot.repo
    content = edit.read(repo, definition, commit)
    parent = before.state.commit if before else commit
    made = edit.write(repo, content, parent=parent, subject=f"restore {commit[:12]}")
    enabled = before.state.enabled if before else True
    return overlay_choice.transition(before, State(definition.id, made, enabled, boot_id()))


def cleanup(tx: Transaction, request: OverlayCleanup) -> Result:
    """Remove overlays that are not enabled and that a limit condemns, and what was taken away from others."""
    with opened(tx, "clean overlays up", dry_run=request.dry_run) as session:
        repo, going = tx.sysroot.repo, _condemned(session, request)
        undone = repo.refs(overlay_store.UNDONE)
        for overlay in going:
            tx.message(f"Overlay {overlay.id} {'would go' if request.dry_run else 'goes'}.")
        if not request.dry_run:
            if request.archive and going:
                _write_backup(repo, going, None)
            _remove(session, going, undone)
        details = {"overlays": [overlay.id for overlay in going]}
        return Result(changed=bool(going or undone), live=False, details=details)


def _remove(session: OverlaySession, overlays: Sequence[Overlay], refs: Iterable[str]) -> None:
    """Remove overlays, and refs of what was taken away from them or from others."""
    tx = session.tx
    if overlays:
        change(session, [Transition(o.id, o.state, None) for o in overlays], LiveOptions())
    for ref in (*refs, *(f"{overlay_store.UNDONE}/{overlay.id}" for overlay in overlays)):
        tx.sysroot.repo.set_ref(ref, None)
    tx.sysroot.prune()


def _condemned(session: OverlaySession, request: OverlayCleanup) -> list[Overlay]:
    repo, sized = session.tx.sysroot.repo, request.larger_than is not None

    def idle(overlay: Overlay) -> Idle:
        size = sum(overlay_store.files(repo, overlay.state.commit).values()) if sized else 0
        return Idle(overlay.id, repo.timestamp(overlay.state.commit), size)

    names = overlay_cleanup.unneeded((o.definition, o.state) for o in session.overlays.values())
    going = overlay_cleanup.condemned(
        [idle(session.overlays[name]) for name in names],
        now=time.time(),
        older_than=request.older_than,
        keep=request.keep,
        larger_than=request.larger_than,
    )
    return [session.overlays[name] for name in going]
