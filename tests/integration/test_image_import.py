"""Images that skopeo itself fetches, from layouts, archives and a registry, and what verifies them."""

from __future__ import annotations

import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fixtures import image_tree
from tests.fixtures.image_tree import Image
from tests.unit import registry as registries
from tests.unit.conftest import system, template  # noqa: F401  # fixtures
from tests.unit.registry import ACCEPTS, REJECTS, Registry
from tests.unit.repos import System
from tests.unit.vendor import rebase_to, signer

from apt_ostree.core import packages
from apt_ostree.core.compose.image import planning
from apt_ostree.errors import ExternalFailure, Refused
from apt_ostree.model import oci
from apt_ostree.model.image_reference import ImageReference
from apt_ostree.model.oci import Compression
from apt_ostree.model.requests.options import DeployOptions
from apt_ostree.model.requests.packages import Upgrade
from apt_ostree.system import ocilayout

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

SOURCE = Path(__file__).resolve().parents[2] / "src"
NEW = {"usr/lib/libc.so.6": "newer" * 1000}


def skopeo(words: list[str]) -> tuple[int, str]:
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    return done.returncode, done.stderr if done.returncode else done.stdout


@pytest.fixture
def registry(system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:  # noqa: F811
    """A build host whose images skopeo has to fetch."""
    monkeypatch.setattr(planning.os, "geteuid", lambda: 0)
    made = Registry(tmp_path / "registry", system)
    system.programs.results["skopeo"] = skopeo
    made.commit()
    return made


def first(system: System):  # noqa: F811
    with system.open(writable=False) as machine:
        return machine.deployments().all[0]


def kept(system: System) -> set[str]:  # noqa: F811
    return {path.name for path in (system.state / "cache/images/blobs/sha256").iterdir()}


def fsck(system: System) -> None:  # noqa: F811
    subprocess.run(["ostree", "fsck", f"--repo={system.place}/ostree/repo"], check=True, capture_output=True)


@pytest.mark.parametrize("compression", list(Compression))
def test_the_very_commit_comes_from_a_layout(system: System, registry: Registry, compression: Compression):  # noqa: F811
    image = registry.image(compression=compression)
    rebase_to(system, f"ostree-unverified-image:oci:{image.path}")
    assert first(system).checksum == registry.source.resolve(image_tree.REF)
    assert first(system).origin.image_digest == image.digest
    fsck(system)


def test_and_from_an_archive(system: System, registry: Registry):  # noqa: F811
    image = registry.image()
    archive = image.path.with_suffix(".tar")
    assert (
        skopeo(["skopeo", "copy", "--insecure-policy", f"oci:{image.path}", f"oci-archive:{archive}"])[0] == 0
    )
    rebase_to(system, f"ostree-unverified-image:oci-archive:{archive}")
    assert first(system).checksum == registry.source.resolve(image_tree.REF)


def test_an_upgrade_keeps_no_blob_of_a_layer(system: System, registry: Registry):  # noqa: F811
    for number in range(3):
        newer = registry.commit({**NEW, "usr/bin/ldd": f"ldd {number}"})
        image = registry.image()
        if number:
            assert system.run(packages.upgrade, Upgrade(packages=False)).next_boot
        else:
            rebase_to(system, f"ostree-unverified-image:oci:{image.path}")
        assert first(system).checksum == newer
        assert kept(system) == {digest[7:] for digest in (image.manifest["config"]["digest"], image.digest)}
    fsck(system)


def test_an_image_of_several_is_chosen(system: System, registry: Registry):  # noqa: F811
    image = registry.image()
    path = image.path
    (row,) = json.loads((path / "index.json").read_text())["manifests"]
    other = {**row, "digest": f"sha256:{'0' * 64}", "platform": {"architecture": "s390x", "os": "linux"}}
    inner = json.dumps({"schemaVersion": 2, "mediaType": registries.oci.INDEX, "manifests": [other, row]})
    described = registry._add(path, inner.encode())
    index = {"schemaVersion": 2, "manifests": [{"mediaType": registries.oci.INDEX, **described}]}
    (path / "index.json").write_text(json.dumps(index))
    rebase_to(system, f"ostree-unverified-image:oci:{path}")
    assert first(system).origin.image_digest == described["digest"]
    assert first(system).checksum == registry.source.resolve(image_tree.REF)


def test_the_policy_is_enforced(system: System, registry: Registry):  # noqa: F811
    image = registry.image()
    registry.set_policy(REJECTS)
    for check in ("ostree-unverified-image", "ostree-image-signed"):
        with pytest.raises(Refused, match="does not accept"):
            rebase_to(system, f"{check}:oci:{image.path}")
    registry.set_policy(ACCEPTS)
    with pytest.raises(Refused, match="accepts anything"):
        rebase_to(system, f"ostree-image-signed:oci:{image.path}")


def test_what_is_not_there(system: System, registry: Registry, tmp_path: Path):  # noqa: F811
    with pytest.raises(ExternalFailure, match="cannot look at"):
        rebase_to(system, f"ostree-unverified-image:oci:{tmp_path}/none")


# --- a registry


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The host of a registry, which serves without TLS: skopeo accepts that from the local host alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = tmp_path / "config.yml"
    config.write_text(
        f"version: 0.1\nhttp: {{addr: 127.0.0.1:{port}}}\n"
        f"storage: {{filesystem: {{rootdirectory: {tmp_path}/storage}}}}\n"
    )
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(["docker-registry", "serve", config], stdout=log, stderr=log)
    try:
        end = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
        log.close()


@pytest.fixture
def pushed(server: str, registry: Registry, system: System, tmp_path: Path) -> str:  # noqa: F811
    """An image in the registry, signed with GnuPG; signatures are beside it, in a directory."""
    lookaside = tmp_path / "signatures"
    (tmp_path / "registries.d").mkdir()
    place = f"docker: {{\"{server}\": {{lookaside: 'file://{lookaside}', lookaside-staging: 'file://{lookaside}'}}}}\n"
    (tmp_path / "registries.d/test.yaml").write_text(place)
    (tmp_path / "registries.conf").write_text(f'[[registry]]\nlocation = "{server}"\ninsecure = true\n')

    def here(words: list[str]) -> tuple[int, str]:
        options = [
            "--registries.d",
            f"{tmp_path}/registries.d",
            "--registries-conf",
            f"{tmp_path}/registries.conf",
        ]
        return skopeo([words[0], *options, *words[1:]])

    system.programs.results["skopeo"] = here
    return f"{server}/os:13"


def push(system: System, source: Path, name: str, *options: str, home: Path | None = None) -> None:  # noqa: F811
    words = ["skopeo", "copy", "--insecure-policy", *options, f"oci:{source}", f"docker://{name}"]
    before = os.environ.get("GNUPGHOME")
    try:
        if home:
            os.environ["GNUPGHOME"] = str(home)
        code, text = system.programs.results["skopeo"](words)
    finally:
        os.environ.pop("GNUPGHOME", None)
        if before:
            os.environ["GNUPGHOME"] = before
    assert code == 0, text


def asked_for(log: Path) -> set[str]:
    """Return the digests of the blobs that a registry was asked for."""
    return set(re.findall(r'"GET /v2/os/blobs/(sha256:[0-9a-f]{64}) ', log.read_text()))


def test_from_a_registry_by_name_and_by_digest(
    system: System,  # noqa: F811
    registry: Registry,
    pushed: str,
    tmp_path: Path,
):
    push(system, registry.image().path, pushed)
    rebase_to(system, f"ostree-unverified-registry:{pushed}")
    assert first(system).checksum == registry.source.resolve(image_tree.REF)
    before = asked_for(tmp_path / "log")
    newer = registry.commit(NEW)
    second = registry.image()
    push(system, second.path, pushed)
    assert system.run(packages.upgrade, Upgrade(packages=False)).next_boot
    assert first(system).checksum == newer
    rows = [*second.manifest["layers"], second.manifest["config"]]
    later = asked_for(tmp_path / "log") - before
    assert len(later) == 3 and later == {row["digest"] for row in rows} - before
    with pytest.raises(ExternalFailure):
        rebase_to(system, f"ostree-unverified-registry:{pushed.rpartition(':')[0]}@sha256:{'0' * 64}")


def test_a_signature_of_gnupg_is_required_and_found(
    system: System,  # noqa: F811
    registry: Registry,
    pushed: str,
    tmp_path: Path,
):
    image = registry.image()
    with signer() as key:
        public = tmp_path / "key.gpg"
        public.write_bytes(key.gpg("--export"))
        rule = [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(public)}]
        host = pushed.partition("/")[0]
        registry.set_policy({"default": [{"type": "reject"}], "transports": {"docker": {host: rule}}})
        push(system, image.path, pushed)
        with pytest.raises(Refused, match="does not accept"):
            rebase_to(system, f"ostree-image-signed:docker://{pushed}")
        push(system, image.path, pushed, "--sign-by=signer@example.com", home=key.home)
        rebase_to(system, f"ostree-image-signed:docker://{pushed}")
    assert first(system).checksum == registry.source.resolve(image_tree.REF)
    assert not [text for text in system.told("warning") if "was not verified" in text]


