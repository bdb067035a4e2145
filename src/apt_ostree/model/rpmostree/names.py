"""The names of rpm-ostree's service on the system bus."""

from __future__ import annotations

from apt_ostree.model.bus import escaped

NAME = "org.projectatomic.rpmostree1"
#: Where the manager of all objects is.
PATH = "/org/projectatomic/rpmostree1"
SYSROOT_PATH, SYSROOT = f"{PATH}/Sysroot", "org.projectatomic.rpmostree1.Sysroot"
#: Of the object of each stateroot.
OS = "org.projectatomic.rpmostree1.OS"
#: Of a transaction, on a connection of its own.
TRANSACTION_PATH, TRANSACTION = "/", "org.projectatomic.rpmostree1.Transaction"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"


def path_of_stateroot(name: str) -> str:
    """Return the object of a stateroot."""
    return f"{PATH}/{escaped(name)}"
