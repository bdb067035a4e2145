"""What a machine is given on its disk: a name, an account, keys. Checks of what the caller asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from apt_ostree.errors import UsageError

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOSTNAME = re.compile(rf"(?!.{{65}}){_LABEL}(?:\.{_LABEL})*")
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_KEY = re.compile(r"(?:[^#\s].*\s)?(?:ssh-|ecdsa-|sk-)[a-z0-9@.-]+\s+[A-Za-z0-9+/]+=*(?:\s.*)?")
_CONSOLE = re.compile(r"[A-Za-z]+[0-9]*(?:,[0-9]+[noe]?[0-9]?r?)?")


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine is given.

    user: an account to add; "" adds none.
    keys: public keys, as authorized_keys(5) has them, of the user or, without one, of root.
    """

    hostname: str = ""
    user: str = ""
    keys: str = ""

    @property
    def identity(self) -> list[str]:
        """Return what tells two machines apart."""
        return [self.hostname, self.user, self.keys]


def check_hostname(name: str) -> None:
    """Raise UsageError for what cannot be a host's name (hostname(7))."""
    if not _HOSTNAME.fullmatch(name):
        raise UsageError(f"--hostname: {name!r} is not the name of a host, such as web1 or web1.example.org")


def check_account(name: str) -> None:
    """Raise UsageError for what cannot be a user's name (useradd(8))."""
    if not _ACCOUNT.fullmatch(name):
        raise UsageError(f"--user: {name!r} is not a user's name: small letters, digits, - and _")


def check_console(console: str) -> None:
    """Raise UsageError for what cannot be a console of the kernel."""
    if not _CONSOLE.fullmatch(console):
        raise UsageError(f"--console: {console!r} is not a console, such as tty0, ttyS0 or ttyS0,115200")


def accounts_with_password(shadow: str) -> list[str]:
    """Return the accounts of a shadow(5) that one can log in to by a password, or by an empty one."""
    rows = (line.split(":") for line in shadow.splitlines() if ":" in line)
    return [row[0] for row in rows if not row[1].startswith(("!", "*"))]


def read_public_keys(text: str, name: str) -> str:
    """Return public keys as authorized_keys(5) has them, a line each.

    name: of the file, for messages.

    Raises UsageError for a secret key, for anything else that is no public key, and if there is none.
    """
    if "PRIVATE KEY" in text:
        raise UsageError(f"--ssh-key: {name} is a secret key", hint=f"name the public one: {name}.pub")
    rows = [line.strip() for line in text.splitlines()]
    keys = [row for row in rows if row and not row.startswith("#")]
    wrong = [key for key in keys if not _KEY.fullmatch(key)]
    if wrong or not keys:
        found = f"has the line {wrong[0][:40]!r}, which is no public key" if wrong else "has no public key"
        raise UsageError(f"--ssh-key: {name} {found}", hint="such a key begins with ssh-ed25519 or the like")
    return "".join(f"{key}\n" for key in keys)
