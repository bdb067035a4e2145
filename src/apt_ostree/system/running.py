"""What runs: the processes of each unit, the files they execute, and which /usr they see.

Reads /proc (proc(5)) and nothing of what a process could forge: not its environment, not its arguments.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from apt_ostree.model.unit import Process
from apt_ostree.system import mountinfo

_UNIT = re.compile(r"[^/]+\.(?:service|scope|socket|mount|swap)(?=/|$)")
_PROC = Path("/proc")
_SOCKET = re.compile(r"socket:\[([0-9]+)\]")
_TCP_ESTABLISHED, _TCP_LISTEN = "01", "0A"  # include/net/tcp_states.h
_UNIX_STREAM, _UNIX_CONNECTED, _UNIX_LISTENS = "0001", "03", 0x10000  # net/unix/af_unix.c


def processes() -> Iterator[Process]:
    """Yield the processes that see our root directory; those of containers see another."""
    root = (_PROC / "1/root/.").stat()
    for entry in os.scandir(_PROC):
        if not entry.name.isdecimal():
            continue
        directory = _PROC / entry.name
        try:
            theirs = (directory / "root/.").stat()
            if (theirs.st_dev, theirs.st_ino) == (root.st_dev, root.st_ino):
                yield _read(directory)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended meanwhile


def _read(directory: Path) -> Process:
    maps = (directory / "maps").read_text(errors="surrogateescape")
    return Process(
        pid=int(directory.name),
        name=(directory / "comm").read_text(errors="replace").strip(),
        unit=unit_of_cgroup((directory / "cgroup").read_text()),
        mapped=executable_mappings(maps),
    )


def unit_of_cgroup(text: str) -> str:
    """Return the outermost unit of a process's control group, or "" (cgroups(7))."""
    group = next((line[3:] for line in text.splitlines() if line.startswith("0::")), "")
    found = _UNIT.search(group)
    return found[0] if found else ""


def executable_mappings(maps: str) -> frozenset[tuple[str, int]]:
    """Return path and inode of the files that a process has mapped to execute."""
    found = set()
    for line in maps.splitlines():
        words = line.split(maxsplit=5)
        if len(words) == 6 and "x" in words[1] and words[5].startswith("/"):
            found.add((words[5].removesuffix(" (deleted)"), int(words[4])))
    return frozenset(found)


def keeps_view(pid: int) -> bool:
    """Tell whether a process will go on to see the present /usr when the system's changes.

    Its mount namespace gets the system's changes when its /usr is a slave or a peer of the system's.
    """
    try:
        if (_PROC / str(pid) / "ns/mnt").readlink() == (_PROC / "1/ns/mnt").readlink():
            return False
        theirs, ours = (_peers_of_usr(who) for who in (pid, 1))
    except (FileNotFoundError, ProcessLookupError):
        return False
    return theirs.isdisjoint(ours)


def _peers_of_usr(pid: int) -> frozenset[int]:
    """Return the peer groups that the mount which shows /usr belongs to or receives from."""
    mounts = mountinfo.read(pid)
    for target in ("/usr", "/"):
        if stack := mountinfo.stack_at(mounts, target):
            return frozenset(stack[-1].peers)
    return frozenset()


# -- clients --------------------------------------------------------------------------------------


def clients(units: Collection[str]) -> dict[str, int]:
    """Return for each of these units how many established connections its processes have accepted.

    TCP and stream sockets of the unix family; what it connected to itself does not count.
    """
    held: dict[str, set[int]] = {}
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
            held.setdefault(unit, set()).update(_sockets(directory) & accepted[network])
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended meanwhile
    return {unit: len(inodes) for unit, inodes in held.items() if inodes}


def _accepted_in(net: Path) -> frozenset[int]:
    tables = [(net / name).read_text() for name in ("tcp", "tcp6") if (net / name).exists()]
    return accepted_tcp("".join(tables)) | accepted_unix((net / "unix").read_text())


def _sockets(directory: Path) -> frozenset[int]:
    """Return the inodes of the sockets that a process has open."""
    found = set()
    for entry in os.scandir(directory / "fd"):
        try:
            if match := _SOCKET.fullmatch(os.fspath(Path(entry).readlink())):
                found.add(int(match[1]))
        except FileNotFoundError:
            continue
    return frozenset(found)


def accepted_tcp(table: str) -> frozenset[int]:
    """Return the inodes of established connections to a port that is listened on (/proc/net/tcp, proc(5))."""
    rows = [words for line in table.splitlines() if (words := line.split())[0] != "sl"]
    listening = {_port(words[1]) for words in rows if words[3] == _TCP_LISTEN}
    return frozenset(
        int(words[9]) for words in rows if words[3] == _TCP_ESTABLISHED and _port(words[1]) in listening
    )


def _port(address: str) -> str:
    return address.rpartition(":")[2]


def accepted_unix(table: str) -> frozenset[int]:
    """Return the inodes of connections to a socket that is listened on (/proc/net/unix, proc(5)).

    The accepting end of a connection bears the name of the socket that was connected to.
    """
    rows = [words for line in table.splitlines()[1:] if len(words := line.split(maxsplit=7)) == 8]
    listening = {words[7] for words in rows if int(words[3], 16) & _UNIX_LISTENS}
    return frozenset(
        int(words[6])
        for words in rows
        if words[4] == _UNIX_STREAM and words[5] == _UNIX_CONNECTED and words[7] in listening
    )
