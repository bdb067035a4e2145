"""Signatures of commits, made and checked with GnuPG by libostree."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apt_ostree.model.signature import Signature
from apt_ostree.system import gpg
from apt_ostree.system.ostree.gi_ostree import Gio, GLib, OSTree, explained
from apt_ostree.system.ostree.repo import Repo

#: Key of the signatures beside a commit or a summary, as a variant aay.
_SIGNATURES = "ostree.gpgsigs"


def sign(repo: Repo, commit: str, key: str, homedir: Path | None = None) -> bool:
    """Sign a commit; return False if the key has signed it already.

    key, homedir: see gpg.secret_keys.

    Raises ExternalFailure if there is no such key, or if it cannot be used.
    """
    # Without the public keys, libostree does not see that a key has signed it, and would add a signature.
    if has_signed(repo, commit, key, homedir):
        return False
    with explained(f"sign commit {commit[:12]} with {key}"):
        repo.handle.sign_commit(commit, key, str(homedir) if homedir else None, None)
    return True


def has_signed(repo: Repo, commit: str, key: str, homedir: Path | None = None) -> bool:
    """Return whether a key has signed a commit. key, homedir: see gpg.secret_keys, whose errors it raises."""
    own = gpg.secret_keys(key, homedir)
    return any(one.endswith(issuer) for one in own for issuer in _issuers(repo, commit))


def lacking(repo: Repo, source: Repo, commit: str) -> list[bytes]:
    """Return the signatures of a commit that another repository has, and this one has not."""
    there = _raw(_detached(repo, commit))
    return [one for one in _raw(_detached(source, commit)) if one not in there]


def copy(repo: Repo, source: Repo, commit: str) -> None:
    """Add the signatures of a commit that another repository has to those that this one has."""
    before = _detached(repo, commit)
    signed = GLib.Variant("aay", [*_raw(before), *lacking(repo, source, commit)])
    with explained(f"write the signatures of commit {commit[:12]}"):
        variant = GLib.Variant("a{sv}", {**before, _SIGNATURES: signed})
        repo.handle.write_commit_detached_metadata(commit, variant, None)


def _detached(repo: Repo, commit: str) -> dict[str, Any]:
    """Return what is kept beside a commit, as variants."""
    with explained(f"read the signatures of commit {commit[:12]}"):
        _ok, variant = repo.handle.read_commit_detached_metadata(commit, None)
    return {} if variant is None else {key: variant.lookup_value(key, None) for key in variant.keys()}  # noqa: SIM118


def _raw(detached: Mapping[str, Any]) -> list[bytes]:
    signed = detached.get(_SIGNATURES)
    return [] if signed is None else [bytes(one) for one in signed.unpack()]


def issuers_of_data(repo: Repo, data: bytes, detached: bytes) -> frozenset[str]:
    """Return the fingerprints, or the ids, of the keys that have signed what is no commit.

    detached: its signatures, as a variant a{sv}.
    """
    rows = GLib.Variant.new_from_bytes(GLib.VariantType("a{sv}"), GLib.Bytes.new(detached), False)
    signed = b"".join(_raw({key: rows.lookup_value(key, None) for key in rows.keys()}))  # noqa: SIM118
    try:
        result = repo.handle.gpg_verify_data(
            None, GLib.Bytes.new(data), GLib.Bytes.new(signed), None, None, None
        )
    except GLib.Error:
        return frozenset()  # no signature that GnuPG can read
    return frozenset(_signature(result, number).fingerprint for number in range(result.count_all()))


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
