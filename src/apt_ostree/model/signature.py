"""A signature of a commit, made with GnuPG."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature, as GnuPG sees it with the keys of a remote: the fields of OSTree.GpgSignatureAttr.

    valid: it is good, and by a key that is to be trusted.
    expired: the signature has expired.
    fingerprint: of the key, or its id if the key is missing.
    timestamp: seconds since 1970.
    expires: seconds since 1970, or 0.
    algorithm, digest: names of the key's and the hash's algorithm.
    name, mail: of the key's owner, or empty.
    primary: the fingerprint of the primary key, or empty.
    key_expires, primary_expires: seconds since 1970, or 0.
    """

    valid: bool
    expired: bool
    key_expired: bool
    key_revoked: bool
    key_missing: bool
    fingerprint: str
    timestamp: int
    expires: int
    algorithm: str
    digest: str
    name: str = ""
    mail: str = ""
    primary: str = ""
    key_expires: int = 0
    primary_expires: int = 0

    def describe(self) -> str:
        """Return a line for people."""
        if self.valid:
            return f"Valid signature by {self.fingerprint}"
        return f"Signature by {self.fingerprint}: {self._problem()}"

    def _problem(self) -> str:
        if self.key_missing:
            return "the remote's keyring does not have the key"
        if self.key_revoked:
            return "the key was revoked"
        if self.key_expired:
            return "the key has expired"
        if self.expired:
            return f"it has expired at {datetime.fromtimestamp(self.expires, UTC):%Y-%m-%dT%H:%M:%SZ}"
        return "it is not of this commit, or damaged"
