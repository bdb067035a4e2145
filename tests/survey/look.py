"""Prints the machine's state as a JSON object: path -> type, mode, owner and digest; and the accounts."""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import stat

TOPS = ("/etc", "/var/lib", "/var/spool", "/var/www", "/var/games", "/srv", "/usr/local")
#: What changes by itself while a system runs, or belongs to the system's own tools.
LEFT_OUT = (
    "/etc/.pwd.lock", "/etc/.updated", "/etc/ld.so.cache", "/etc/mtab", "/etc/resolv.conf",
    "/var/lib/apt", "/var/lib/apt-ostree", "/var/lib/dbus", "/var/lib/dpkg", "/var/lib/private",
    "/var/lib/systemd", "/var/lib/testbed", "/var/lib/ucf", "/var/lib/logrotate", "/var/lib/man-db",
)  # fmt: skip
BACKUPS = tuple(f"/etc/{name}-" for name in ("passwd", "shadow", "group", "gshadow", "subuid", "subgid"))
LARGEST = 4_000_000  # bytes; of a larger file, the size tells


_KINDS = {stat.S_IFDIR: "directory", stat.S_IFSOCK: "socket", stat.S_IFIFO: "pipe"}


def row(path: str) -> list[object]:
    info = os.lstat(path)
    owner = (info.st_uid, info.st_gid)
    kind = stat.S_IFMT(info.st_mode)
    if stat.S_ISLNK(info.st_mode):
        return ["link", 0, *owner, os.readlink(path)]
    if stat.S_ISREG(info.st_mode):
        if info.st_size > LARGEST:
            return ["file", stat.S_IMODE(info.st_mode), *owner, info.st_size]
        with open(path, "rb") as stream:
            return ["file", stat.S_IMODE(info.st_mode), *owner, hashlib.sha256(stream.read()).hexdigest()]
    return [_KINDS.get(kind, "other"), stat.S_IMODE(info.st_mode), *owner, ""]


def rows() -> dict[str, list[object]]:
    result = {}
    for top in TOPS:
        for directory, names, files in os.walk(top):
            names[:] = [name for name in names if f"{directory}/{name}" not in LEFT_OUT]
            for name in (*names, *files):
                path = f"{directory}/{name}"
                if path not in LEFT_OUT and path not in BACKUPS:
                    try:
                        result[path] = row(path)
                    except FileNotFoundError:
                        pass
    return result


accounts = {
    f"user {user.pw_name}": [user.pw_uid, user.pw_gid, user.pw_dir, user.pw_shell] for user in pwd.getpwall()
}
accounts |= {f"group {group.gr_name}": [group.gr_gid, *group.gr_mem] for group in grp.getgrall()}
print(json.dumps({"files": rows(), "accounts": accounts}))
