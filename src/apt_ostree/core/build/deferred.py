"""Configures the packages that a composed tree leaves to each machine (model.identities), once.

dpkg runs the configure step of these packages with the machine's own /etc and /var. /usr is an overlay that
is discarded, because the tree has already what the step would do there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from apt_ostree.core.build import lowerdirs
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure
from apt_ostree.model import identities, layout
from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.system import buildroot, dpkg_query, files, mounts, outputlog, sandbox
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import diff

#: The manifest of the tree of which the machine has all; apt-ostree-configure.service compares it. It goes
#: with /etc from one deployment to the next: an earlier deployment's /etc has not what was made later.
RECORD = Path("/etc/apt-ostree/configured.json")
#: The packages whose configuration was begun and did not succeed: what they made is not complete.
BEGUN = Path("/etc/apt-ostree/configuring.json")
_ROOT = Path("/")
_POLICY = "usr/sbin/policy-rc.d"


def configure(tx: Transaction, commit: str) -> bool:
    """Configure the packages of a commit of which this machine lacks what they make; return whether any.

    What the machine has already stays. Raises ExternalFailure if a step fails.
    """
    with lowerdirs.usr_of(tx.sysroot, commit) as lowers:
        manifest = _manifest(lowers)
        deferred, done = identities.parse(manifest), identities.parse(files.text_of(RECORD))
        begun = identities.parse(files.text_of(BEGUN))
        beside = diff.directories_beside_usr(tx.sysroot.repo, commit)
        due = sorted({*identities.due(deferred, done, _exists), *begun})
        if due:
            with (
                buildroot.scratch_directory(tx.sysroot.state_dir / "work") as scratch,
                buildroot.assembled(scratch, lowers, beside) as root,
            ):
                _configure(tx, root, due)
            for name in identities.due(deferred, done, _exists):
                tx.warning(f"{name} was configured, but it did not make {' and '.join(deferred[name])}")
        failpoint("deferred.before-record")
        files.write_states([(RECORD, _file(manifest)), (BEGUN, ABSENT)])
    return bool(due)


def _manifest(lowers: Sequence[Path]) -> str:
    paths = (lower / layout.DEFERRED.removeprefix("usr/") for lower in lowers)
    return next((files.text_of(path) for path in paths if path.is_file()), "{}")


def _exists(pattern: str) -> bool:
    return any(_ROOT.glob(pattern.removeprefix("/")))


def _configure(tx: Transaction, root: Path, due: Sequence[str]) -> None:
    """Have dpkg run the configure step of those packages that are installed."""
    admindir = root / layout.DPKG_ADMINDIR
    names = sorted({package.name for package in dpkg_query.installed(admindir)} & set(due))
    if not names:
        return
    status = admindir / "status"
    files.write_text(status, identities.half_configured(files.text_of(status), dict.fromkeys(names, "")))
    policy = root / _POLICY
    policy.unlink(missing_ok=True)
    policy.write_text("#!/bin/sh\nexit 101\n")  # units start when all is there (policy-rc.d(8))
    policy.chmod(0o755)
    for name in ("etc", "var"):
        mounts.mount(f"/{name}", root / name, flags=mounts.MS_BIND | mounts.MS_REC)
    _write_begun(names)
    failpoint("deferred.before")
    try:
        _run(tx, root, names)
    except ExternalFailure:
        _write_begun(package.name for package in dpkg_query.half_configured(admindir))
        raise
    failpoint("deferred.configured")


def _write_begun(names: Iterable[str]) -> None:
    text = identities.format_deferred({name: [] for name in names})
    files.write_states([(BEGUN, _file(text))])


def _file(text: str) -> FileState:
    return FileState("file", 0o644, 0, 0, text.encode())


def _run(tx: Transaction, root: Path, names: Sequence[str]) -> None:
    title = f"configure {', '.join(names)}"
    log = sandbox.output_log(root)
    with tx.task(f"Configuring {', '.join(names)}"), outputlog.kept(tx.report, log, "configure", [title]):
        sandbox.run(
            root,
            ["dpkg", *sandbox.KEEP_CHANGED, "--configure", *names],
            what=title,
            timeout=tx.settings.script_timeout,
            hostname=os.uname().nodename,
        )
