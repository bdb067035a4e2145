"""A system that follows a branch of a real remote, and the keys that sign its commits."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from apt_ostree.core import rebase
from apt_ostree.model.origin import Origin
from apt_ostree.model.requests.deployments import Deploy, Rebase
from apt_ostree.model.requests.options import DeployOptions
from apt_ostree.model.result import Result
from apt_ostree.system.ostree import remotes, signatures
from apt_ostree.system.ostree.gi_ostree import Gio, GLib
from apt_ostree.system.ostree.repo import Repo, text
from tests.unit import repos
from tests.unit.repos import System

BRANCH = "debian/server"
FOLLOWED = f"vendor:{BRANCH}"


class Vendor:
    """A remote with four commits of one branch, of which the system has the second, and another branch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.repo = repos.make_repo(path)
        self.commits: list[str] = []
        for number in range(4):
            self.commits.append(self.add(BRANCH, number, parent=self.commits[-1] if self.commits else None))
        self.other = self.add("debian/desktop", 9, parent=None)

    def add(self, ref: str, number: int, *, parent: str | None) -> str:
        """Add a commit of a version to a branch; return it."""
        tree = {**repos.ONE, "usr/share/number": f"{number}\n"}
        written = repos.write_commit(self.repo, tree, ref="scratch")
        _ok, root, _commit = self.repo.handle.read_commit(written)
        with self.repo.transaction():
            commit = self.repo.write_commit(
                root, parent=parent, subject=ref, metadata={"version": text(f"13.{number}")},
                timestamp=1_700_000_000 + number,
            )  # fmt: skip
            self.repo.handle.transaction_set_ref(None, ref, commit)
        return commit


def followed_by(system: System, path: Path) -> Vendor:
    """Make a vendor whose branch the booted deployment follows; it has the second commit."""
    made = Vendor(path)
    add_remote(system.repo, "vendor", made.path)
    remotes.pull_commit(system.repo, "vendor", made.commits[1], print)
    with system.open() as machine:
        machine.stage(made.commits[1], Origin(FOLLOWED), machine.deployments().all[0])
        machine.repo.handle.set_ref_immediate("vendor", BRANCH, made.commits[1], None)
    system.booted = made.commits[1]
    return made


def add_remote(repo: Repo, name: str, path: Path, *, verify: bool = False) -> None:
    """Configure a remote; verify: its commits must be signed."""
    options = GLib.Variant("a{sv}", {"gpg-verify": GLib.Variant("b", verify)})
    repo.handle.remote_add(name, f"file://{path}", options, None)


# --- requests


def deploy(system: System, revision: str, *, cache_only: bool = False, **options: Any) -> Result:
    """Deploy a revision."""
    request = Deploy(revision=revision, deploy=DeployOptions(cache_only=cache_only), **options)
    return system.run(rebase.deploy_revision, request)


def rebase_to(system: System, refspec: str, revision: str | None = None, **options: Any) -> Result:
    """Rebase to a branch."""
    return system.run(rebase.rebase, Rebase(refspec=refspec, revision=revision, **options))


def pending(system: System) -> tuple[str, str]:
    """Return commit and branch of the next boot's deployment."""
    with system.open(writable=False) as machine:
        first = machine.deployments().all[0]
    return first.checksum, first.origin.refspec


# --- keys


class Signer:
    """A GnuPG keyring with one secret key.

    home: the directory of the keyring.
    """

    def __init__(self, home: Path, *, expires: str = "never", now: str = "", signature: str = "none") -> None:
        """Make the key. expires: of the key; now: GnuPG's time; signature: how long one is good."""
        self.home = home
        home.mkdir(mode=0o700)
        faked = f"faked-system-time {now}!\n" if now else ""
        (home / "gpg.conf").write_text(f"{faked}default-sig-expire {signature}\n")
        self.gpg("--passphrase", "", "--quick-generate-key", "signer@example.com", "ed25519", "sign", expires)

    def gpg(self, *words: str, input: bytes = b"") -> bytes:
        """Run gpg; return its output."""
        command = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", *words]
        return subprocess.run(command, input=input, stdout=subprocess.PIPE, check=True).stdout

    def sign(self, repo: Repo, *commits: str) -> None:
        """Sign commits."""
        for commit in commits:
            signatures.sign(repo, commit, "signer@example.com", self.home)

    def revoke(self) -> None:
        """Revoke the key, with the certificate that GnuPG made with it."""
        (certificate,) = (self.home / "openpgp-revocs.d").iterdir()
        self.gpg("--import", input=certificate.read_bytes().replace(b":-----BEGIN", b"-----BEGIN"))

    def trusted_by(self, repo: Repo, remote: str) -> None:
        """Add the public key to a remote's keyring."""
        stream = Gio.MemoryInputStream.new_from_bytes(GLib.Bytes.new(self.gpg("--export")))
        repo.handle.remote_gpg_import(remote, stream, None, None)


@contextmanager
def signer(*, expires: str = "never", now: str = "", signature: str = "none") -> Iterator[Signer]:
    """Make a key; its agent is ended at last."""
    # The paths of sockets are short.
    with TemporaryDirectory(dir="/tmp") as place:
        try:
            yield Signer(Path(place) / "home", expires=expires, now=now, signature=signature)
        finally:
            subprocess.run(["gpgconf", "--homedir", f"{place}/home", "--kill", "all"], check=True)
