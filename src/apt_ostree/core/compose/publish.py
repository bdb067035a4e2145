"""What is made of a commit before machines pull it: signatures, and a static delta."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import UsageError
from apt_ostree.model.requests.compose import ComposeSign
from apt_ostree.model.result import Result
from apt_ostree.model.sizes import show_size
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import commit, deltas, signatures
from apt_ostree.system.ostree.repo import Repo


def sign(tx: Transaction, request: ComposeSign) -> Result:
    """Sign commits with each of the keys that has not signed them.

    Returns `commits`. Raises UsageError for a repository or a commit that is not there, and ExternalFailure
    for a key that is not there, or for one that cannot be used.
    """
    if not (request.revs and request.keys):
        raise UsageError("there is nothing to sign, or no key", hint="name commits with --rev, and a --key")
    path = Path(request.repo)
    if not commit.exists(path):
        raise UsageError(f"{path} is not an OSTree repository")
    repo = Repo.open(path)
    commits = [repo.resolve(rev) for rev in request.revs]
    sign_commit = _signing(request.keys, request.gpg_homedir)
    changed = False
    for checksum in commits:
        with tx.task(f"Signing {checksum[:12]} with {', '.join(request.keys)}"):
            changed |= sign_commit(repo, checksum)
        failpoint("compose.signed")
    return Result(changed, details={"commits": commits})


def signing(keys: Sequence[str], gpg_homedir: str | None) -> Callable[[Repo, str], bool] | None:
    """Return a function that signs a commit with all keys, or None without one.

    The function returns False if all keys have signed the commit already.

    Raises UsageError for a directory that is none.
    """
    return _signing(keys, gpg_homedir) if keys else None


def _signing(keys: Sequence[str], gpg_homedir: str | None) -> Callable[[Repo, str], bool]:
    home = homedir(gpg_homedir)

    def sign_commit(repo: Repo, checksum: str) -> bool:
        done = [signatures.sign(repo, checksum, key, home) for key in keys]
        return any(done)

    return sign_commit


def homedir(path: str | None) -> Path | None:
    """Return the directory of a keyring; None for the caller's own. Raises UsageError for what is none."""
    if path is not None and not Path(path).is_dir():
        raise UsageError(f"{path} is not the directory of a GnuPG keyring")
    return Path(path).absolute() if path is not None else None


def require_archive(path: Path) -> None:
    """Raise UsageError unless a repository can have static deltas."""
    if not (commit.exists(path) and Repo.open(path).is_archive):
        raise UsageError(
            f"static deltas are for a repository of the mode archive, which {path} is not",
            hint=f"make one with 'ostree init --mode=archive --repo={path}'",
        )


def with_static_delta(tx: Transaction, path: Path, head: str | None, result: Result) -> Result:
    """Make the static delta to a compose's commit, if there is one to make from; add it to the result.

    head: the commit of the ref before the compose.

    Without a change it is made from the commit's parent if it is missing: a compose may have been killed
    after its commit.
    """
    new = result.details["commit"]
    if new is None:
        return result
    old = head if result.changed else deltas.missing(Repo.open(path), new)
    if not old:
        return result
    return replace(result, details={**result.details, "static-delta": static_delta(tx, path, old, new)})


def static_delta(tx: Transaction, path: Path, old: str, new: str) -> dict[str, Any]:
    """Make the static delta between two commits; return `from`, its `bytes`, and those of new `objects`."""
    with tx.task(f"Making the static delta from {old[:12]}"):
        made = deltas.make(Repo.open(path), old, new)
    sizes = show_size(made.bytes), show_size(made.objects)
    tx.message(f"The static delta from {old[:12]} has {sizes[0]}; the new objects alone have {sizes[1]}.")
    return {"from": old, "bytes": made.bytes, "objects": made.objects}
