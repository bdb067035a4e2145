"""Which commits may be deployed: those that are signed as the configuration of their remote requires.

A commit without a remote is one that root has put into the repository, and needs no signature.
"""

from __future__ import annotations

from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused
from apt_ostree.model.refspec import Refspec
from apt_ostree.system import journal
from apt_ostree.system.ostree import remotes, signatures


def require_signed(tx: Transaction, branch: Refspec, commit: str) -> None:
    """Raise Refused for a commit of a branch's remote that has no valid signature, but has to.

    It is checked again for a commit that is here: when it was pulled, the keys or the configuration may have
    been others. A commit that is taken without a signature is noted in the system's journal.
    """
    remote, repo = branch.remote, tx.sysroot.repo
    if not remote:
        return
    if not remotes.verifies(repo, remote):
        text = f"commit {commit[:12]} was not verified: gpg-verify=false is set for the remote {remote}"
        tx.warning(text)
        fields = {"APT_OSTREE_UNVERIFIED": commit, "APT_OSTREE_CALLER": tx.caller.user}
        journal.send((f"{tx.title}: {text}",), fields=fields)
        return
    present = signatures.of_remote(repo, commit, remote)
    if not any(signature.valid for signature in present):
        raise Refused(
            f"commit {commit[:12]} has no valid signature",
            details=[signature.describe() for signature in present],
            hint=f"'ostree remote list-gpg-keys {remote}' lists the keys that may sign",
        )
