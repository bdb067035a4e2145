"""`container commit`: the last step of a derived image, which gives it the form of a tree again.

It does what a compose does after the packages' scripts, by the same functions, in the container's own root
directory. /etc stays where images have it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import stat
from collections.abc import Sequence
from pathlib import Path

from apt_ostree import __version__
from apt_ostree.core.build import finish, initramfs_state
from apt_ostree.core.compose import machine_state, postprocess, rootfs
from apt_ostree.core.container import own_rules, places, preparing
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import account_ids, image_var, layout, oci, spdx
from apt_ostree.model.account_ids import Ids
from apt_ostree.model.requests.images import ContainerCommit
from apt_ostree.model.result import Result
from apt_ostree.model.treefile import MachineState
from apt_ostree.system import dpkg_query, files, process, rootstate, sandbox, source_date
from apt_ostree.system.failpoints import failpoint

_ROOT = Path("/")
#: What is empty on a machine that boots.
_EMPTIED = ("run", "tmp")
#: Of what belongs to no build: the same input gives the same image.
_TIME = 0


def commit(tx: Transaction, request: ContainerCommit) -> Result:
    """Give the container's root directory the form of a tree in an image.

    Returns the number of `packages`, the `kernel`, and the names of those packages that each machine
    configures itself (`deferred`). Raises Refused outside of a container, and for what no tree can hold,
    before more than /var is changed; UsageError for a mistake in the request; ExternalFailure if a program
    fails.
    """
    places.require_container(_ROOT, "finish the image")
    ids = _ids(_ROOT, request)
    shared = [MachineState(path, shared=True) for path in _absolute(request.shared)]
    preparing.fill_var(tx.report)
    packages = _packages(_ROOT)
    refuse_unfit(_ROOT, packages, request.shared)
    failpoint("container.checked")
    with source_date.set_to(source_date.read(_TIME)):
        deferred = machine_state.leave_to_machines(_ROOT, packages, shared)
        failpoint("container.left-to-machines")
        drop_outdated_initramfs(tx, _ROOT)
        postprocess.finish(tx.report, ids, _run)
        failpoint("container.finished")
    write_bill(_ROOT)
    empty(_ROOT)
    details = {"packages": len(packages), "kernel": rootfs.kernel_of(_ROOT), "deferred": deferred}
    return Result(changed=True, details=details)


def _run(command: Sequence[str], what: str) -> None:
    """Run a program of the container, in which all RUN steps run: it needs no sandbox within."""
    process.run(command, what=what, env=sandbox.SCRIPT_ENVIRONMENT, cwd=_ROOT)


def _ids(root: Path, request: ContainerCommit) -> Ids:
    """Return the ids that accounts have to keep: those of the request's file before those of the tree."""
    own = account_ids.parse(_text(request.account_ids)) if request.account_ids else Ids()
    return own.over(account_ids.parse_record(files.text_of(root / layout.ACCOUNT_IDS)))


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--account-ids: {path} cannot be read: {error}") from error


def _absolute(paths: Sequence[str]) -> Sequence[str]:
    if wrong := [path for path in paths if not path.startswith("/")]:
        raise UsageError(f"--shared: {wrong[0]} does not begin with a slash")
    return paths


def _packages(root: Path) -> frozenset[str]:
    return frozenset(package.name for package in dpkg_query.installed(root / layout.DPKG_ADMINDIR))


# --- what is refused


def refuse_unfit(root: Path, packages: frozenset[str], shared: Sequence[str]) -> None:
    """Raise Refused for what a tree could not hold.

    packages: the names of the installed packages. shared: patterns of what all machines have alike.
    """
    if unfinished := list(own_rules.packages(root)):
        raise Refused(
            "not all packages are configured",
            details=unfinished,
            hint="'dpkg --configure -a' completes them, or says why not",
        )
    of_kernels = {f"/{name}" for name in finish.LEFTOVERS}  # links that go with the rest of /boot
    if others := [path for path in own_rules.top_level(root) if path not in of_kernels]:
        raise Refused(
            f"a tree cannot have {', '.join(others)}",
            hint="put it below /usr, and state of services below /var",
        )
    finish.require_one_kernel(root)
    if suspicions := machine_state.unknown(root, packages, shared):
        raise Refused(
            "files seem to belong to one machine, and all machines of the image would have them",
            details=suspicions,
            hint="remove them, or name what all machines are to have with --shared PATH",
        )


# --- the steps that only images need


def drop_outdated_initramfs(tx: Transaction, root: Path) -> None:
    """Remove the initramfs if something that it was made of has changed, so that it is made again."""
    for image in sorted((root / layout.KERNEL_MODULES).glob(f"*/{layout.INITRAMFS}")):
        kernel = image.parent.name
        if not initramfs_state.is_current(root, kernel):
            tx.message(f"The initramfs of {kernel} is made anew, as what it is made of changed")
            image.unlink()


def write_bill(root: Path) -> None:
    """Write the image's list of packages again, if it has one."""
    path = root / spdx.PATH
    if not path.is_file():
        return
    from apt_ostree.system.apt import status  # not at the top: only here is libapt needed

    records = status.records((root / layout.DPKG_ADMINDIR / "status").read_bytes())
    before = path.read_bytes()
    subject = spdx.derived(
        json.loads(before),
        digest=hashlib.sha256(before + repr(records).encode()).hexdigest(),
        os_release=files.text_of(root / "usr/lib/os-release"),
        program=f"apt-ostree-{__version__}",
    )
    files.replace_text(path, oci.to_bytes(spdx.document(subject, records)).decode())


def empty(root: Path) -> None:
    """Remove what a machine makes anew at boot or has of its own; /var keeps directories and links.

    What is mounted in the container stays, as it is not in the image.
    """
    for top in _EMPTIED:
        _remove(root, top, {})
    texts = [files.text_of(path) for path in sorted((root / "usr/lib/tmpfiles.d").glob("*.conf"))]
    accounts = (files.text_of(root / "etc/passwd"), files.text_of(root / "etc/group"))
    wanted = image_var.paths(texts, *accounts)
    _remove(root, image_var.TOP, wanted)
    files.write_states(
        [(root / path, state) for path, state in wanted.items() if files.read_state(root / path) != state]
    )


def _remove(root: Path, top: str, wanted: image_var.Paths) -> None:
    """Remove all below a directory but the wanted paths, and the directories above mount points."""
    for path, info in reversed(list(rootstate.of_image(root, top))):
        is_wanted = path in wanted
        if stat.S_ISDIR(info.st_mode):
            if not (is_wanted and wanted[path].type == "directory"):
                with contextlib.suppress(OSError):  # something is mounted in it
                    (root / path).rmdir()
        elif not is_wanted or files.read_state(root / path) != wanted[path]:
            (root / path).unlink()
