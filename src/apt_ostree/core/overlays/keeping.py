"""Keeps overlays: backs them up, restores them, and removes what is old."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from apt_ostree.core.live import engine
from apt_ostree.core.overlays import edit
from apt_ostree.core.overlays.verbs import Bench, change, prepared
from apt_ostree.core.state import overlay_store
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import overlay_choice, overlay_cleanup
from apt_ostree.model.events import Message, Report
from apt_ostree.model.overlay import Definition, Overlay, Scope, State, Transition, checked_name, from_text
from apt_ostree.model.overlay_cleanup import Idle
from apt_ostree.system import settings, statedb
from apt_ostree.system.ostree import backups
from apt_ostree.system.ostree import overlays as trees
from apt_ostree.system.ostree.repo import Repo
from apt_ostree.system.statedb import boot_id

#: Where backups go unless a place is named.
PLACE = statedb.DIRECTORY / "overlays/backup"
#: Keyrings (*.gpg) of those whose backups are restored.
KEYRINGS = Path("/etc/apt-ostree/overlay-keys.d")


def backup(report: Report, *, name: str | None = None, path: str | None = None) -> Mapping[str, Any]:
    """Write an overlay, or all, with their histories into a directory, or one file; sign them, if so set."""
    with prepared("back overlays up", report) as bench:
        chosen = [overlay_choice.find(bench.known, name)] if name else list(bench.known.values())
        if not chosen:
            raise Refused("there are no overlays")
        target = Path(path) if path else PLACE
        one_file = bool(path) and not (target.is_dir() or str(path).endswith("/"))
        key = settings.load().overlay_sign_key
        for overlay in chosen if key else ():
            backups.sign(bench.sysroot.repo, overlay.state.commit, key)
        commits = {f"{overlay_store.REFS}/{o.id}": o.state.commit for o in chosen}
        backups.write(bench.sysroot.repo, target, commits, one_file=one_file)
        report(Message(f"Wrote {', '.join(o.id for o in chosen)} to {target}."))
        return {"changed": False, "path": str(target), "overlays": [o.id for o in chosen]}


def restore(
    report: Report,
    *,
    source: str,
    name: str | None = None,
    allow: Sequence[str] = (),
    allow_unsigned: bool = False,
    dry_run: bool = False,
    **options: Any,
) -> Mapping[str, Any]:
    """Bring an overlay back: from a backup, or an earlier commit of its own.

    source: a backup's path, or a commit. allow: rules of content that it may break; what it says itself is
    not asked. Its content is judged before it shows, like everybody's.
    """
    wishes = engine.Wishes(**{"verb": f"usroverlay --restore={source}"[:300], **options})
    with prepared("restore an overlay", report, dry_run=dry_run) as bench:
        repo, place = bench.sysroot.repo, Path(source)
        if source.startswith(("/", ".")) or backups.is_backup(place):
            moves = [
                _restored(bench, commit, definition, allow)
                for commit, definition in _from_backup(repo, place, name, allow_unsigned=allow_unsigned)
            ]
        else:
            commit = repo.resolve(source)
            if not overlay_store.is_known(repo, commit):
                raise UsageError(
                    f"commit {commit[:12]} is none of this machine's overlays", hint="see --history"
                )
            found = from_text(trees.definition_text(repo, commit))
            moves = [_restored(bench, commit, replace(found, name=name or found.name), found.allow)]
        return change(bench, moves, wishes, dry_run=dry_run)


def _from_backup(
    repo: Repo, path: Path, name: str | None, *, allow_unsigned: bool
) -> Iterator[tuple[str, Definition]]:
    """Copy the overlays of a backup, or one, to the repository; yield them where they may be trusted."""
    if not backups.is_backup(path):
        raise UsageError(f"there is no backup {path}")
    with backups.opened(path) as source:
        refs = source.refs(overlay_store.REFS)
        wanted = {
            r: c
            for r, c in refs.items()
            if name in (None, r.rpartition("/")[2], r.removeprefix(f"{overlay_store.REFS}/"))
        }
        if not wanted:
            known = ", ".join(sorted(ref.removeprefix(f"{overlay_store.REFS}/") for ref in refs)) or "none"
            raise UsageError(
                f"the backup {path} has no overlay {name or ''}".rstrip(), hint=f"it has {known}"
            )
        for commit in wanted.values():
            backups.fetch(repo, source, commit)
    for ref, commit in wanted.items():
        # Our own directory is root's alone, as the record is.
        if not (allow_unsigned or path == PLACE or backups.is_signed(repo, commit, KEYRINGS)):
            raise Refused(
                f"{ref.removeprefix(f'{overlay_store.REFS}/')} has no good signature by a key of {KEYRINGS}",
                hint="put the signer's keyring there, or restore it with --allow-unsigned",
            )
        definition = from_text(trees.definition_text(repo, commit))
        if f"{overlay_store.REFS}/{definition.id}" != ref:
            raise Refused(f"the backup {path} calls overlay {definition.id} by another name: {ref}")
        # What came with another image is the administrator's here.
        mine = Scope.SYSTEM if definition.scope is Scope.GLOBAL else definition.scope
        yield commit, replace(definition, scope=mine)


def _restored(bench: Bench, commit: str, definition: Definition, allow: Sequence[str]) -> Transition:
    """Return what brings a commit's content back as an overlay's newest."""
    definition = replace(definition, name=checked_name(definition.name), allow=tuple(allow))
    before = bench.known.get(definition.id)
    repo = bench.sysroot.repo
    content = edit.read(repo, definition, commit)
    parent = before.state.commit if before else commit
    made = edit.write(repo, content, parent=parent, subject=f"restore {commit[:12]}")
    enabled = before.state.enabled if before else True
    return overlay_choice.transition(before, State(definition.id, made, enabled, boot_id()))


def cleanup(
    report: Report,
    *,
    older_than: float | None = None,
    keep: int | None = None,
    larger_than: int | None = None,
    archive: bool = False,
    dry_run: bool = False,
) -> Mapping[str, Any]:
    """Remove overlays that are not enabled and that a limit condemns, and what was taken away from others.

    older_than: seconds since they were changed last; keep: how many of them may stay, the newest;
    larger_than: bytes that all of them may have; archive: back them up first.
    """
    with prepared("clean overlays up", report, dry_run=dry_run) as bench:
        going = _condemned(bench, older_than, keep, larger_than)
        repo = bench.sysroot.repo
        undone = repo.refs(overlay_store.UNDONE)
        if archive and going and not dry_run:
            backups.write(
                repo, PLACE, {f"{overlay_store.REFS}/{o.id}": o.state.commit for o in going}, one_file=False
            )
        for overlay in going:
            report(Message(f"Overlay {overlay.id} {'would go' if dry_run else 'goes'}."))
        if not dry_run:
            if going:
                wishes = engine.Wishes(verb="usroverlay --cleanup")
                change(bench, [Transition(o.id, o.state, None) for o in going], wishes)
            for ref in (*undone, *(f"{overlay_store.UNDONE}/{overlay.id}" for overlay in going)):
                repo.set_ref(ref, None)
            bench.sysroot.prune()
        return {"changed": bool(going or undone), "overlays": [o.id for o in going], "live": False}


def _condemned(
    bench: Bench, older_than: float | None, keep: int | None, larger_than: int | None
) -> list[Overlay]:
    repo = bench.sysroot.repo

    def idle(overlay: Overlay) -> Idle:
        size = sum(overlay_store.files(repo, overlay.state.commit).values()) if larger_than is not None else 0
        return Idle(overlay.id, repo.timestamp(overlay.state.commit), size)

    names = overlay_cleanup.unneeded((o.definition, o.state) for o in bench.known.values())
    going = overlay_cleanup.condemned(
        [idle(bench.known[name]) for name in names],
        now=time.time(),
        older_than=older_than,
        keep=keep,
        larger_than=larger_than,
    )
    return [bench.known[name] for name in going]
