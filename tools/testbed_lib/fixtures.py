"""Builds the repository of fixture packages (tests/fixtures/packages.py), signed and cached by its content.

<repository>/pool/*.deb
<repository>/dists/{stable,security,updates}  signed: versions 1.0, 1.1 of a few packages, and 2.0
<repository>/dists/{unsigned,badsig,expired}  not to be trusted: no signature, a wrong one, an old one
<repository>/dists/relabelled{,.later}        signed: a suite, and what it is when it has got another Label
<repository>/testbed.gpg                      the public key
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from testbed_lib.common import CACHE, CHECKOUT, hash_of, locked, run, say

_DEFINITIONS = CHECKOUT / "tests/fixtures/packages.py"
_KEPT = 4
SUITES = ("stable", "security", "updates", "unsigned", "badsig", "expired", "relabelled", "relabelled.later")
#: All files of the packages bear this date, so that a rebuilt repository is the same.
_EPOCH = 1_700_000_000


def fixtures_key() -> str:
    """Return the key of the repository: the definitions, the programs in packages and this builder."""
    programs = [path.read_bytes() for path in sorted(_DEFINITIONS.parent.rglob("*.py"))]
    return hash_of(*programs, Path(__file__).read_bytes())


def fixture_repository() -> Path:
    """Return the repository, built if it is not there yet; it lies on the host's file system."""
    target = CACHE / "fixtures" / fixtures_key()
    with locked(CACHE / "fixtures.lock"):
        if not target.exists():
            say("building the fixture packages")
            _remove_old(target.parent)
            partial = target.with_suffix(".partial")
            _build(partial)
            partial.rename(target)
    return target


def _remove_old(directory: Path) -> None:
    """Keep the newest repositories: several checkouts may be at work with one cache."""
    there = sorted(directory.glob("*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in there[_KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


def _build(target: Path) -> None:
    (target / "pool").mkdir(parents=True)
    packages = _definitions().PACKAGES
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda package: _build_package(package, target / "pool"), packages))
    stanzas = run("apt-ftparchive", "packages", "pool", cwd=target).strip().split("\n\n")
    keys = target / "keys"
    _make_keys(keys)
    shutil.copy(keys / "testbed.gpg", target)
    for suite in SUITES:
        _write_suite(target, suite, stanzas, keys)
    shutil.rmtree(keys)  # the private keys: nothing more is to be signed


def _definitions() -> ModuleType:
    spec = importlib.util.spec_from_file_location("testbed_fixture_packages", _DEFINITIONS)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


# --- packages


def _build_package(package: Any, pool: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="fx-") as name:
        tree = Path(name)
        tree.chmod(0o755)
        for path, entry in package.files.items():
            _write_entry(tree / path.lstrip("/"), entry)
        _write_control(tree, package)
        target = pool / f"{package.name}_{package.version}_all.deb"
        # No compression: the packages are tiny, and there are a thousand.
        run("dpkg-deb", "-Znone", "--root-owner-group", "--build", tree, target,
            env={"SOURCE_DATE_EPOCH": str(_EPOCH)})  # fmt: skip


def _write_entry(path: Path, entry: Any) -> None:
    kind = type(entry).__name__
    if kind == "Dir":
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(entry.mode)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "Link":
        path.symlink_to(entry.target)
        return
    path.write_text(entry.text)
    path.chmod(entry.mode)


def _write_control(tree: Path, package: Any) -> None:
    control = tree / "DEBIAN"
    control.mkdir()
    fields = {
        "Package": package.name,
        "Version": package.version,
        "Architecture": "all",
        "Maintainer": "apt-ostree maintainers <apt-ostree@packages.debian.org>",
        **package.fields,
        "Description": f"fixture package {package.name}",
    }
    (control / "control").write_text("".join(f"{name}: {value}\n" for name, value in fields.items()))
    conffiles = [f"{path}\n" for path in package.files if path.startswith("/etc/")]
    if conffiles:
        (control / "conffiles").write_text("".join(conffiles))
    for name, text in package.scripts.items():
        (control / name).write_text(f"#!/bin/sh\nset -e\n{text}")
        (control / name).chmod(0o755)


# --- the repository


def _make_keys(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    for name in ("testbed", "stranger"):
        run("gpg", "--homedir", directory, "--batch", "--pinentry-mode", "loopback", "--passphrase", "",
            "--quick-generate-key", f"<{name}@testbed.invalid>", "ed25519", "sign", "never")  # fmt: skip
    run(
        "gpg",
        "--homedir",
        directory,
        "--output",
        directory / "testbed.gpg",
        "--export",
        "testbed@testbed.invalid",
    )
    run("gpgconf", "--homedir", directory, "--kill", "gpg-agent")


def _write_suite(target: Path, suite: str, stanzas: Iterable[str], keys: Path) -> None:
    version = {"stable": "1.0", "security": "1.1", "updates": "2.0"}.get(suite, "9.0")
    chosen = [stanza for stanza in stanzas if f"\nVersion: {version}\n" in stanza]
    index = ("\n\n".join(chosen) + "\n").encode()
    top = target / "dists" / suite
    binary = top / "main/binary-amd64"
    binary.mkdir(parents=True)
    names = {
        "main/binary-amd64/Packages": index,
        "main/binary-amd64/Packages.gz": gzip.compress(index, mtime=0),
    }
    for name, data in names.items():
        (top / name).write_bytes(data)
    (top / "Release").write_text(_release(suite, names))
    if suite == "unsigned":
        return
    signer = "stranger" if suite == "badsig" else "testbed"
    run("gpg", "--homedir", keys, "--batch", "--pinentry-mode", "loopback", "--passphrase", "",
        "--local-user", f"{signer}@testbed.invalid", "--clearsign",
        "--output", top / "InRelease", top / "Release")  # fmt: skip
    run("gpgconf", "--homedir", keys, "--kill", "gpg-agent")


def _release(suite: str, names: dict[str, bytes]) -> str:
    now = datetime.now(UTC)
    label = {"security": "Testbed-Security", "relabelled.later": "Somebody else"}.get(suite, "Testbed")
    suite = suite.removesuffix(".later")
    lines = [
        "Origin: Testbed",
        f"Label: {label}",
        f"Suite: {suite}",
        f"Codename: {suite}",
        "Architectures: amd64",
        "Components: main",
        f"Date: {format_datetime(now - timedelta(days=30 if suite == 'expired' else 0))}",
    ]
    if suite == "expired":
        lines.append(f"Valid-Until: {format_datetime(now - timedelta(days=20))}")
    lines.append("SHA256:")
    lines += [f" {hashlib.sha256(data).hexdigest()} {len(data)} {name}" for name, data in names.items()]
    return "\n".join(lines) + "\n"
