"""Images for machines to follow, and a skopeo that has them: it stands where the program begins."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apt_ostree.core.compose.image import export
from apt_ostree.core.transaction import Transaction
from apt_ostree.model import oci
from apt_ostree.model.requests.images import ComposeImage
from apt_ostree.system.ostree.gi_ostree import Gio, OSTree
from apt_ostree.system.ostree.repo import Repo
from tests.fixtures import image_tree
from tests.fixtures.image_tree import Image
from tests.unit.repos import System

ACCEPTS = {"default": [{"type": "insecureAcceptAnything"}]}
SIGNED = {"default": [{"type": "sigstoreSigned", "keyPath": "/etc/key.pub"}]}
REJECTS = {"default": [{"type": "reject"}]}
_REF_NAME = "org.opencontainers.image.ref.name"


class Registry:
    """A build host with its images, which a system can fetch.

    names: HOST/REPOSITORY[:TAG | @DIGEST] -> the layout with the image.
    fetched: the digests of the blobs that skopeo has copied, of each copy.
    """

    def __init__(self, place: Path, system: System) -> None:
        self.place, self.system = place, system
        self.repo = place / "build"
        self.names: dict[str, Path] = {}
        self.fetched: list[set[str]] = []
        self.indexes: dict[Path, bytes] = {}
        self.repo.mkdir(parents=True)
        mode = OSTree.RepoMode.BARE if image_tree.IS_ROOT else OSTree.RepoMode.BARE_USER
        OSTree.Repo.new(Gio.File.new_for_path(str(self.repo))).create(mode, None)
        (self.repo / "config").write_text((self.repo / "config").read_text() + "fsync=false\n")
        system.programs.results["skopeo"] = self.skopeo
        self.set_policy(ACCEPTS)

    def set_policy(self, policy: Mapping[str, Any]) -> None:
        path = self.system.etc / "containers/policy.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(policy))

    # --- images

    def commit(self, changed: Mapping[str, str | None] | None = None, **metadata: str) -> str:
        """Commit the small tree; return the commit."""
        return image_tree.write(self.repo, self.place / "tree", changed, **metadata)

    @property
    def source(self) -> Repo:
        return Repo.open(self.repo)

    def image(self, name: str = "image", ref: str = image_tree.REF, **options: Any) -> Image:
        """Make an image of a commit."""
        request = ComposeImage(
            output=str(self.place / name), repo=str(self.repo), ref=ref, max_layers=12, **options
        )
        export.compose_image(Transaction(lambda _event: None, request.title), request)
        return Image(self.place / name)

    def derive(self, base: Image, name: str, layer: bytes, **changes: Any) -> Image:
        """Make an image with a further layer. changes: of the configuration; None takes a key away."""
        path = self.place / name
        shutil.copytree(base.path, path)
        manifest, config = base.manifest, base.config
        config["rootfs"]["diff_ids"].append(oci.digest_of(layer))
        config = {key: value for key, value in {**config, **changes}.items() if value is not None}
        row = {"mediaType": "application/vnd.oci.image.layer.v1.tar", **self._add(path, layer)}
        manifest["layers"].append(row)
        manifest["config"] |= self._add(path, json.dumps(config).encode())
        return self.finish(path, manifest)

    def scratch(self, name: str, layer: bytes) -> Image:
        """Make an image of one layer."""
        path = self.place / name
        (path / "blobs/sha256").mkdir(parents=True)
        config = {
            "os": "linux",
            "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
            "created": "2026-01-02T03:04:05Z",
            "rootfs": {"type": "layers", "diff_ids": [oci.digest_of(layer)]},
        }
        row = {"mediaType": "application/vnd.oci.image.layer.v1.tar", **self._add(path, layer)}
        described = {"mediaType": oci.CONFIG, **self._add(path, json.dumps(config).encode())}
        return self.finish(path, {"schemaVersion": 2, "config": described, "layers": [row]})

    def wrap(self, image: Image) -> str:
        """Have a name stand for an index that has this image; return the digest of the index."""
        row = {"mediaType": oci.MANIFEST, "digest": image.digest, "size": 1}
        data = json.dumps({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [row]}).encode()
        self.indexes[image.path] = data
        return oci.digest_of(data)

    def finish(self, path: Path, manifest: Mapping[str, Any]) -> Image:
        """Have the layout at a path be that of a manifest."""
        described = self._add(path, json.dumps(manifest).encode())
        index = {"schemaVersion": 2, "manifests": [{"mediaType": oci.MANIFEST, **described}]}
        (path / "index.json").write_text(json.dumps(index))
        return Image(path)

    def _add(self, path: Path, data: bytes) -> dict[str, Any]:
        digest = oci.digest_of(data)
        (path / "blobs/sha256" / digest.partition(":")[2]).write_bytes(data)
        return {"digest": digest, "size": len(data)}

    # --- skopeo

    def skopeo(self, words: list[str]) -> tuple[int, str]:
        operands = [word for word in words[1:] if not word.startswith("-")]
        verb, source = operands[:2]
        path = self._path(source)
        if path is None or not path.is_dir():
            return 1, f"{source}: no such image"
        image = Image(path)
        if verb == "inspect":
            return 0, self.indexes.get(path, image.blob(image.digest)).decode()
        policy = next(word for word in words if word.startswith("--policy=")).partition("=")[2]
        if "--remove-signatures" not in words:
            return 1, "Pushing signatures for OCI images is not supported"
        if "--preserve-digests" not in words:
            return 1, "Layers that are not compressed would be"
        if json.loads(Path(policy).read_text())["default"][0]["type"] != "insecureAcceptAnything":
            return 1, "Source image rejected: A signature was required, but no signature exists"
        self._copy(image, *operands[2].removeprefix("oci:").rsplit(":", 1))
        return 0, ""

    def _path(self, source: str) -> Path | None:
        transport, _, name = source.partition(":")
        return self.names.get(name.removeprefix("//")) if transport == "docker" else Path(name)

    def _copy(self, image: Image, target: str, name: str) -> None:
        blobs = Path(target) / "blobs/sha256"
        blobs.mkdir(parents=True, exist_ok=True)
        manifest = image.manifest
        wanted = {row["digest"] for row in (*manifest["layers"], manifest["config"])} | {image.digest}
        new = {digest for digest in wanted if not (blobs / digest[7:]).exists()}
        for digest in new:
            shutil.copy(image.path / "blobs/sha256" / digest[7:], blobs)
        self.fetched.append(new)
        row = {"mediaType": oci.MANIFEST, "digest": image.digest, "annotations": {_REF_NAME: name}}
        size = (blobs / image.digest[7:]).stat().st_size
        (Path(target) / "oci-layout").write_bytes(oci.LAYOUT)
        (Path(target) / "index.json").write_text(json.dumps({"manifests": [{**row, "size": size}]}))


def layer(members: Sequence[tarfile.TarInfo | tuple[str, str]]) -> bytes:
    """Return the archive of a layer: paths with the text of their file, or members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            if isinstance(member, tuple):
                path, content = member
                made = tarfile.TarInfo(path)
                made.size = len(content.encode())
                tar.addfile(made, io.BytesIO(content.encode()))
            else:
                tar.addfile(member)
    return out.getvalue()


def short(data: bytes) -> str:
    """Return how a message names a blob."""
    return hashlib.sha256(data).hexdigest()[:12]
