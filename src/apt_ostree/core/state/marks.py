"""Which trees have failed: the content of commits, and the marks of it (model.verdict).

A boot depends on commands that were run in the tree, on its initramfs and on kernel arguments, so that its
mark is about these, too. A live change is told by base and packages alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from apt_ostree.core.state.inventory import packages_of
from apt_ostree.errors import Refused
from apt_ostree.model.deployment import Deployment
from apt_ostree.model.origin import Origin
from apt_ostree.model.package import Package
from apt_ostree.model.verdict import Mark, Memory, Way, find, identity_of, marked, unmarked
from apt_ostree.system import verdicts
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree.repo import Repo


def content_of(repo: Repo, commit: str, origin: Origin | None = None) -> str:
    """Return the identity of a commit's content. origin: of its deployment, if it is to be booted."""
    return identity(repo.base_of(commit), packages_of(repo, commit), origin)


def identity(base: str, packages: Iterable[Package], origin: Origin | None) -> str:
    """Return the identity of packages on a base. origin: see `content_of`."""
    if origin is None:
        return identity_of(base, packages)
    return identity_of(base, packages, origin.commands, origin.initramfs, origin.initramfs_etc)


def of_boot(repo: Repo, memory: Memory, deployment: Deployment) -> Mark | None:
    """Return the mark of a deployment of which a boot has failed."""
    if not memory.marks:
        return None
    content = content_of(repo, deployment.checksum, deployment.origin)
    return find(memory, content, Way.BOOT, deployment.kernel_arguments)


def of_live(repo: Repo, memory: Memory, commit: str) -> Mark | None:
    """Return the mark of a commit of which a live change has failed."""
    return find(memory, content_of(repo, commit), Way.LIVE) if memory.marks else None


def of_deployment(repo: Repo, memory: Memory, deployment: Deployment) -> tuple[Mark, ...]:
    """Return the marks of a deployment, at most one of each way."""
    found = (of_boot(repo, memory, deployment), of_live(repo, memory, deployment.checksum))
    return tuple(mark for mark in found if mark)


def of_planned(content: Callable[[], str], way: Way, arguments: Sequence[str] | None = None) -> Mark | None:
    """Return the mark of a content, see `find`."""
    memory = verdicts.read()
    return find(memory, content(), way, arguments) if memory.marks else None


def refusal(mark: Mark) -> Refused:
    """Return the refusal to bring a tree into force that has failed before."""
    return Refused(
        "the same packages on the same base have failed before",
        details=(mark.describe(),),
        hint="wait for other packages, or mend the cause and try again with --allow-failed",
    )


def note(mark: Mark) -> None:
    """Remember a mark. The caller holds the system's lock."""
    failpoint("marks.before-write")
    verdicts.write(marked(verdicts.read(), mark))
    failpoint("marks.written")


def forget(mark: Mark) -> None:
    """Forget a mark. The caller holds the system's lock."""
    verdicts.write(unmarked(verdicts.read(), mark))
