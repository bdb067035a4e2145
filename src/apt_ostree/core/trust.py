"""Which commits may be used: those that are signed as the configuration of their remote requires.

A local branch is root's own, and needs no signature. Of an image, the policy of containers says what has to
be verified (containers-policy.json(5)), or its name says that nothing has to be. apt verifies
packages; those of archives where it did not are recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused
from apt_ostree.model.audit import Kind
from apt_ostree.model.image_reference import Check, ImageReference
from apt_ostree.model.refspec import Refspec
from apt_ostree.system import skopeo
from apt_ostree.system.ostree import remotes, signatures
from apt_ostree.system.ostree.remotes import Verification


def require_signed(tx: Transaction, branch: Refspec, commit: str) -> None:
    """Raise Refused for a commit of a branch's remote that has no valid signature, but has to.

    It is checked again for a commit that is here: when it was pulled, the keys or the configuration may have
    been others. A commit that is taken without a signature is recorded as a security event.

    branch: of the commit; empty if it is named by its checksum, so that any remote's keys will do.
    """
    repo, remote = tx.sysroot.repo, branch.remote
    match remotes.verification(repo, remote):
        case Verification.LOCAL if branch or _is_signed_for_any(tx, commit):
            return
        case Verification.LOCAL:
            _note(tx, commit, "no remote's keys have signed it")
        case Verification.EXEMPT:
            _note(tx, commit, f"gpg-verify=false is set for the remote {remote}")
        case Verification.UNKNOWN:
            raise Refused(
                f"commit {commit[:12]} cannot be verified: there is no remote {remote!r}",
                hint="'ostree remote add' configures it, 'apt-ostree rebase' follows another one",
                concerns_trust=True,
            )
        case Verification.REQUIRED:
            present = signatures.of_remote(repo, commit, remote)
            if not any(signature.valid for signature in present):
                raise Refused(
                    f"commit {commit[:12]} has no valid signature",
                    details=[signature.describe() for signature in present],
                    hint=f"'ostree remote list-gpg-keys {remote}' lists the keys that may sign",
                    concerns_trust=True,
                )


def require_image_policy(tx: Transaction, reference: ImageReference) -> None:
    """Raise Refused for an image of which nothing would be verified, unless its name says that.

    What the policy requires is enforced when the image is fetched.
    """
    if reference.check is Check.SIGNED and skopeo.policy_accepts_anything(reference):
        raise Refused(
            f"nothing would be verified of {reference.image}: the policy of containers accepts anything",
            details=[f"{skopeo.POLICY} has 'insecureAcceptAnything' for it"],
            hint="require a signature (containers-policy.json(5)), "
            f"or name it {Check.UNVERIFIED}:{reference.image}",
            concerns_trust=True,
        )
    if reference.remote and reference.remote not in remotes.names(tx.sysroot.repo):
        raise Refused(
            f"{reference.image} cannot be verified: there is no remote {reference.remote!r}",
            hint="'ostree remote add' configures it, with the keys that may sign",
            concerns_trust=True,
        )


def note_image(tx: Transaction, reference: ImageReference, digest: str) -> None:
    """Record as a security event that an image was taken of which nothing was verified."""
    if reference.check is Check.UNVERIFIED and skopeo.policy_accepts_anything(reference):
        text = f"image {reference.image} ({digest[:19]}) was not verified: its name says that it need not be"
        tx.warning(text)
        tx.record(Kind.SECURITY, text, unverified=digest)


def note_archives(tx: Transaction, unverified: Mapping[str, Sequence[str]]) -> None:
    """Record as a security event what packages are taken from archives that were not verified.

    unverified: reason -> NAME=VERSION of packages.
    """
    for reason, packages in unverified.items():
        text = f"{', '.join(packages)} not verified: {reason}"
        tx.warning(text)
        tx.record(Kind.SECURITY, text, unverified=" ".join(packages))


def refuse_older_image(tx: Transaction, reference: ImageReference, created: int, hint: str) -> None:
    """Raise Refused if an image was made before the present base. created: seconds since 1970."""
    repo = tx.sysroot.repo
    base = repo.base_of(tx.merge_deployment.checksum)
    if created < repo.timestamp(base):
        raise Refused(
            f"{reference.image} is older than the present base, {base[:12]}", hint=hint, concerns_trust=True
        )


def refuse_older(tx: Transaction, commit: str, hint: str) -> None:
    """Raise Refused if a commit is older than the present base."""
    repo = tx.sysroot.repo
    base = repo.base_of(tx.merge_deployment.checksum)
    if repo.timestamp(commit) < repo.timestamp(base):
        raise Refused(
            f"commit {commit[:12]} is older than the present one, {base[:12]}", hint=hint, concerns_trust=True
        )


def _is_signed_for_any(tx: Transaction, commit: str) -> bool:
    repo = tx.sysroot.repo
    return any(
        signature.valid
        for remote in remotes.names(repo)
        if remotes.verification(repo, remote) is Verification.REQUIRED
        for signature in signatures.of_remote(repo, commit, remote)
    )


def _note(tx: Transaction, commit: str, reason: str) -> None:
    text = f"commit {commit[:12]} was not verified: {reason}"
    tx.warning(text)
    tx.record(Kind.SECURITY, text, unverified=commit)
