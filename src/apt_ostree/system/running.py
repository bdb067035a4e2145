"""Running processes: the units they belong to, the files they execute, and which /usr they see.

Reads /proc (proc(5)), but nothing that a process could forge, such as its environment or arguments.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from apt_ostree.model.unit import Process
from apt_ostree.system import mountinfo

_UNIT = re.compile(r"[^/]+\.(?:service|scope|socket|mount|swap)(?=/|$)")
_PROC = Path("/proc")
_ENDED = (FileNotFoundError, ProcessLookupError, PermissionError)  # what reading about a process raises then
_SOCKET = re.compile(r"socket:\[([0-9]+)\]")
_TCP_ESTABLISHED, _TCP_LISTEN = "01", "0A"  # include/net/tcp_states.h
_UNIX_STREAM, _UNIX_CONNECTED, _UNIX_LISTENS = "0001", "03", 0x10000  # net/unix/af_unix.c


def processes() -> Iterator[Process]:
    """Yield the processes with the root directory of PID 1, which excludes those of containers."""
    root = (_PROC / "1/root/.").stat()
    for entry in os.scandir(_PROC):
        if entry.name.isdecimal():
            with contextlib.suppress(*_ENDED):
                directory = _PROC / entry.name
                if os.path.samestat((directory / "root/.").stat(), root):
                    yield _read(directory)


def _read(directory: Path) -> Process:
    maps = (directory / "maps").read_text(errors="surrogateescape")
    return Process(
        pid=int(directory.name),
        name=(directory / "comm").read_text(errors="replace").strip(),
        unit=unit_of_cgroup((directory / "cgroup").read_text()),
        mapped=executable_mappings(maps),
    )


def name_and_unit(pid: int) -> tuple[str, str]:
    """Return the name of a process and its unit; both are empty if it has ended."""
    directory = _PROC / str(pid)
    try:
        name = (directory / "comm").read_text(errors="replace").strip()
        return name, unit_of_cgroup((directory / "cgroup").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return "", ""


def booted_with_systemd() -> bool:
    """Return whether systemd is the init of this system (sd_booted(3)); it is of no container that builds."""
    return Path("/run/systemd/system").is_dir()


def booted_on_ostree() -> bool:
    """Return whether this system was booted from an OSTree deployment."""
    return Path("/run/ostree-booted").exists()  # written by ostree


def boot_id() -> str:
    """Return the identifier of this boot (random(4))."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def unit_of_cgroup(text: str) -> str:
    """Return the outermost unit in the text of /proc/PID/cgroup, or "" (cgroups(7))."""
    group = next((line[3:] for line in text.splitlines() if line.startswith("0::")), "")
    match = _UNIT.search(group)
    return match[0] if match else ""


def executable_mappings(maps: str) -> frozenset[tuple[str, int]]:
    """Return (path, inode) of the executable mappings in the text of /proc/PID/maps."""
    mappings = set()
    for line in maps.splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and "x" in fields[1] and fields[5].startswith("/"):
            mappings.add((fields[5].removesuffix(" (deleted)"), int(fields[4])))
    return frozenset(mappings)


def keeps_view(pid: int) -> bool:
    """Return whether a process keeps seeing the present /usr after the system's has changed.

    Its mount namespace follows the system's if its /usr is a slave or a peer of the system's.
    """
    try:
        if (_PROC / str(pid) / "ns/mnt").readlink() == (_PROC / "1/ns/mnt").readlink():
            return False
        theirs, ours = (_peers_of_usr(who) for who in (pid, 1))
    except (FileNotFoundError, ProcessLookupError):
        return False
    return theirs.isdisjoint(ours)


def is_a_view_kept() -> bool:
    """Return whether `keeps_view` is true of any process."""
    followed, ours = {(_PROC / "1/ns/mnt").readlink()}, _peers_of_usr(1)
    for entry in os.scandir(_PROC):
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(*_ENDED):
            namespace = (_PROC / entry.name / "ns/mnt").readlink()
            if namespace not in followed:
                if _peers_of_usr(int(entry.name)).isdisjoint(ours):
                    return True
                followed.add(namespace)
    return False


def _peers_of_usr(pid: int) -> frozenset[int]:
    """Return the peer groups of the visible mount of /usr, as a member or as a slave."""
    mounts = mountinfo.read(pid)
    for target in ("/usr", "/"):
        if stack := mountinfo.stack_at(mounts, target):
            return frozenset(stack[-1].peers)
    return frozenset()


# -- clients --------------------------------------------------------------------------------------


def clients(units: Collection[str]) -> dict[str, int]:
    """Return unit -> number of established connections that its processes have accepted, if any.

    TCP and stream sockets of the unix family; connections that a unit has opened itself do not count.
    """
    sockets: dict[str, set[int]] = {}
    accepted: dict[str, frozenset[int]] = {}  # by network namespace
    for directory in _PROC.iterdir() if units else ():
        if not directory.name.isdecimal():
            continue
        try:
            unit = unit_of_cgroup((directory / "cgroup").read_text())
            if unit not in units:
                continue
            network = os.fspath((directory / "ns/net").readlink())
            if network not in accepted:
                accepted[network] = _accepted_in(directory / "net")
            sockets.setdefault(unit, set()).update(_sockets(directory) & accepted[network])
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended meanwhile
    return {unit: len(inodes) for unit, inodes in sockets.items() if inodes}


def _accepted_in(net: Path) -> frozenset[int]:
    tables = [(net / name).read_text() for name in ("tcp", "tcp6") if (net / name).exists()]
    return accepted_tcp("".join(tables)) | accepted_unix((net / "unix").read_text())


def _sockets(directory: Path) -> frozenset[int]:
    """Return the inodes of the sockets that a process has open."""
    inodes = set()
    for entry in os.scandir(directory / "fd"):
        try:
            if match := _SOCKET.fullmatch(os.fspath(Path(entry).readlink())):
                inodes.add(int(match[1]))
        except FileNotFoundError:
            continue
    return frozenset(inodes)


def accepted_tcp(table: str) -> frozenset[int]:
    """Return the inodes of established connections to listening ports (/proc/net/tcp, proc(5))."""
    rows = [row for line in table.splitlines() if (row := line.split())[0] != "sl"]
    listening = {_port(row[1]) for row in rows if row[3] == _TCP_LISTEN}
    return frozenset(int(row[9]) for row in rows if row[3] == _TCP_ESTABLISHED and _port(row[1]) in listening)


def _port(address: str) -> str:
    return address.rpartition(":")[2]


def accepted_unix(table: str) -> frozenset[int]:
    """Return the inodes of connections to listening sockets (/proc/net/unix, proc(5)).

    The accepting end of a connection has the name of the listening socket.
    """
    rows = [row for line in table.splitlines()[1:] if len(row := line.split(maxsplit=7)) == 8]
    listening = {row[7] for row in rows if int(row[3], 16) & _UNIX_LISTENS}
    return frozenset(
        int(row[6])
        for row in rows
        if row[4] == _UNIX_STREAM and row[5] == _UNIX_CONNECTED and row[7] in listening
    )
