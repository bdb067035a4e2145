"""The names of the service on the system bus."""

from __future__ import annotations

NAME = "org.debian.aptostree1"
PATH = "/org/debian/aptostree1"
QUERIES = "org.debian.aptostree1.Queries"
#: The object that makes transactions; each of them is an object below it.
TRANSACTIONS_PATH = f"{PATH}/transactions"
TRANSACTIONS = "org.debian.aptostree1.Transactions"
TRANSACTION = "org.debian.aptostree1.Transaction"
SYSROOT_PATH, SYSROOT = f"{PATH}/Sysroot", "org.debian.aptostree1.Sysroot"
LIVE_PATH, LIVE = f"{PATH}/Live", "org.debian.aptostree1.Live"
OVERLAYS_PATH, OVERLAYS = f"{PATH}/Overlays", "org.debian.aptostree1.Overlays"
HISTORY_PATH, HISTORY = f"{PATH}/History", "org.debian.aptostree1.History"
#: Of the object of each stateroot.
OS = "org.debian.aptostree1.OS"


def path_of(transaction: int) -> str:
    """Return the object of a transaction."""
    return f"{TRANSACTIONS_PATH}/{transaction}"


def path_of_stateroot(name: str) -> str:
    """Return the object of a stateroot, whose name is escaped as rpm-ostree does it."""
    return f"{PATH}/os/{escaped(name)}"


def escaped(name: str) -> str:
    """Return a name as an element of a path, as rpm-ostree writes it."""
    return "".join(map(_escaped, name.encode()))


def _escaped(byte: int) -> str:
    letter = chr(byte)
    if letter.isascii() and letter.isalnum():
        return letter
    return "_" if letter in "_-/" else f"_{byte:02X}"
