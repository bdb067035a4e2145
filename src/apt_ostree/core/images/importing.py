"""Makes a commit of an image that was fetched: each layer is looked at, written, and laid on those below.

All of it is one transaction of the repository: an error, a cancel or a power cut leaves it as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure, Refused
from apt_ostree.model import layout, oci_image
from apt_ostree.model.events import Progress
from apt_ostree.model.image_merge import LayerTree, Merge
from apt_ostree.model.image_reference import ImageReference
from apt_ostree.model.image_screen import Screen, Unfit
from apt_ostree.model.oci import Descriptor
from apt_ostree.model.oci_image import Config, Manifest
from apt_ostree.model.package import Package
from apt_ostree.system import tarreader
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ocilayout import KeptLayout
from apt_ostree.system.ostree import diff, image_commits
from apt_ostree.system.ostree.image_commits import LayerWriter, WrittenTree
from apt_ostree.system.ostree.repo import Repo, package_list, text

_STATUS = f"{layout.DPKG_ADMINDIR}/status"
_CHUNK = 1 << 20
_LARGEST_STATUS = 64 << 20  # Debian's whole archive has about as much
#: libostree names boot entries by it, and would fail no sooner than at the shutdown.
_OS_RELEASE = ("usr/etc/os-release", "usr/lib/os-release")
_FOR_MACHINES = "'apt-ostree compose image' makes images for machines; nothing was changed"


@dataclass(frozen=True, slots=True)
class Fetched:
    """An image that was fetched.

    reference: as it was asked for.
    digest: what the reference stands for; that of an index, if it is one of several images.
    blobs: where its blobs are.
    """

    reference: ImageReference
    digest: str
    manifest: Manifest
    config: Config
    blobs: KeptLayout


def take_in(tx: Transaction, repo: Repo, image: Fetched) -> str:
    """Write an image into a repository; return the commit to deploy.

    It is the commit that the image was made of, if the image says which one and has its very tree.

    Raises Refused for an image with what no layer may have, or which no machine can boot, and ExternalFailure
    for one that is damaged.
    """
    layers = list(zip(image.manifest.layers, image.config.diff_ids, strict=True))
    known = {diff_id: image_commits.known(repo, diff_id) for _layer, diff_id in layers}
    new = {diff_id: layer.size for layer, diff_id in layers if known[diff_id] is None}
    progress = _Progress(tx, f"Importing {len(new)} of {len(layers)} layers", sum(new.values()))
    with tx.task(progress.title), repo.transaction():
        for layer, diff_id in layers:
            if known[diff_id] is None:
                known[diff_id] = _write_layer(repo, image, layer, diff_id)
                progress.add(layer.size)
            elif image.blobs.has(layer.digest):  # the layer is here from another blob, or twice in the image
                _verify_layer(image, layer, diff_id)
        merge = Merge(partial(diff.read_dirtree, repo), image_commits.plain_directory(repo))
        for layer, diff_id in layers:
            if (tree := known[diff_id]) is not None:
                with _refusing(image, layer):
                    merge.lay(tree)
        written = image_commits.write_merged(repo, merge.root)
        _require_bootable(repo, image, written)
        commit = _commit(repo, image, written)
        blobs = [layer.digest for layer, _diff_id in layers]
        image_commits.remember(repo, image.digest, image.config.diff_ids, blobs)
        failpoint("import.before-commit")
    failpoint("import.imported")
    image_commits.mark_whole(repo, commit)
    return commit


def _verify_layer(image: Fetched, layer: Descriptor, diff_id: str) -> None:
    """Raise ExternalFailure for a blob of another content: what is noted of it has to be true."""
    with image.blobs.opened(layer, oci_image.compression_of(layer), diff_id) as read:
        while read(_CHUNK):
            pass


def _write_layer(repo: Repo, image: Fetched, layer: Descriptor, diff_id: str) -> LayerTree:
    screen, writer = Screen(), LayerWriter(repo)
    compression = oci_image.compression_of(layer)
    with _refusing(image, layer), image.blobs.opened(layer, compression, diff_id) as read:
        for member in tarreader.members(read):
            if kept := screen.take(member.header):
                writer.add(kept, member.header.size, member.chunks)
        screen.finish()
    failpoint("import.layer-written")
    return writer.commit(diff_id, screen.implied, screen.removed, screen.emptied)


@contextmanager
def _refusing(image: Fetched, layer: Descriptor) -> Iterator[None]:
    try:
        yield
    except Unfit as error:
        raise Refused(
            f"a layer of {image.reference.image} has what no layer of a machine's image may have",
            details=[f"{layer.digest[7:19]}: {error}"],
            hint="who makes the image has to leave it out; nothing was changed",
            concerns_trust=True,
        ) from error


def _require_bootable(repo: Repo, image: Fetched, tree: WrittenTree) -> None:
    """Raise Refused for a tree from which no machine boots."""
    modules = diff.directory_in(repo, tree.checksums, layout.KERNEL_MODULES)
    kernels = diff.read_dirtree(repo, modules[0])[1] if modules else {}
    found = (diff.read_dirtree(repo, contents)[0].get("vmlinuz") for contents, _meta in kernels.values())
    if not any(kernel and repo.outline(kernel).type == "file" for kernel in found):
        raise Refused(
            f"{image.reference.image} has no kernel in /{layout.KERNEL_MODULES}, so that no machine boots it",
            hint=_FOR_MACHINES,
        )
    files, directories = diff.read_dirtree(repo, tree.checksums[0])
    missing = sorted({*layout.TOP_DIRECTORIES, "usr"} - directories.keys())
    missing += [] if "ostree" in files else ["ostree"]
    missing += [] if diff.directory_in(repo, tree.checksums, "usr/etc") else ["etc"]
    if not any(diff.file_in(repo, tree.checksums, name) for name in _OS_RELEASE):
        missing.append("usr/lib/os-release")
    if missing:
        raise Refused(
            f"{image.reference.image} has no /{missing[0]}, so that no machine boots it", hint=_FOR_MACHINES
        )


def _commit(repo: Repo, image: Fetched, tree: WrittenTree) -> str:
    """Write the commit of an image's tree: the one that it was made of, or else a new one."""
    try:
        own = oci_image.own_commit(image.manifest.annotations)
    except ValueError as error:
        raise ExternalFailure(f"the image {image.reference.image} is damaged: {error}") from error
    if own and image_commits.restore(repo, own, tree):
        return own.checksum
    metadata = _metadata(repo, image, tree)
    return image_commits.write(repo, tree, created=image.config.created, metadata=metadata)


