"""What has to be in order before an image is made, and what it is going to be."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from apt_ostree import __version__
from apt_ostree.core.compose import places
from apt_ostree.core.compose.image import members, reading
from apt_ostree.core.compose.image.reading import Tree
from apt_ostree.errors import ExternalFailure, Refused, UsageError
from apt_ostree.model import filestate, image_layers, oci, oci_image, spdx
from apt_ostree.model.filestate import FileState
from apt_ostree.model.image_layers import Layer
from apt_ostree.model.oci import Compression, Form, Previous
from apt_ostree.model.requests.images import ComposeImage
from apt_ostree.system import ociblobs
from apt_ostree.system.ostree import commit as commits
from apt_ostree.system.ostree import contents, damage
from apt_ostree.system.ostree.repo import Repo
from apt_ostree.system.tarstream import Member

#: Names of files that are archives if no format is given.
_ARCHIVES = (".ociarchive", ".oci-archive", ".tar")
#: Part of each digest of a layer's content: another number says that layers are written in another way.
_WAY = b"1"
#: What images are told apart by; a label of these would say what is not so.
_OWN_LABELS = ("ostree.", "containers.bootc")
#: Paths that an error names.
_MOST_NAMED = 20


class Fate(StrEnum):
    """What becomes of a layer, compared with the previous image."""

    UNCHANGED = "unchanged"
    CHANGED = "changed"
    NEW = "new"


@dataclass(frozen=True, slots=True)
class Output:
    """Where an image goes.

    there: the one that is replaced; None without one.
    previous: the one whose layers count; None without one.
    """

    path: Path
    form: Form
    there: Previous | None
    previous: Previous | None


@dataclass(frozen=True, slots=True)
class Planned:
    """A layer. content: a digest of what it has, see model.oci.CONTENT. members: in their order."""

    layer: Layer
    content: str
    fate: Fate
    members: tuple[Member, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the layer as a JSON object."""
        return {
            "name": self.layer.name,
            "sources": list(self.layer.sources),
            "files": len(self.layer.paths),
            "bytes": self.layer.size,
            "fate": self.fate,
        }


@dataclass(frozen=True, slots=True)
class Job:
    """What an image is made of.

    ref: as it was given.
    added: path -> what the commit does not have: the bill of materials, which is the last layer, and /var.
    """

    tree: Tree
    ref: str
    commit: str
    facts: oci.Facts
    layers: tuple[Planned, ...]
    added: Mapping[str, FileState]
    output: Output
    compression: Compression

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(planned.layer.size for planned in self.layers)

    @property
    def differs(self) -> bool:
        """Whether the tree differs from that of the image that would be replaced."""
        there = self.output.there
        return there is None or there.contents != {one.layer.name: one.content for one in self.layers}

    def to_json(self) -> dict[str, Any]:
        """Return the plan as a JSON object."""
        return {
            "ref": self.ref,
            "commit": self.commit,
            "output": str(self.output.path),
            "format": self.output.form,
            "compression": self.compression,
            "bytes": self.size,
            "layers": [planned.to_json() for planned in self.layers],
        }


def check_request(request: ComposeImage) -> Output:
    """Return where the image goes, and which one it follows.

    Raises UsageError for a request that cannot be, and Refused if something else than an image is there.
    """
    if not (request.treefile or (request.repo and request.ref)):
        raise UsageError(
            "there is nothing to make an image of", hint="name a TREEFILE, or a commit with --repo and --ref"
        )
    if request.treefile and request.dry_run:
        raise UsageError(
            "the layers of an image are known once its tree is composed",
            hint="name a commit with --repo and --ref; 'compose tree --dry-run' lists a treefile's packages",
        )
    if request.previous and request.initialize:
        raise UsageError("--previous and --initialize exclude each other")
    if ":" in request.output:
        raise UsageError(
            f"{request.output} has a colon, behind which programs expect a tag",
            hint="name a path without one; an image gets its tag in a registry",
        )
    if own := [key for key in request.labels if key.startswith(_OWN_LABELS)]:
        raise UsageError(f"the label {own[0]} is the image's own", hint="leave it out")
    if os.geteuid() != 0:
        raise Refused("composing an image needs root", hint="run it with sudo")
    by_name = Form.ARCHIVE if request.output.endswith(_ARCHIVES) else Form.OCI
    form = request.format or by_name
    path = places.replaceable(request.output, oci.LAYOUT_FILE) if form is Form.OCI else _file(request.output)
    there = image_at(path, form)
    previous = None if request.initialize else there
    if request.previous:
        previous = oci.read_manifest(ociblobs.read_manifest(Path(request.previous), or_alone=True))
    return Output(path, form, there, previous)


def _file(given: str) -> Path:
    path = Path(given).absolute()
    if not path.parent.is_dir():
        raise UsageError(f"the directory {path.parent} does not exist", hint="create it first")
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        raise UsageError(f"{path} is no regular file", hint="name a file for the image")
    return path