def test_what_was_downloaded_needs_no_registry(system: System, registry: Registry, pushed: str):  # noqa: F811
    push(system, registry.image().path, pushed)
    rebase_to(system, f"ostree-unverified-registry:{pushed}")
    newer = registry.commit(NEW)
    push(system, registry.image().path, pushed)
    options = DeployOptions(download_only=True)
    assert not system.run(packages.upgrade, Upgrade(packages=False, deploy=options)).next_boot

    def unreachable(words: list[str]) -> tuple[int, str]:
        raise AssertionError(words)

    system.programs.results["skopeo"] = unreachable
    options = DeployOptions(cache_only=True)
    assert system.run(packages.upgrade, Upgrade(packages=False, deploy=options)).next_boot
    assert first(system).checksum == newer
    fsck(system)


class _Stalling(http.server.BaseHTTPRequestHandler):
    """A registry with one image, which sends half of a layer and then nothing. image: is set by the test."""

    protocol_version = "HTTP/1.1"
    image: Image
    ended = threading.Event()

    def do_GET(self) -> None:
        self._send(head=False)

    def do_HEAD(self) -> None:
        self._send(head=True)

    def _send(self, *, head: bool) -> None:
        name = self.path.rpartition("/")[2]
        if "/manifests/" in self.path:
            kind, body = oci.MANIFEST, self.image.blob(self.image.digest)
        else:
            kind, body = (
                "application/octet-stream",
                self.image.blob(name) if "/blobs/" in self.path else b"{}",
            )
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if head:
            return
        if name == self.image.manifest["layers"][0]["digest"]:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.ended.wait(60)
            self.close_connection = True
        else:
            self.wfile.write(body)

    def log_message(self, *_words: object) -> None:
        pass


