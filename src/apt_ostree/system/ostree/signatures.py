"""Signatures of commits, made and checked with GnuPG by libostree."""

from __future__ import annotations

from pathlib import Path

from apt_ostree.model.signature import Signature
from apt_ostree.system import gpg
from apt_ostree.system.ostree.gi_ostree import Gio, GLib, OSTree, explained
from apt_ostree.system.ostree.repo import Repo


def sign(repo: Repo, commit: str, key: str, homedir: Path | None = None) -> bool:
    """Sign a commit; return False if the key has signed it already.

    key, homedir: see gpg.secret_keys.

    Raises ExternalFailure if there is no such key, or if it cannot be used.
    """
    own = gpg.secret_keys(key, homedir)
    # Without the public keys, libostree does not see that a key has signed it, and would add a signature.
    if any(one.endswith(issuer) for one in own for issuer in _issuers(repo, commit)):
        return False
    with explained(f"sign commit {commit[:12]} with {key}"):
        repo.handle.sign_commit(commit, key, str(homedir) if homedir else None, None)
    return True


def _issuers(repo: Repo, commit: str) -> list[str]:
    """Return the fingerprints, or the ids, of the keys that have signed a commit, whoever they belong to."""
    try:
        result = repo.handle.verify_commit_ext(commit, None, None, None)
    except GLib.Error:
        return []  # not signed at all
    return [_signature(result, number).fingerprint for number in range(result.count_all())]


def is_signed(repo: Repo, commit: str, keyrings: Path) -> bool:
    """Return whether a commit has a good signature by a key of the *.gpg keyrings in a directory."""
    if not keyrings.is_dir():
        return False
    try:
        result = repo.handle.verify_commit_ext(commit, Gio.File.new_for_path(str(keyrings)), None, None)
    except GLib.Error:
        return False  # not signed at all
    return bool(result.count_valid())


def of_remote(repo: Repo, commit: str, remote: str) -> tuple[Signature, ...]:
    """Return the signatures of a commit, checked with the keys of a remote; ExternalFailure without GnuPG."""
    with explained(f"check the signatures of commit {commit[:12]}"):
        try:
            result = repo.handle.verify_commit_for_remote(commit, remote, None)
        except GLib.Error as error:
            if not error.matches(OSTree.gpg_error_quark(), OSTree.GpgError.NO_SIGNATURE):
                raise
            return ()
    return tuple(_signature(result, number) for number in range(result.count_all()))


def _signature(result: OSTree.GpgVerifyResult, number: int) -> Signature:
    return Signature(*result.get_all(number).unpack())
