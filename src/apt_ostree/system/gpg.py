"""GnuPG: which keys a keyring has. libostree signs and verifies with it itself."""

from __future__ import annotations

import os
from pathlib import Path

from apt_ostree.errors import UsageError
from apt_ostree.system import process


def secret_keys(key: str, homedir: Path | None = None) -> frozenset[str]:
    """Return the fingerprints of a secret key and its subkeys.

    key: an id, a fingerprint or a mail address.
    homedir: the directory of the keyring; None is the caller's own.

    Raises ExternalFailure if the keyring does not have it, and UsageError if several keys match.
    """
    where: list[str | Path] = ["--homedir", homedir] if homedir else []
    own = {name: os.environ[name] for name in ("HOME", "GNUPGHOME") if name in os.environ}
    command = ["gpg", *where, "--batch", "--with-colons", "--list-secret-keys", "--", key]
    listed = process.run(command, what=f"find the secret key {key}", env=own).stdout
    keys: list[list[str]] = []  # each with its subkeys
    for row in (line.split(":") for line in listed.splitlines()):  # see doc/DETAILS of GnuPG
        if row[0] == "sec":
            keys.append([])
        elif row[0] == "fpr":
            keys[-1].append(row[9])
    if len(keys) > 1:
        raise UsageError(
            f"{len(keys)} secret keys match {key}",
            details=[prints[0] for prints in keys],
            hint="name one of them by its fingerprint",
        )
    return frozenset(one for prints in keys for one in prints)