def test_a_registry_that_stalls(tmp_path: Path, system: System, registry: Registry):  # noqa: F811
    _Stalling.image = image = registry.image()
    _Stalling.ended.clear()
    (tmp_path / "layout").mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Stalling) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_port}"
        config = tmp_path / "registries.conf"
        config.write_text(f'[[registry]]\nlocation = "{host}"\ninsecure = true\n')
        program = tmp_path / "skopeo"
        program.write_text(f'#!/bin/sh\nexec /usr/bin/skopeo --registries-conf {config} "$@"\n')
        program.chmod(0o755)
        reference = ImageReference.parse(f"ostree-unverified-registry:{host}/os:13")
        layout = ocilayout.KeptLayout(tmp_path / "layout")
        script = "import sys; from apt_ostree.system import ocilayout, process, skopeo\n"
        script += "from pathlib import Path\nfrom apt_ostree.model.image_reference import ImageReference\n"
        script += (
            "process.BASE_ENVIRONMENT = {**process.BASE_ENVIRONMENT, 'PATH': sys.argv[3] + ':/usr/bin'}\n"
        )
        script += "skopeo.POLICY = Path(sys.argv[4])\n"
        script += "layout = ocilayout.KeptLayout(Path(sys.argv[2]))\n"
        script += "skopeo.fetch(ImageReference.parse(sys.argv[1]), layout, patience=3)\n"
        policy = system.etc / "containers/policy.json"
        words = [sys.executable, "-c", script, str(reference), layout.path, tmp_path, policy]
        env = {**os.environ, "PYTHONPATH": str(SOURCE)}
        done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=120, env=env)
        _Stalling.ended.set()
        server.shutdown()
    assert f"{host} has sent nothing for 3 seconds" in done.stderr
    layout.drop_leftovers()
    assert not layout.has(image.manifest["layers"][0]["digest"])
    assert layout.has(image.manifest["layers"][1]["digest"])