def _metadata(repo: Repo, image: Fetched, tree: WrittenTree) -> dict[str, Any]:
    """Return the metadata of a new commit, with the keys by which bootc and rpm-ostree know an image's."""
    rows = {
        layout.META_PACKAGES: package_list(_packages(repo, image, tree)),
        layout.META_IMAGE: text(str(image.reference)),
        layout.META_IMAGE_DIGEST: text(image.digest),
        layout.META_IMAGE_MANIFEST: text(image.manifest.text),
        layout.META_IMAGE_CONFIG: text(image.config.text),
    }
    return rows | ({layout.META_VERSION: text(image.config.version)} if image.config.version else {})


def _packages(repo: Repo, image: Fetched, tree: WrittenTree) -> frozenset[Package]:
    """Return the packages of a tree; Refused without any, and for a database that is none."""
    status = diff.file_in(repo, tree.checksums, _STATUS)
    outline = repo.outline(status) if status else None
    if status is None or outline is None or outline.type != "file":
        raise _without_packages(image)
    if outline.size > _LARGEST_STATUS:
        raise Refused(f"{image.reference.image} has a /{_STATUS} of {outline.size} bytes")
    from apt_ostree.system.apt import status as statuses  # only such an image needs libapt

    try:
        found = statuses.installed(repo.file_state(status).content)
    except (ExternalFailure, LookupError, ValueError) as error:
        raise Refused(f"{image.reference.image} has a /{_STATUS} that cannot be read: {error}") from error
    texts = (text for one in found for text in (one.name, one.version, one.architecture))
    if strange := sorted(text for text in texts if not (text.isprintable() and text.isascii())):
        raise Refused(f"{image.reference.image} has a /{_STATUS} with {strange[0]!r}, which is of no package")
    if not found:
        raise _without_packages(image)
    return found


def _without_packages(image: Fetched) -> Refused:
    return Refused(
        f"{image.reference.image} has no packages of Debian",
        hint=f"dpkg's database belongs in /{layout.DPKG_ADMINDIR}; what is in /var is not taken",
    )


class _Progress:
    """Reports how many bytes of the layers are imported."""

    def __init__(self, tx: Transaction, title: str, total: int) -> None:
        self.title = title
        self._tx, self._total, self._done = tx, total, 0

    def add(self, size: int) -> None:
        self._done += size
        self._tx.report(Progress(self.title, self._done, self._total))
