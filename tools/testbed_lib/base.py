"""Composes the tree that machines boot, with `apt-ostree compose tree` of this checkout, cached by input."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from testbed_lib.common import CHECKOUT, ENVIRONMENT, TestbedError, hash_of, hash_of_files, run, say
from testbed_lib.store import open_store

DEFAULT_TREEFILE = CHECKOUT / "examples/debian-13-minimal.yaml"
_ADDITIONS = CHECKOUT / "tools/testbed-tree.yaml"
_SOURCE = CHECKOUT / "src/apt_ostree"
_REFS = {"bookworm": "debian/12/${arch}/minimal", "trixie": "debian/13/${arch}/minimal"}
#: The code that shapes a tree, as patterns; a change in it makes another tree, a change elsewhere does not.
_COMPOSE_CODE = (
    "core/build/finish.py",
    "core/build/var.py",
    "core/compose/*.py",
    "model/account_ids.py",
    "model/identities.py",
    "model/layout.py",
    "system/dracut.py",
    "system/mmdebstrap.py",
)


@dataclass(frozen=True, slots=True)
class Base:
    """A commit to boot: where it lies, its checksum, and the ref that machines follow."""

    repo: Path
    commit: str
    ref: str


def base_of_ref(repo: Path, ref: str) -> Base:
    """Return a commit that somebody else made."""
    return Base(repo.resolve(), run("ostree", "rev-parse", f"--repo={repo}", ref).strip(), ref)


def composed_base(treefile: Path, suite: str | None, *, force: bool, stale: bool) -> Base:
    """Return the composed tree of a treefile; compose it if it is not cached.

    force: compose anew, so that it has what the archive has now.
    stale: take what was composed from this treefile last, though the treefile or the code changed.
    """
    name = hash_of(str(treefile.resolve()), suite or "")
    directory = open_store() / "composed" / name
    key = _inputs_key(treefile)
    latest = directory / "latest"
    if stale and latest.exists():
        return _found(latest.resolve())
    target = directory / key
    if force:
        shutil.rmtree(target, ignore_errors=True)
    if not target.exists():
        _compose(treefile, suite, target)
        for old in directory.iterdir():  # each takes half a gigabyte; images of it stay usable
            if old.is_dir() and not old.is_symlink() and old != target:
                shutil.rmtree(old)
        latest.unlink(missing_ok=True)
        latest.symlink_to(key)
    return _found(target)


def _found(directory: Path) -> Base:
    repo = directory / "repo"
    refs = run("ostree", "refs", f"--repo={repo}").split()
    return Base(repo, run("ostree", "rev-parse", f"--repo={repo}", refs[0]).strip(), refs[0])


def _inputs_key(treefile: Path) -> str:
    # Whatever lies beside a treefile may be included by it.
    beside = [str(path.relative_to(treefile.parent)) for path in treefile.parent.rglob("*")]
    code = [str(path.relative_to(_SOURCE)) for name in _COMPOSE_CODE for path in _SOURCE.glob(name)]
    return hash_of(
        hash_of_files(treefile.parent, beside),
        _ADDITIONS.read_bytes(),
        hash_of_files(_SOURCE, code),
    )


def _compose(treefile: Path, suite: str | None, target: Path) -> None:
    say("composing the tree: about two minutes, once")
    partial = target.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    document: dict[str, object] = {"include": [str(treefile.resolve()), str(_ADDITIONS)]}
    if suite:
        document |= {"suite": suite, "ref": _REFS.get(suite, f"debian/{suite}/${{arch}}/minimal")}
    wrapper = partial / "testbed.yaml"
    wrapper.write_text(json.dumps(document))
    # In sight of the user: it takes minutes, and says what it does.
    done = subprocess.run(
        ["/usr/bin/python3", "-m", "apt_ostree", "compose", "tree", wrapper, f"--repo={partial / 'repo'}"],
        stdin=subprocess.DEVNULL,
        stdout=2,
        env={**ENVIRONMENT, **_passed_on(), "PYTHONPATH": str(CHECKOUT / "src")},
        check=False,
    )
    if done.returncode != 0:
        raise TestbedError(f"composing {treefile} failed")
    partial.rename(target)


def _passed_on() -> dict[str, str]:
    return {
        name: os.environ[name] for name in ("http_proxy", "https_proxy", "no_proxy") if name in os.environ
    }
