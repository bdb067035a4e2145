"""Machines that follow container images: live, by reboot, killed at each step."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.system.livehost import WRITABLE_SYSROOT, Host, program, same

MINIMAL = "debian/13/amd64/minimal"
OLD, NEW = f"{MINIMAL}^", MINIMAL
IMAGE = "/var/tmp/image"
FOLLOWED = f"ostree-unverified-image:oci:{IMAGE}"
KEYS = ("container-image-reference", "container-image-reference-digest")
ANY, REJECT = ([{"type": kind}] for kind in ("insecureAcceptAnything", "reject"))
#: Makes an image whose last layer has further files, as `FROM` does: PATH=TEXT, or PATH=@BYTES of zeros.
DERIVE = """
import hashlib, io, json, pathlib, sys, tarfile
top = pathlib.Path(sys.argv[1])
blobs = top / "blobs/sha256"
def add(data):
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}
index = json.loads((top / "index.json").read_text())
manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_text())
config = json.loads((blobs / manifest["config"]["digest"][7:]).read_text())
out = io.BytesIO()
with tarfile.open(fileobj=out, mode="w") as tar:
    for name, text in (pair.split("=", 1) for pair in sys.argv[2:]):
        content = bytes(int(text[1:])) if text.startswith("@") else text.encode()
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
layer = add(out.getvalue())
config["rootfs"]["diff_ids"].append(layer["digest"])
config["created"] = "2035-01-01T00:00:00Z"
manifest["layers"].append({"mediaType": "application/vnd.oci.image.layer.v1.tar", **layer})
manifest["config"] |= add(json.dumps(config).encode())
index["manifests"] = [{"mediaType": manifest["mediaType"], **add(json.dumps(manifest).encode())}]
(top / "index.json").write_text(json.dumps(index))
"""


def set_policy(host: Host, rules: list[dict[str, str]]) -> None:
    host.run("mkdir", "-p", "/etc/containers")
    host.run("tee", "/etc/containers/policy.json", input=json.dumps({"default": rules}))


def make(host: Host, ref: str) -> str:
    """Make the image of a commit; return its digest."""
    words = ("--repo=/var/tmp/base", f"--ref={ref}", "-o", IMAGE)
    return host.json("compose", "image", *words, timeout=600)["manifest"]


def commit_of(host: Host, ref: str) -> str:
    return host.run("ostree", "rev-parse", "--repo=/var/tmp/base", ref).stdout.strip()


def layers(host: Host) -> list[str]:
    return host.run("ostree", "refs", "--list", "apt-ostree/image/layer").stdout.split()


def followed(entry: dict[str, Any]) -> tuple[str | None, ...]:
    return tuple(entry.get(key) for key in KEYS)


@pytest.fixture
def host(own: Host) -> Host:
    """A machine with an image of its own commit; a newer commit is there, too."""
    own.run(*WRITABLE_SYSROOT, *program("newer_base.sh", "--no-gpg-verify"))
    set_policy(own, ANY)
    return own


def test_to_an_image_live_by_reboot_and_back(host: Host):
    first, newer = (commit_of(host, ref) for ref in (OLD, NEW))
    old = make(host, OLD)
    host.ao("install", "-A", "-y", "fx-service")
    host.ao("rebase", FOLLOWED)
    entry = host.deployments()[0]
    assert (entry["base-checksum"], followed(entry), entry["packages"]) == (
        first,
        (FOLLOWED, old),
        ["fx-service"],
    )
    assert "was not verified" in host.sh("journalctl -t apt-ostree APT_OSTREE_KIND=security -o cat")
    host.reboot()
    shown = host.ao("status").stdout
    assert f"● {FOLLOWED}" in shown and f"Digest: {old}" in shown
    host.ao("upgrade", "--base-only", "--unchanged-exit-77", code=77)

    digest = make(host, NEW)
    before = host.look()
    found = host.json("upgrade", "--base-only", "--check")
    assert found["image"] == {"reference": FOLLOWED, "digest": digest}
    assert f"Digest: {digest}" in host.ao("status").stdout
    same(before.system(), host.look().system())
    known = set(layers(host))
    result = host.json("upgrade", "-A", "-y", "--base-only", timeout=600)
    assert result["live"] and host.sh("cat /usr/share/new-base") == "new\n"
    assert host.deployments()[0]["base-checksum"] == newer
    assert 0 < len(set(layers(host)) - known) < len(known) / 4
    assert int(host.sh("du -s --block-size=1 /var/cache/apt-ostree/images | cut -f1")) < 1_000_000
    host.reboot()
    assert followed(host.deployments()[0]) == (FOLLOWED, digest) and host.is_active("fx-service.service")

    make(host, OLD)
    assert "--allow-downgrade" in host.failure("upgrade", "--base-only", code=3)
    host.ao("upgrade", "--base-only", "--allow-downgrade", timeout=600)
    assert host.deployments()[0]["base-checksum"] == first
    host.ao("rebase", f"base:{MINIMAL}")
    assert followed(host.deployments()[0]) == (None, None)
    host.reboot()
    host.ao("cleanup", "-b", "-p", "-r", "-m")
    assert layers(host) == [] and not host.exists("/var/cache/apt-ostree/images")
    host.check_clean()


@pytest.mark.extended
def test_an_image_that_was_built_on_another(host: Host):
    make(host, NEW)
    host.run(
        "python3",
        "-c",
        DERIVE,
        IMAGE,
        "usr/share/mine=mine",
        "etc/mine=mine",
        "var/mine=x",
        "usr/share/.wh.new-base=",
    )
    host.ao("rebase", "-A", "-y", FOLLOWED, timeout=600)
    assert host.sh("cat /usr/share/mine /etc/mine") == "minemine"
    assert not host.exists("/usr/share/new-base") and not host.exists("/var/mine")
    host.ao("install", "-A", "-y", "fx-hello")
    host.reboot()
    assert host.sh("fx-hello; cat /usr/share/mine") == "hello 1.0\nmine"
    commit = host.deployments()[0]["base-checksum"]
    metadata = host.run("ostree", "show", "--print-metadata-key=ostree.manifest-digest", commit).stdout
    assert followed(host.deployments()[0])[1] in metadata


@pytest.mark.extended
def test_what_is_refused_leaves_nothing(host: Host):
    make(host, OLD)
    before = host.look()
    set_policy(host, REJECT)
    host.failure("rebase", FOLLOWED, code=3)
    set_policy(host, ANY)
    assert "accepts anything" in host.failure("rebase", f"ostree-image-signed:oci:{IMAGE}", code=3)
    assert "ostree-image-signed:" in host.failure("rebase", f"oci:{IMAGE}", code=2)
    host.run("python3", "-c", DERIVE, IMAGE, "usr/../etc/shadow=x")
    assert "usr/../etc/shadow" in host.failure("rebase", FOLLOWED, code=3)
    after = host.look()
    assert (before.refs, before.deployments) == (after.refs, after.deployments)
    assert "usr/../etc/shadow" in host.sh("journalctl -t apt-ostree APT_OSTREE_KIND=security -o json")


@pytest.mark.extended
@pytest.mark.parametrize("spare", [-20, 40], ids=["fetch", "import"])
def test_a_full_disk_changes_nothing_and_the_next_try_goes_on(host: Host, spare: int):
    """Of an image with a file of 80 MB in its last layer. spare: MB beside the size of the image."""
    make(host, NEW)
    host.run("python3", "-c", DERIVE, IMAGE, f"usr/share/large=@{80_000_000}")
    before, size = host.look(), int(host.sh(f"du -sb {IMAGE} | cut -f1"))
    free = size + spare * 1_000_000
    host.sh(f"fallocate -l $(($(df -B1 --output=avail /var | tail -1) - {free})) /var/tmp/fill")
    said = host.failure("rebase", FOLLOWED, code=3 if spare < 0 else 1)
    wanted = "does not fit" if spare < 0 else "min-free-space"  # which libostree keeps free
    assert wanted in said
    after = host.look()
    assert (before.refs, before.deployments) == (after.refs, after.deployments)
    host.sh("rm /var/tmp/fill")
    host.ao("rebase", "-A", "-y", FOLLOWED, timeout=600)
    assert host.sh("stat --format=%s /usr/share/large") == "80000000\n"
    host.check_clean()


@pytest.mark.variants
@pytest.mark.parametrize(
    "point",
    [
        "import.before-commit",
        "import.fetched",
        "import.layer-written:3",
        "repo.before-commit",
        "import.imported",
        "import.awaited",
    ],
)
def test_what_is_killed_changes_nothing_and_goes_on(host: Host, point: str):
    make(host, OLD)
    before = host.deployments()
    name, _, nth = point.partition(":")
    host.ao("rebase", FOLLOWED, failpoint=f"{name}=kill:{nth or 1}", code=1)
    assert host.deployments() == before
    host.ao("rebase", FOLLOWED, timeout=600)
    host.reboot()
    assert followed(host.deployments()[0])[0] == FOLLOWED
    host.check_clean()
