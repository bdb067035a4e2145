"""Keeps packages that no archive offers any more: makes their archives again, from the present tree.

As dpkg-repack(1) does, from what dpkg knows of a package and from its files. The tree is shown in a root of
its own, with its pristine /etc and its state below /var, in which no script runs.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from apt_ostree.core.build import inside, lowerdirs
from apt_ostree.core.state.inventory import layered_packages
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure
from apt_ostree.model import dpkg_lists, kept, layout
from apt_ostree.model.origin import LocalPackage
from apt_ostree.model.package import Package
from apt_ostree.system import buildroot, confined, dpkg_query, files, sandbox
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import diff

if TYPE_CHECKING:
    from apt_ostree.system.apt.resolver import Resolver

#: Where archives are made, in the root.
_BUILD = Path("/var/tmp/apt-ostree-repack")
_ADMINDIR = Path("/", layout.DPKG_ADMINDIR)


def offer(
    tx: Transaction,
    resolver: Resolver,
    requests: Sequence[str],
    lost: Sequence[LocalPackage],
    scratch: Path,
    *,
    in_use: Collection[Package],
) -> Mapping[str, str]:
    """Make packages of the present tree available to libapt that are asked for and offered nowhere else.

    requests: the requests for packages of the archives.
    lost: packages that were given as files which do not exist any more.
    in_use: packages that are kept if the archives that offer these versions cannot be reached.

    Returns their names and versions; the resolver has to be opened again if there are any. Raises
    ExternalFailure for a lost package that the present tree does not have, and if an archive cannot be made.
    """
    if not (requests or in_use or lost):
        return {}
    from apt_ostree.system.apt import acquire, choice, local, status, unreachable

    unreached = unreachable.out_of_reach(resolver, acquire.failed_archives(), in_use)
    directory = tx.sysroot.directory(tx.merge_deployment)
    present = status.members((directory / layout.DPKG_ADMINDIR / "status").read_bytes())
    packages = kept.kept(
        requests,
        [*(package.label for package in lost), *map(_request, unreached)],
        present,
        lambda relation: choice.is_offered(resolver, relation),
        choice.satisfies,
        native=choice.native_architecture(),
    )
    labels = {package.label for package in lost}
    absent = labels - {_request(package) for package in packages}
    if absent:
        raise ExternalFailure(
            f"the files of local packages do not exist, nor does the present tree have them: "
            f"{', '.join(sorted(absent))}",
            hint="install them from their files again",
        )
    if packages:
        for package in packages:
            reason = _reason(package, labels, unreached)
            tx.message(f"{reason}; it is kept from the present tree")
        archives = {path: local.digest_of(path) for path in _archives(tx, packages, scratch)}
        local.publish(tx.report, archives, scratch, "kept")
    return {package.qualified: package.version for package in packages}


def protected(tx: Transaction, names: Collection[str]) -> tuple[str, ...]:
    """Return the packages that requested ones have brought, and which apt never removes automatically.

    The server of a database is one: without it, the data could not be read any more. NAME each, or
    NAME:ARCH of another architecture; what others need after these.

    names: those of the packages that stay requested.
    """
    from apt_ostree.system.apt import choice, config, status

    layered = layered_packages(tx.sysroot.repo, tx.merge_deployment.checksum)
    ours = {package for package in layered if package.name not in names and config.is_protected(package.name)}
    if not ours:
        return ()
    directory = tx.sysroot.directory(tx.merge_deployment)
    present = status.members((directory / layout.DPKG_ADMINDIR / "status").read_bytes())
    brought = sorted(ours & kept.needed(names, present, choice.satisfies))

    def needs(package: Package) -> int:
        return len(kept.needed([package.name], present, choice.satisfies))

    native = choice.native_architecture()
    order = sorted(brought, key=needs, reverse=True)
    return tuple(one.name if one.architecture == native else one.qualified for one in order)


def _reason(package: Package, labels: Collection[str], unreached: Collection[Package]) -> str:
    if _request(package) in labels:
        return f"the file of {package.label} is gone"
    if package in unreached:
        return f"the archive of {package.label} cannot be reached"
    return f"no archive offers {package.label}"


def _request(package: Package) -> str:
    return f"{package.name}={package.version}"


def _archives(tx: Transaction, packages: Sequence[Package], scratch: Path) -> list[Path]:
    """Make an archive of each package; return their paths, in a directory that the sandbox shows."""
    from apt_ostree.system.apt import config

    commit = tx.merge_deployment.checksum
    target, place = config.kept_directory(scratch), scratch / "present"
    target.mkdir(parents=True)
    place.mkdir()
    with (
        tx.task("Keeping packages of the present tree"),
        lowerdirs.usr_of(tx.sysroot, commit) as lowers,
        buildroot.assembled(place, lowers, diff.directories_beside_usr(tx.sysroot.repo, commit)) as root,
    ):
        inside.fill_var(root)

        def run_in_root(command: Sequence[str], what: str) -> None:
            sandbox.run(root, command, what=what)

        names = confined.call(root, lambda run: [_repack(package, run) for package in packages], run_in_root)
        failpoint("kept.repacked")
        made = place / "var" / _BUILD.relative_to("/var")
        return [Path(shutil.move(made / name, target)) for name in names]


def _repack(package: Package, run_in_root: confined.RunInRoot) -> str:
    """Make the archive of a package, from inside the root; return its name below `_BUILD`."""
    tree, info = _BUILD / package.name, _ADMINDIR / "info"
    name = dpkg_lists.info_name({path.name for path in info.iterdir()}, package.name, package.architecture)
    listed = files.text_of(info / f"{name}.list").splitlines()
    parents = {Path(path).parent for path in listed}
    diverted = dpkg_query.diversions(_ADMINDIR)
    (tree / "DEBIAN").mkdir(parents=True)
    for path in listed:
        source = Path(kept.truename(path, package.name, diverted))
        if os.path.lexists(source) and path.strip("/."):
            _copy(source, Path(f"{tree}{path}"), is_directory=Path(path) in parents)
    _write_control(package, tree, info, name)
    archive = f"{package.name}_{package.architecture}.deb"
    command = ["dpkg-deb", "-Znone", "--build", str(tree), str(_BUILD / archive)]
    run_in_root(command, f"make the archive of {package.label}")
    shutil.rmtree(tree)
    return archive


def _copy(source: Path, target: Path, *, is_directory: bool) -> None:
    """Copy a file, a link or an empty directory with its owner and mode.

    is_directory: in the package it is a directory, even if the root has a link there (/opt/NAME, /lib).
    """
    info = source.stat() if is_directory else source.lstat()
    if stat.S_ISLNK(info.st_mode):
        target.symlink_to(source.readlink())
    elif stat.S_ISDIR(info.st_mode):
        target.mkdir(exist_ok=True)
    else:
        shutil.copyfile(source, target)
    mode, owner, group = kept.as_shipped(stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid)
    os.chown(target, owner, group, follow_symlinks=False)
    if not target.is_symlink():
        target.chmod(mode)


def _write_control(package: Package, tree: Path, info: Path, name: str) -> None:
    """Write the files that describe a package, from dpkg's database."""
    for path in sorted(info.iterdir()):
        kind = path.name.removeprefix(f"{name}.")
        if path.name == f"{name}.{kind}" and "." not in kind and kind != "list":
            shutil.copy(path, tree / "DEBIAN" / kind)
    conffiles = tree / "DEBIAN" / "conffiles"
    if conffiles.exists():
        present = [line for line in files.text_of(conffiles).splitlines() if os.path.lexists(f"{tree}{line}")]
        conffiles.write_text("".join(f"{line}\n" for line in present))
    paragraphs = files.text_of(_ADMINDIR / "status").split("\n\n")
    lines = (
        f"Package: {package.name}",
        f"Version: {package.version}",
        f"Architecture: {package.architecture}",
    )
    (own,) = (text for text in paragraphs if set(lines) <= set(text.splitlines()))
    files.write_text(tree / "DEBIAN" / "control", kept.control(own))
