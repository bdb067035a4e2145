"""Which changes of a root directory can change the initramfs that is made of it.

All can, but those in a few places which dracut and its modules do not read. Paths are relative to the root.
"""

from __future__ import annotations

from collections.abc import Collection

#: A directory with a slash at the end, or a file.
_NEVER_READ = (
    "boot/",
    "etc/apt/",
    "etc/issue",
    "etc/issue.net",
    "etc/motd",
    "home/",
    "opt/",
    "root/",
    "srv/",
    "usr/lib/bootc/",
    "usr/lib/sysimage/",
    "usr/local/share/doc/",
    "usr/share/doc/",
    "usr/share/info/",
    "usr/share/locale/",
    "usr/share/man/",
    "var/",
)
#: What is changed here may read anything.
_RULES = ("etc/dracut.conf", "usr/lib/dracut/", "usr/lib/apt-ostree/dracut-arguments", "usr/sbin/dracut")


def relevant(changed: Collection[str], *, has_arguments: bool) -> frozenset[str]:
    """Return the changed paths that count.

    has_arguments: dracut has arguments of the treefile, which may name any file.
    """
    if has_arguments or any(path.startswith(_RULES) for path in changed):
        return frozenset(changed)
    return frozenset(path for path in changed if not _is_never_read(path))


def _is_never_read(path: str) -> bool:
    return any(path == name or (name.endswith("/") and path.startswith(name)) for name in _NEVER_READ)
