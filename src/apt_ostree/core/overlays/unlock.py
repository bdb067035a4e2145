"""An unlocked /usr: opened for writing, and then kept as an overlay or thrown away, without a reboot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from apt_ostree.core.live import engine
from apt_ostree.core.overlays import edit
from apt_ostree.core.overlays.verbs import Bench, change, prepared
from apt_ostree.errors import Incomplete, Refused, UsageError
from apt_ostree.model import overlay_choice, upper
from apt_ostree.model.events import Message, Report
from apt_ostree.model.overlay import Definition, State, checked_name
from apt_ostree.model.overlay_content import GONE, Node
from apt_ostree.model.overlay_edit import Content, without_unused
from apt_ostree.system import usrview
from apt_ostree.system.ostree import overlays as trees
from apt_ostree.system.ostree.repo import Repo
from apt_ostree.system.statedb import boot_id
from apt_ostree.system.uppers import walk

_NEXT = {
    "development": "/usr is writable until the reboot, --save or --discard.",
    "transient": "Write with: unshare --mount sh -c 'mount -o remount,bind,rw /usr; ...'",
}


def unlock(
    report: Report, *, mode: str = "development", dry_run: bool = False, **options: Any
) -> Mapping[str, Any]:
    """Make /usr writable until the reboot.

    mode: "development"; "transient": for those alone who remount it in a namespace of their own; "hotfix":
    for good, with a copy of the deployment to go back to.
    """
    wishes = engine.Wishes(**{"verb": "usroverlay", **options})
    with prepared("unlock /usr", report, dry_run=dry_run) as bench:
        booted = bench.situation.booted
        if booted.unlocked != "none":
            raise Refused(f"/usr is unlocked already ({booted.unlocked})")
        if mode != "hotfix":
            answer = change(bench, [], wishes, unlock=mode, dry_run=dry_run)
            if not dry_run:
                report(Message(_NEXT[mode]))
            return {**answer, "unlocked": mode}
        if bench.situation.generations:
            raise Refused(
                "a hotfix changes the booted deployment, but the system shows live changes",
                hint="go back with 'apt-ostree rollback --live 0', disable overlays, or leave --hotfix out",
            )
        if mounted := usrview.submounts():
            raise Refused(
                f"a hotfix would hide what is mounted at {', '.join(mounted)}", hint="unmount it first"
            )
        if not dry_run:
            _unlock_as_hotfix(bench)
            report(Message("/usr is writable; what is changed there stays until the next deployment."))
        return {"changed": True, "live": False, "unlocked": mode}


def _unlock_as_hotfix(bench: Bench) -> None:
    bench.sysroot.unlock_hotfix(bench.situation.booted)
    try:
        usrview.show_hotfix()
    except OSError as error:
        raise Incomplete(
            f"the deployment is a hotfix now, but /usr cannot be made writable before the reboot: {error}",
            hint="reboot; or give it up with 'apt-ostree rollback' and a reboot",
        ) from error


def save(report: Report, *, name: str, dry_run: bool = False, **options: Any) -> Mapping[str, Any]:
    """Make a named overlay of what was changed in an unlocked /usr, or add it to one, and lock /usr."""
    wishes = engine.Wishes(**{"verb": f"usroverlay --save={name}", **options})
    with prepared("keep changes of /usr", report, dry_run=dry_run) as bench:
        uppers = _uppers(bench)
        overlay = next((o for o in bench.known.values() if name in (o.id, o.definition.name)), None)
        definition = overlay.definition if overlay else Definition(checked_name(name))
        repo, base = bench.sysroot.repo, bench.situation.base
        content = edit.read(repo, definition, overlay.state.commit) if overlay else Content(definition)
        with repo.transaction():
            found = _changes(report, repo, base, uppers)
        if not found:
            raise Refused("nothing was changed in /usr", hint="'apt-ostree usroverlay --discard' locks it")
        content = edit.taken_in(repo, content, found, base)
        count = sum(node.kind != "directory" for node in found.values())
        parent = overlay.state.commit if overlay else None
        commit = edit.write(repo, content, parent=parent, subject=f"save {count} paths")
        state = State(definition.id, commit, True, overlay.state.boot_id if overlay else boot_id())
        return change(
            bench, [overlay_choice.transition(overlay, state)], wishes, unlock="none", dry_run=dry_run
        )


def discard(report: Report, *, dry_run: bool = False, **options: Any) -> Mapping[str, Any]:
    """Lock /usr; what was changed there shows no more."""
    wishes = engine.Wishes(**{"verb": "usroverlay --discard", **options})
    with prepared("lock /usr", report, dry_run=dry_run) as bench:
        _uppers(bench)
        return change(bench, [], wishes, unlock="none", dry_run=dry_run)


def _uppers(bench: Bench) -> tuple[str, ...]:
    """Return the writable layers of the unlocked /usr, the newest first."""
    if bench.situation.booted.unlocked == "hotfix":
        raise Refused("/usr is unlocked as a hotfix, which only another deployment ends")
    uppers = engine.frozen_uppers(bench.situation)
    if not uppers or usrview.unlocked() == "none":
        raise UsageError("/usr is not unlocked", hint="unlock it with 'apt-ostree usroverlay'")
    return uppers


def _changes(report: Report, repo: Repo, base: str, uppers: Sequence[str]) -> dict[str, Node]:
    """Return what uppers, the newest first, make of the base's /usr."""
    oldest_first = tuple(map(Path, reversed(uppers)))
    entries = [[e for e in walk(u) if not _is_left_out(report, e.path)] for u in oldest_first]
    found = upper.fold(entries, partial(trees.children, repo, base))
    nodes = {
        path: GONE
        if index is None
        else trees.put(repo, edit.regular(oldest_first[index] / path, what=f"/usr/{path}"))
        for path, index in found.items()
    }
    below = trees.of_base(repo, base, nodes)
    without_unused(nodes, keep={p for p, n in nodes.items() if n.kind == "directory" and p not in below})
    # A removed file that only an upper had is no wish to hide anything.
    return {p: n for p, n in nodes.items() if n.kind != "whiteout" or p in below}


def _is_left_out(report: Report, path: str) -> bool:
    if upper.is_default_of_etc(path):
        report(Message(f"/usr/{path} is left out: defaults of /etc belong to packages", "warning"))
        return True
    return False