def image_at(path: Path, form: Form) -> Previous | None:
    """Return the image at a path; Refused for what is none, or for several."""
    if not (path / oci.LAYOUT_FILE if form is Form.OCI else path).exists():
        return None
    try:
        return oci.read_manifest(ociblobs.read_manifest(path))
    except UsageError as error:
        raise Refused(
            f"{path} would be replaced, and is not one image",
            details=[error.message],
            hint="give another name, or remove it first",
        ) from error


def plan(path: Path, ref: str, request: ComposeImage, output: Output, *, commit: str | None = None) -> Job:
    """Return what to make of a commit.

    path: of its repository.
    commit: the one that the ref is going to name; None is the present one.

    Raises UsageError for a commit that is not there, Refused for one that no image can be made of, or none
    that machines would take, and ExternalFailure for one that is damaged: machines would get what nobody has
    signed.
    """
    if not commits.exists(path):
        raise UsageError(f"there is no OSTree repository in {path}")
    repo = Repo.open(path)
    commit = commit or repo.resolve(ref)
    if not repo.has_commit(commit):
        raise Refused(f"{path} has the commit {commit[:12]} without its tree", hint="pull it as a whole")
    if broken := damage.broken(repo, commit, {}):
        raise ExternalFailure(
            f"the commit {commit[:12]} is damaged: objects are missing, or not what their names say",
            details=broken,
            hint=f"'ostree fsck --repo={path} --delete' removes them; then pull or compose it again",
        )
    previous = output.previous
    tree = reading.read(repo, commit)
    var, bill = tree.var, _bill(tree, commit, ref)
    added = {**var, spdx.PATH: FileState("file", 0o644, content=bill)}
    apart = image_layers.sources_apart(previous.contents if previous else ())
    sizes = {**tree.sizes, **dict.fromkeys(var, 0)}
    layers = image_layers.cut(sizes, tree.source_of, request.max_layers, apart)
    last = Layer(image_layers.SBOM, (), (spdx.PATH,), len(bill))
    facts = _facts(tree, commit, request)
    planned = tuple(_planned(tree, layer, added, previous) for layer in (*layers, last))
    _refuse_unfit(commit, facts, planned)
    return Job(
        tree=tree,
        ref=ref,
        commit=commit,
        facts=facts,
        layers=planned,
        added=added,
        output=output,
        compression=request.compression,
    )


def _planned(tree: Tree, layer: Layer, added: Mapping[str, FileState], previous: Previous | None) -> Planned:
    digest = hashlib.sha256(_WAY)
    for path in image_layers.with_parents(layer.paths):
        checksum = _checksum(added[path]) if path in added else tree.entries[path].checksum
        digest.update(f"\n{path}\0{checksum}".encode())
    content = f"sha256:{digest.hexdigest()}"
    before = previous.contents.get(layer.name) if previous else None
    fate = Fate.NEW if before is None else Fate.UNCHANGED if before == content else Fate.CHANGED
    return Planned(layer, content, fate, tuple(members.members(tree, added, layer)))


def _refuse_unfit(commit: str, facts: oci.Facts, layers: Sequence[Planned]) -> None:
    """Raise Refused for an image that no machine would take."""
    try:
        oci_image.read_config(oci.config(facts, ()), layers=0)
    except ValueError as error:
        raise Refused(
            f"no machine would take an image of {commit[:12]}: {error}",
            hint="correct the label, or the commit's metadata of which it is",
        ) from error
    if found := members.unfit(planned.members for planned in layers):
        more = len(found) - _MOST_NAMED
        raise Refused(
            f"the tree of {commit[:12]} has what no machine takes from an image",
            details=[*found[:_MOST_NAMED], *([f"and {more} more"] if more > 0 else [])],
            hint="leave it out of the tree; docs/container-images.md has the rules: 'What a layer may hold'",
        )


def _checksum(state: FileState) -> str:
    return oci.digest_of(oci.to_bytes({"state": filestate.pack(state)}))


def _facts(tree: Tree, commit: str, request: ComposeImage) -> oci.Facts:
    repo = tree.repo
    metadata, created = repo.metadata(commit), repo.timestamp(commit)
    given = {**_copied(metadata, request), **request.labels}
    return oci.Facts(
        architecture=spdx.architecture(tree.records),
        created=created,
        labels=oci.labels(tree.kernel, repo.version(commit), created, metadata, given),
        annotations=oci.commit_annotations(
            commit, contents.commit_object(repo, commit), contents.detached_metadata(repo, commit)
        ),
    )


def _copied(metadata: Mapping[str, Any], request: ComposeImage) -> dict[str, str]:
    """Return the labels that the commit's metadata give."""
    wanted = (*request.copy_metadata, *(key for key in request.copy_optional if key in metadata))
    for key in wanted:
        if not isinstance(metadata.get(key), str):
            what = "no string, and labels are strings" if key in metadata else "not there"
            raise UsageError(f"the commit's metadata {key} is {what}")
    return {key: metadata[key] for key in wanted}


def _bill(tree: Tree, commit: str, ref: str) -> bytes:
    subject = spdx.Subject(
        name=ref,
        version=tree.repo.version(commit) or "",
        commit=commit,
        created=tree.repo.timestamp(commit),
        os_release=tree.os_release,
        program=f"apt-ostree-{__version__}",
    )
    return oci.to_bytes(spdx.document(subject, tree.records))
