"""Configures the packages that a composed tree leaves to each machine (model.identities), once.

dpkg runs the configure step of these packages with the machine's own /etc and /var. /usr is an overlay that
is discarded, because the tree has already what the step would do there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from apt_ostree.core.build import lowerdirs
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure
from apt_ostree.model import identities, layout
from apt_ostree.model.filestate import FileState
from apt_ostree.system import buildroot, dpkg_query, files, mounts, outputlog, sandbox, statedb
from apt_ostree.system.failpoints import failpoint

#: The packages that this machine has configured, also those of earlier trees.
RECORD = "configured.json"
#: The manifest of the tree of which all is done. apt-ostree-configure.service compares it.
DONE = "deferred.json"
_ROOT = Path("/")
_POLICY = "usr/sbin/policy-rc.d"


def configure(tx: Transaction, commit: str) -> bool:
    """Configure the packages of a commit of which this machine lacks what they make; return whether any.

    What the machine has already stays. Raises ExternalFailure if a step fails; those before it are recorded.
    """
    with lowerdirs.usr_of(tx.sysroot, commit) as lowers:
        manifest = _manifest(lowers)
        deferred, record = identities.parse(manifest), identities.parse(files.text_of(_place(RECORD)))
        due = identities.due(deferred, record, _exists)
        if due:
            with (
                buildroot.scratch_directory(tx.sysroot.state_dir / "work") as scratch,
                buildroot.assembled(scratch, lowers) as root,
            ):
                _configure(tx, root, due, record)
            for name in identities.due(deferred, record, _exists):
                tx.warning(f"{name} was configured, but it did not make {' and '.join(deferred[name])}")
        _write(RECORD, identities.format_deferred({**record, **deferred}))
        _write(DONE, manifest)
    return bool(due)


def _manifest(lowers: Sequence[Path]) -> str:
    paths = (lower / layout.DEFERRED.removeprefix("usr/") for lower in lowers)
    return next((files.text_of(path) for path in paths if path.is_file()), "{}")


def _exists(pattern: str) -> bool:
    return any(_ROOT.glob(pattern.removeprefix("/")))


def _configure(tx: Transaction, root: Path, due: Sequence[str], record: identities.Deferred) -> None:
    """Run the configure step of packages, and record those that succeeded if one fails."""
    admindir = root / layout.DPKG_ADMINDIR
    names = sorted({package.name for package in dpkg_query.installed(admindir)} & set(due))
    if not names:
        return
    status = admindir / "status"
    files.write_text(status, identities.half_configured(files.text_of(status), names))
    policy = root / _POLICY
    policy.unlink(missing_ok=True)
    policy.write_text("#!/bin/sh\nexit 101\n")  # units start when all is there (policy-rc.d(8))
    policy.chmod(0o755)
    for name in ("etc", "var"):
        mounts.mount(f"/{name}", root / name, flags=mounts.MS_BIND | mounts.MS_REC)
    failpoint("deferred.before")
    try:
        _run(tx, root, names)
    except ExternalFailure:
        failed = {package.name for package in dpkg_query.half_configured(admindir)}
        done: dict[str, list[str]] = {name: [] for name in names if name not in failed}
        _write(RECORD, identities.format_deferred({**record, **done}))
        raise
    failpoint("deferred.configured")


def _run(tx: Transaction, root: Path, names: Sequence[str]) -> None:
    title = f"configure {', '.join(names)}"
    log = sandbox.output_log(root)
    with tx.task(f"Configuring {', '.join(names)}"), outputlog.kept(tx.report, log, "configure", [title]):
        sandbox.run(
            root,
            ["dpkg", "--force-confold", "--configure", *names],
            what=title,
            timeout=tx.settings.script_timeout,
            hostname=os.uname().nodename,
        )


def _place(name: str) -> Path:
    return statedb.DIRECTORY / name


def _write(name: str, text: str) -> None:
    state = FileState("file", 0o600, 0, 0, text.encode(errors="surrogateescape"))
    files.write_states([(_place(name), state)])
