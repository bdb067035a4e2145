"""Upgrading to another image in a registry, against the same commits in a repository of ostree.

The host makes the images of both bases of bench_lib.pull, and serves them with Debian's docker-registry.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench_lib import product
from bench_lib.measure import BenchError, run, say, timed
from bench_lib.pull import REF, Served

_NAME = "os:1"
_FETCHED, _KEPT = Path("/var/cache/apt-ostree/images"), Path("/var/lib/bench/images")
_CONFIG = """
version: 0.1
http: {{addr: '{address}'}}
storage: {{filesystem: {{rootdirectory: {directory}}}}}
"""
_INSECURE = '[[registry]]\nlocation = "{address}"\ninsecure = true\n'
_POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}'


class Registry:
    """A registry with the image of the old base, and that of the new one to come.

    address: HOST:PORT.
    bytes: of the new image, and of its layers that the old one does not have.
    """

    def __init__(self, address: str, images: Sequence[Path], sizes: tuple[int, int]) -> None:
        self.address = address
        self.bytes = sizes
        self._images = images

    def show(self, number: int) -> None:
        """Give the name to the old image (0) or the new one (1)."""
        target = f"docker://{self.address}/{_NAME}"
        words = ("--quiet", "--insecure-policy", "--preserve-digests", "--dest-tls-verify=false")
        run("skopeo", "copy", *words, f"oci:{self._images[number]}", target)


@contextmanager
def pushed(command: Sequence[str | Path], env: Mapping[str, str], served: Served) -> Iterator[Registry]:
    """Make the images and serve the old one. command: `compose image`."""
    with tempfile.TemporaryDirectory(prefix="apt-ostree-bench-", dir="/var/tmp") as name:
        images, sizes, previous = [], (0, 0), []
        for number, revision in enumerate((f"{REF}^", REF)):
            say(f"making the image of {revision}")
            images.append(Path(name) / str(number))
            words = (f"--repo={served.repo}", f"--ref={revision}", "-o", images[-1], *previous, "--json")
            made = json.loads(run(*command, *words, env=env))
            sizes, previous = (made["size"], made["new_size"]), [f"--previous={images[-1]}"]
        with _registry(Path(name)) as address:
            registry = Registry(address, images, sizes)
            registry.show(0)
            yield registry


@contextmanager
def _registry(directory: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = directory / "registry.yml"
    config.write_text(_CONFIG.format(address=address, directory=directory / "registry"))
    process = subprocess.Popen(
        ["docker-registry", "serve", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait(address)
        yield address
    finally:
        process.terminate()
        process.wait()


def _wait(address: str) -> None:
    host, _, port = address.partition(":")
    for _attempt in range(100):
        try:
            socket.create_connection((host, int(port)), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise BenchError("docker-registry does not answer")


# --- in the machine


def prepare_image(address: str) -> None:
    """Follow the image, which is that of the old base."""
    containers = Path("/etc/containers")
    (containers / "registries.conf.d").mkdir(parents=True, exist_ok=True)
    (containers / "registries.conf.d/bench.conf").write_text(_INSECURE.format(address=address))
    (containers / "policy.json").write_text(_POLICY)
    run("apt-ostree", "rebase", "-q", f"ostree-unverified-registry:{address}/{_NAME}")
    run("cp", "-a", _FETCHED, _KEPT)


def prepare_branch(url: str, old: str) -> None:
    """Follow the branch at the old base."""
    run("ostree", "remote", "add", "--no-gpg-verify", "bench", url)
    run("apt-ostree", "rebase", "-q", f"bench:{REF}", old)


def measure() -> float:
    """Return the seconds of an upgrade to the new base; drop it."""
    seconds = timed("apt-ostree", "upgrade", "-q", "--base-only")
    product.drop_pending()
    if _KEPT.exists():
        shutil.rmtree(_FETCHED)
        run("cp", "-a", _KEPT, _FETCHED)
    return seconds
