"""Unlocks /usr for writing, and saves its changes as an overlay or discards them, without a reboot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from apt_ostree.core import policing
from apt_ostree.core.overlays import edit
from apt_ostree.core.overlays.session import change, opened
from apt_ostree.core.state.live import frozen_uppers
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Incomplete, Refused, UsageError
from apt_ostree.model import overlay_choice, upper
from apt_ostree.model.overlay import Definition, State, UnlockMode, checked_name
from apt_ostree.model.overlay_content import WHITEOUT, Node
from apt_ostree.model.overlay_edit import Content, without_unused
from apt_ostree.model.requests.overlays import Unlock, UnlockDiscard, UnlockSave
from apt_ostree.model.result import Result
from apt_ostree.system import files, usrview
from apt_ostree.system.ostree import overlay_repo
from apt_ostree.system.ostree.repo import Repo
from apt_ostree.system.running import boot_id
from apt_ostree.system.uppers import walk

_NEXT = {
    UnlockMode.DEVELOPMENT: "/usr is writable until the reboot, --save or --discard.",
    UnlockMode.TRANSIENT: "Write with: unshare --mount sh -c 'mount -o remount,bind,rw /usr; ...'",
}


def unlock(tx: Transaction, request: Unlock) -> Result:
    """Make /usr writable until the reboot, or until the next deployment (a hotfix).

    Returns `unlocked` and what `session.change` returns. Raises Refused if /usr is unlocked already or cannot
    be unlocked, and Incomplete if a hotfix cannot be mounted.
    """
    with opened(tx, "unlock /usr", dry_run=request.dry_run) as session:
        if tx.live.booted.unlocked != "none":
            raise Refused(f"/usr is unlocked already ({tx.live.booted.unlocked})")
        if request.mode is UnlockMode.HOTFIX:
            return _unlock_as_hotfix(tx, dry_run=request.dry_run)
        result = change(session, [], request.live, unlock=request.mode, dry_run=request.dry_run)
        if not request.dry_run:
            tx.message(_NEXT[request.mode])
        return replace(result, details={**result.details, "unlocked": request.mode})


def _unlock_as_hotfix(tx: Transaction, *, dry_run: bool) -> Result:
    """Make the booted deployment's own /usr writable."""
    if tx.live.generations:
        raise Refused(
            "a hotfix changes the booted deployment, but the system shows live changes",
            hint="go back with 'apt-ostree rollback --live 0', disable overlays, or leave --hotfix out",
        )
    if mounted := usrview.submounts():
        raise Refused(f"a hotfix would hide what is mounted at {', '.join(mounted)}", hint="unmount it first")
    tx.subject = {"unlock": UnlockMode.HOTFIX, "last": [entry.number for entry in tx.records.history(1)]}
    policing.require_approval(tx, None, tx.live.base)
    if not dry_run:
        tx.sysroot.unlock_hotfix(tx.live.booted)
        _show_hotfix()
        tx.message("/usr is writable; its changes are kept until the next deployment.")
    return Result(changed=True, live=False, details={"unlocked": UnlockMode.HOTFIX})


def _show_hotfix() -> None:
    try:
        usrview.show_hotfix()
    except OSError as error:
        raise Incomplete(
            f"the deployment is a hotfix now, but /usr cannot be made writable before the reboot: {error}",
            hint="reboot; or abandon the hotfix with 'apt-ostree rollback' and a reboot",
        ) from error


def save(tx: Transaction, request: UnlockSave) -> Result:
    """Save the changes of an unlocked /usr in a new or existing overlay, and lock /usr.

    Returns the result of `session.change`. Raises UsageError if /usr is not unlocked, and Refused if nothing
    was changed, /usr is a hotfix, or a file cannot be part of an overlay.
    """
    name = request.name
    with opened(tx, "keep changes of /usr", dry_run=request.dry_run) as session:
        uppers, repo, base = _uppers(tx), tx.sysroot.repo, tx.live.base
        overlay = next((o for o in session.overlays.values() if name in (o.id, o.definition.name)), None)
        definition = overlay.definition if overlay else Definition(checked_name(name))
        content = edit.read(repo, definition, overlay.state.commit) if overlay else Content(definition)
        with repo.transaction():
            nodes = _changed_nodes(tx, uppers)
        if not nodes:
            raise Refused("nothing was changed in /usr", hint="'apt-ostree usroverlay --discard' locks it")
        content = edit.with_nodes(repo, content, nodes, base)
        count = sum(node.kind != "directory" for node in nodes.values())
        parent = overlay.state.commit if overlay else None
        commit = edit.write(repo, content, parent=parent, subject=f"save {count} paths")
        state = State(definition.id, commit, True, overlay.state.boot_id if overlay else boot_id())
        saved = [overlay_choice.transition(overlay, state)]
        return change(session, saved, request.live, unlock="none", dry_run=request.dry_run)


def discard(tx: Transaction, request: UnlockDiscard) -> Result:
    """Lock /usr and discard its changes.

    Returns the result of `session.change`. Raises UsageError if /usr is not unlocked, and Refused if it is a
    hotfix.
    """
    with opened(tx, "lock /usr", dry_run=request.dry_run) as session:
        _uppers(tx)
        return change(session, [], request.live, unlock="none", dry_run=request.dry_run)


def _uppers(tx: Transaction) -> tuple[str, ...]:
    """Return the upper directories of the unlocked /usr, the newest first."""
    if tx.live.booted.unlocked == "hotfix":
        raise Refused("/usr is unlocked as a hotfix, which only another deployment ends")
    uppers = frozen_uppers(tx.live)
    if not uppers or usrview.unlocked() == "none":
        raise UsageError("/usr is not unlocked", hint="unlock it with 'apt-ostree usroverlay'")
    return uppers


def _changed_nodes(tx: Transaction, uppers: Sequence[str]) -> dict[str, Node]:
    """Return the nodes of upper directories, the newest first, that differ from the base's /usr."""
    repo, base = tx.sysroot.repo, tx.live.base
    oldest_first = tuple(map(Path, reversed(uppers)))
    entries = [[entry for entry in walk(top) if not _is_skipped(tx, entry.path)] for top in oldest_first]
    sources = upper.fold(entries, partial(overlay_repo.children, repo, base))
    nodes = {
        path: WHITEOUT if index is None else _put(repo, oldest_first[index] / path, f"/usr/{path}")
        for path, index in sources.items()
    }
    below = overlay_repo.of_base(repo, base, nodes)
    without_unused(nodes, keep={p for p, n in nodes.items() if n.kind == "directory" and p not in below})
    # A removed file that only an upper directory contained needs no whiteout.
    return {p: n for p, n in nodes.items() if n.kind != "whiteout" or p in below}


def _put(repo: Repo, path: Path, label: str) -> Node:
    state = files.read_state(path)
    edit.refuse_unfit(state, str(path), label)
    return overlay_repo.put(repo, state)


def _is_skipped(tx: Transaction, path: str) -> bool:
    if upper.is_default_of_etc(path):
        tx.warning(f"/usr/{path} is left out: defaults of /etc belong to packages")
        return True
    return False
