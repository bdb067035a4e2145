"""The commit of which a disk is made: one of a repository, or of a container image, which is imported."""

from __future__ import annotations

from pathlib import Path

from apt_ostree.core import trust
from apt_ostree.core.images import fetching, following, importing
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import oci
from apt_ostree.model.image_reference import ImageReference
from apt_ostree.model.origin import Origin
from apt_ostree.model.refspec import Refspec
from apt_ostree.model.requests.images import OfCommit
from apt_ostree.system import programs, skopeo
from apt_ostree.system.ocilayout import KeptLayout
from apt_ostree.system.ostree import commit, remotes
from apt_ostree.system.ostree.new_sysroot import Source
from apt_ostree.system.ostree.repo import Repo


def of_request(tx: Transaction, request: OfCommit, work: Path) -> Source | None:
    """Return the commit that a request names; None if it names none.

    work: an empty directory, which an image is fetched to, and imported in.

    Raises UsageError if there is no such repository or ref, and what `of_image` does.
    """
    if request.image:
        return of_image(tx, request.image, request.target_image, work)
    if request.repo and request.ref:
        return of_repository(request.repo, request.ref)
    return None


def of_image(tx: Transaction, name: str, target: str | None, work: Path) -> Source:
    """Return the commit of an image, imported into a new repository.

    name, target: of the image, and of the one that the machine follows, see model.image_reference; None is
        the same.
    work: see `of_request`.

    Raises UsageError for what is no name of an image, Refused for an image that is not verified as it has to
    be or that no machine can use, and ExternalFailure if it cannot be had.
    """
    reference = ImageReference.parse(name)
    target_reference = ImageReference.parse(target) if target else reference
    for one in (reference, target_reference):
        if one.remote:
            raise Refused(
                f"{one.image} cannot be verified by the keys of a remote: the new system has none yet",
                hint=f"name it with the check of a policy, such as ostree-image-signed:{one.image}",
                concerns_trust=True,
            )
    programs.require("making a disk of an image", skopeo.PROGRAMS, {})
    trust.require_image_policy(tx, reference)
    data = fetching.look_at(tx, reference)
    image = fetching.fetch(tx, reference, data, KeptLayout(_directory(work / "image")), {})
    path = _directory(work / "repo")
    checksum = importing.take_in(tx, Repo.create(path), image)
    origin = following.followed(Origin(), target_reference, oci.digest_of(data))
    return Source(path, checksum, origin, image=str(reference))


def of_repository(path: str, ref: str) -> Source:
    """Return the commit of a ref in a repository that the caller names; UsageError if there is none."""
    repo = Path(path).absolute()
    if not commit.exists(repo):
        raise UsageError(f"there is no OSTree repository in {repo}")
    return of_ref(repo, ref)


def of_ref(path: Path, ref: str) -> Source:
    """Return the commit of a repository's ref, which machines follow; UsageError if there is none.

    Of REMOTE:BRANCH, which has been pulled, they follow the branch of that remote.
    """
    repo, branch = Repo.open(path), Refspec.parse(ref)
    checksum = repo.refs("").get(ref) if branch.remote else repo.local_ref(ref)
    if checksum is None:
        raise UsageError(f"{path} has no ref {ref}", hint=f"'ostree refs --repo={path}' lists them")
    remote = remotes.read(path, branch.remote) if branch.remote else None
    return Source(path, checksum, Origin(refspec=ref), remote)


def name_of(source: Source) -> str:
    """Return how to call a commit: by the branch, or the image, that it is of."""
    return source.follows or source.commit


def _directory(path: Path) -> Path:
    path.mkdir(mode=0o700)
    return path
