"""Writes what goes along from a running Debian into the /etc and /var of a new deployment."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from apt_ostree.core.compose.disk import machine
from apt_ostree.core.compose.disk.existing_host import Host
from apt_ostree.core.compose.disk.existing_planning import Job
from apt_ostree.model import existing_root, layout
from apt_ostree.model.accounts import parse_group, parse_passwd
from apt_ostree.model.existing_root import SHARED_UNIT, SHARED_WANTED_BY
from apt_ostree.model.filestate import FileState
from apt_ostree.system import files
from apt_ostree.system.ostree.new_sysroot import NewSysroot


def furnish(root: Path, host: Host, sysroot: NewSysroot, job: Job) -> None:
    """Write accounts, files, mounts, and what shows the shared directories. root: the old one."""
    old, new = root / "etc", sysroot.etc
    _write_accounts(new, job)
    owner = _owners(old, new)
    files.write_states([(new / path, owner(files.read_state(old / path))) for path in job.plan.files])
    lines = [existing_root.root_line(host.uuid, host.filesystem), *job.mounts.kept]
    machine.add_mounts(new.parent, "".join(f"{line}\n" for line in lines))
    if job.shared:
        unit = existing_root.shared_unit(job.shared.items(), job.mounts.points)
        machine.add_unit(new.parent, SHARED_UNIT, unit, wanted_by=SHARED_WANTED_BY)
        _make_mount_points(sysroot.var, job.shared.values())


def _write_accounts(etc: Path, job: Job) -> None:
    for name, text in job.accounts.texts.items():
        present = files.read_state(etc / name)
        if text and present.type == "absent":  # of a file that the tree does not have
            present = FileState("file", 0o640 if name in ("shadow", "gshadow") else 0o644)
        if text:
            content = text.encode(errors="surrogateescape")
            files.write_states([(etc / name, replace(present, content=content))])


def _owners(old: Path, new: Path) -> Callable[[FileState], FileState]:
    """Return what gives a file of the old system the same owner and group, by name; else root's."""
    users = {user.uid: user.name for user in parse_passwd(files.text_of(old / "passwd"))}
    groups = {group.gid: group.name for group in parse_group(files.text_of(old / "group"))}
    uids = {user.name: user.uid for user in parse_passwd(files.text_of(new / "passwd"))}
    gids = {group.name: group.gid for group in parse_group(files.text_of(new / "group"))}

    def owned(state: FileState) -> FileState:
        uid, gid = uids.get(users.get(state.uid, ""), 0), gids.get(groups.get(state.gid, ""), 0)
        return replace(state, uid=uid, gid=gid)

    return owned


def _make_mount_points(var: Path, shown: Iterable[str]) -> None:
    for name in shown:
        place = var / name.removeprefix("var/")
        place.mkdir(exist_ok=True)
        place.chmod(layout.STATE_DIRECTORIES[f"/{name}"])
