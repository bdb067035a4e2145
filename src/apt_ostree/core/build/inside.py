"""Prepares a build root for maintainer scripts, and finishes it afterwards, from inside the root.

The functions run through `system.confined`: the root is /, so that no link that a script made leads to the
host. Arguments and results are plain values.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apt_ostree.core.build import configured, finish, initramfs_state
from apt_ostree.core.build.earlier import Earlier
from apt_ostree.errors import Refused
from apt_ostree.model import accounts, build_accounts, dpkg_lists, initramfs, layout, seeds
from apt_ostree.model.events import Message, Report
from apt_ostree.model.filestate import ABSENT
from apt_ostree.model.kept import truename
from apt_ostree.model.kernel import is_image
from apt_ostree.model.package_plan import PackagePlan
from apt_ostree.model.seeds import Seeds
from apt_ostree.model.unitfile import merged
from apt_ostree.system import buildroot, confined, dpkg_query, files, sandbox, var_state

if TYPE_CHECKING:
    from apt_ostree.system.apt.shipped import Shipped

ETC = Path("/etc")
_SHIPPED_ETC = Path("/usr/etc")
_ROOT = Path("/")
_EXTENDED_STATES = Path("/", layout.SYSIMAGE_LINKS["var/lib/apt/extended_states"])
_ADMINDIR = Path("/", layout.DPKG_ADMINDIR)
_ARCHITECTURES = _ADMINDIR / "arch"
_POLICY = Path("/usr/sbin/policy-rc.d")
_ANSWERS = Path("/", layout.ANSWERS)
_POLICY_ASIDE = Path("/usr/sbin/policy-rc.d.apt-ostree")


@dataclass(frozen=True, slots=True)
class Prepared:
    """The root before the scripts ran.

    own: the text of each account file of the tree, by its name in /etc.
    machine: the text of each account file of the machine.
    shipped: the paths below /etc that packages ship.
    earlier: the names of accounts that stay in any case.
    taken: path of a file of the machine that the scripts work on -> digest of its content.
    var: the paths of /var.
    lacking: the paths, relative to /usr, of programs that modules of dracut need and the tree does not have.
    """

    own: Mapping[str, str]
    machine: Mapping[str, str]
    shipped: Sequence[str]
    earlier: Sequence[str]
    taken: Mapping[str, str]
    var: Sequence[str]
    lacking: Sequence[str]


@dataclass(frozen=True, slots=True)
class Changed:
    """What the scripts changed.

    paths: all new and removed files, relative to /usr.
    bytecode: files of byte code, relative to /usr.
    kernels: versions of kernels whose files were replaced.
    owners: user and group ids that own new files.
    """

    paths: Sequence[str]
    bytecode: Sequence[str]
    kernels: Sequence[str]
    owners: Sequence[int]


@dataclass(frozen=True, slots=True)
class PackageState:
    """What dpkg and apt know of a tree besides its packages.

    extended_states: apt's record of automatically installed packages.
    architectures: dpkg's architectures, the native one first; empty unless one was added.
    """

    extended_states: str
    architectures: Sequence[str]


def package_state(root: Path, architectures: Sequence[str]) -> PackageState:
    """Give the root further architectures, and return its state."""

    def work(_run: confined.RunInRoot) -> Mapping[str, Any]:
        own = files.text_of(_ARCHITECTURES).split()
        every = list(dict.fromkeys((*own, *architectures)))
        if every != own:
            files.write_text(_ARCHITECTURES, "".join(f"{name}\n" for name in every))
        return {"extended_states": files.text_of(_EXTENDED_STATES), "architectures": every}

    return PackageState(**confined.call(root, work, _nothing_runs))


def write_extended_states(root: Path, text: str) -> None:
    """Write apt's record of automatically installed packages, of which libapt changed a copy."""
    confined.call(root, lambda _run: files.write_text(_EXTENDED_STATES, text), _nothing_runs)


def fill_var(root: Path) -> None:
    """Fill /var as after boot: what the tree's tmpfiles.d declares, and its seeds."""
    _create_var(root)

    def run_in_root(command: Sequence[str], what: str) -> None:
        sandbox.run(root, command, what=what)

    confined.call(root, lambda run: _place_seeds(None, run), run_in_root)


def _create_var(root: Path) -> None:
    sandbox.run(root, ["systemd-tmpfiles", "--create", "--prefix=/var"], what="prepare /var for the packages")


def prepare(root: Path, earlier: Earlier | None = None, installed: Sequence[str] = ()) -> Prepared:
    """Prepare the root, with the machine's /etc, for scripts: /var as after boot, no start of services.

    earlier: a deployment whose packages are installed again; the scripts see what they made in it, and which
        version was configured then.
    installed: names of the packages that will be installed.

    Returns the state before the scripts, for `finish_root`. Raises ExternalFailure if a program fails.
    """
    _create_var(root)
    answers = {path.name: files.text_of(path) for path in sorted(_ANSWERS.glob("*.dat"))}

    def run_in_root(command: Sequence[str], what: str) -> None:
        visible = [earlier.directory / "usr"] if earlier else []
        sandbox.run(root, command, what=what, read_only=visible)

    def work(run: confined.RunInRoot) -> Mapping[str, Any]:
        _place_seeds(earlier, run)
        if earlier:
            _copy(str(earlier.directory), earlier.files, run)
            _add_lines(earlier.lines)
        configured.remember({**configured.removed(), **(earlier.configured if earlier else {})}, installed)
        taken = _answer(answers)
        return asdict(_prepare(earlier.names if earlier else frozenset(), taken))

    return Prepared(**confined.call(root, work, run_in_root))


def unconfigure(root: Path, names: Sequence[str]) -> None:
    """Have dpkg configure packages of the tree again, see `configured.unconfigure`."""
    confined.call(root, lambda _run: configured.unconfigure(names), _nothing_runs)


def make_initramfs(report: Report, root: Path, arguments: Sequence[str], *, timeout: float) -> None:
    """Make the initramfs of each kernel with the machine's /etc; ExternalFailure if dracut fails.

    arguments: of dracut(8), besides those of the tree.
    timeout: seconds that dracut may take.
    """

    def run_in_root(command: Sequence[str], what: str) -> None:
        sandbox.run(root, command, what=what, timeout=timeout)

    def work(run: confined.RunInRoot) -> None:
        finish.make_initramfs_images(_ROOT, run, report, arguments)

    confined.call(root, work, run_in_root)


def leave_etc(
    root: Path, purged: Sequence[str], gone: Mapping[str, str], installed: Sequence[str]
) -> Mapping[str, str]:
    """Leave the machine's /etc after the scripts; return its account files.

    Links in it that lead nowhere now are removed. It records which versions of packages were configured last
    and are removed; the record goes with /etc, so that an undo takes it back.

    purged: paths below /etc that a purge of the removed packages would remove.
    gone: name -> paragraphs of the packages that are removed, as dpkg has them after a removal.
    installed: names of those that are installed.
    """

    def work(_run: confined.RunInRoot) -> Mapping[str, str]:
        configured.record(gone, installed)
        return _read_accounts(purged)

    result: Mapping[str, str] = confined.call(root, work, _nothing_runs)
    return result


def _read_accounts(purged: Sequence[str]) -> Mapping[str, str]:
    for path in (ETC / name for name in purged):
        if path.is_symlink() and not path.exists():
            path.unlink()
    return {name: files.text_of(ETC / name) for name in accounts.FILES}


def finish_root(
    report: Report,
    root: Path,
    prepared: Prepared,
    changed: Changed,
    *,
    machine: Mapping[str, str],
    shipped: Sequence[Shipped],
    initramfs_is_made: bool,
    timeout: float,
) -> Mapping[str, int]:
    """Turn the root, with the tree's /etc, into a tree again: accounts added, state described, kernels moved.

    machine: as `leave_etc` returns it.
    shipped: what the new packages ship below /etc.
    initramfs_is_made: it is of no concern here what changes in it.
    timeout: seconds that each program may take.

    Returns the tree's empty directories beside /usr. Raises ExternalFailure if a program fails, and Refused
    if a package contains paths that a tree cannot.
    """

    def run_in_root(command: Sequence[str], what: str) -> None:
        sandbox.run(root, command, what=what, timeout=timeout)

    def work(run: confined.RunInRoot) -> Mapping[str, int]:
        _update_etc(prepared, shipped)
        if not initramfs_is_made:
            _remove_outdated_initramfs(prepared.lacking, changed, report)
        _finish_root(report, prepared, changed, machine, run)
        return buildroot.directories_beside_usr(_ROOT)

    beside: Mapping[str, int] = confined.call(root, work, run_in_root)
    return beside


def read_changes(upper: Path) -> Changed:
    """Return what the scripts changed, read from the upper directory without following links."""
    paths: list[str] = []
    bytecode, kernels, owners = [], set(), set()
    for directory, names, entries in os.walk(upper):
        relative = Path(directory).relative_to(upper)
        parts = relative.parts
        if (
            parts[:2] == ("lib", "modules")
            and len(parts) == 3
            and ("vmlinuz" in entries or "kernel" in names)
        ):
            kernels.add(parts[2])
        if relative.name == "__pycache__":
            bytecode += [f"{relative}/{name}" for name in entries if name.endswith(".pyc")]
        paths += [str(relative / name) for name in entries]
        for name in (*names, *entries):
            info = os.lstat(Path(directory, name))
            owners |= {info.st_uid, info.st_gid}
    return Changed(paths, sorted(bytecode), sorted(kernels), sorted(owners))


def _place_seeds(earlier: Earlier | None, run_in_root: confined.RunInRoot) -> None:
    """Put the state that packages left into /var: that of the tree, and that of an earlier one."""
    manifest = _ROOT / layout.SEEDS
    own = seeds.parse(files.text_of(manifest) or "{}")
    _copy(f"/{layout.FACTORY}", _tops(own), run_in_root)
    if not earlier:
        return
    # The base may have a state of its own at the same place, or below it.
    carried = {
        name: seed
        for name, seed in earlier.seeds.items()
        if name not in own and var_state.is_vacant(Path(seed.top))
    }
    _copy(str(earlier.directory / layout.FACTORY), _tops(carried), run_in_root)
    if carried:
        manifest.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(manifest, seeds.format_seeds({**own, **carried}))


def _add_lines(lists: Mapping[str, Sequence[str]]) -> None:
    """Add lines to lists that have one for each path, which comes last."""
    for path, lines in lists.items():
        present = files.text_of(_ROOT / path).splitlines()
        taken = {line.split()[-1] for line in present}
        if added := [line for line in lines if line.split()[-1] not in taken]:
            files.write_text(_ROOT / path, "".join(f"{line}\n" for line in (*present, *added)))


def _tops(given: Seeds) -> list[str]:
    return [seed.top.removeprefix("/") for seed in given.values()]


def _copy(source: str, paths: Sequence[str], run_in_root: confined.RunInRoot) -> None:
    """Copy paths, relative to a directory, into the root; what is there already stays."""
    if paths:
        script = 'cd "$1" && shift && exec cp --archive --no-clobber --parents --target-directory=/ -- "$@"'
        run_in_root(["sh", "-c", script, "sh", source, *paths], "give the packages what they made before")


def _answer(answers: Mapping[str, str]) -> dict[str, str]:
    """Give debconf the machine's answers; return path -> digest of each file that was written.

    In the tree of an older apt-ostree they are the tree's.
    """
    if _ANSWERS.is_symlink() or not _ANSWERS.is_dir():
        return {}
    for name, text in answers.items():
        path = _ANSWERS / name
        mode = 0o600 if name.startswith("passwords") else 0o644
        path.touch(mode)
        path.chmod(mode)
        files.write_text(path, text)
    return {str(_ANSWERS / name): var_state.digest(_ANSWERS / name) or "" for name in answers}


def _prepare(earlier_names: frozenset[str], taken: Mapping[str, str]) -> Prepared:
    own = {name: files.text_of(_SHIPPED_ETC / name) for name in accounts.FILES}
    machine = {name: files.text_of(ETC / name) for name in accounts.FILES}
    if os.path.lexists(_POLICY):
        _POLICY.rename(_POLICY_ASIDE)
    _POLICY.write_text("#!/bin/sh\nexit 101\n")  # no service starts in a build (policy-rc.d(8))
    _POLICY.chmod(0o755)
    Path("/var/tmp").mkdir(exist_ok=True)
    Path("/var/tmp").chmod(0o1777)
    var = [str(path.relative_to(_ROOT)) for path in Path("/var").rglob("*")]
    return Prepared(
        own,
        machine,
        sorted(dpkg_query.listed(_ADMINDIR, "/etc/")),
        sorted(earlier_names),
        taken,
        var,
        initramfs_state.lacking_programs(_ROOT),
    )


def _update_etc(prepared: Prepared, shipped: Sequence[Shipped]) -> None:
    """Bring the tree's /etc to what packages ship, from the archives: dpkg has changed the machine's."""
    diverted = dpkg_query.diversions(_ADMINDIR)
    states = [(Path(truename(f"/etc/{path}", package, diverted)), state) for package, path, state in shipped]
    files.write_states(states)
    gone = [
        Path(path)
        for path in sorted(set(prepared.shipped) - dpkg_query.listed(_ADMINDIR, "/etc/"), reverse=True)
    ]
    files.write_states([(path, ABSENT) for path in gone])


def _finish_root(
    report: Report,
    prepared: Prepared,
    changed: Changed,
    machine: Mapping[str, str],
    run_in_root: confined.RunInRoot,
) -> None:
    _POLICY.unlink(missing_ok=True)
    if os.path.lexists(_POLICY_ASIDE):
        _POLICY_ASIDE.rename(_POLICY)
    owners = frozenset(changed.owners) | _owners(Path("/var"))
    used = frozenset(prepared.earlier)
    used |= build_accounts.used_names(prepared.machine["passwd"], owners)
    used |= build_accounts.used_names(prepared.machine["group"], owners)
    for name, own in prepared.own.items():
        text = build_accounts.harvest(name, own, prepared.machine[name], machine[name], used=used)
        files.write_text(ETC / name, text)
    finish.finish_tree(
        _ROOT,
        run_in_root=run_in_root,
        report=report,
        var_before=frozenset(prepared.var),
        new_id=lambda top: f"{top}@{uuid.uuid4().hex[:16]}",
        taken=prepared.taken,
    )
    for path in changed.bytecode:
        finish.reset_bytecode_file(Path("/usr", path))
    _refuse_foreign_paths()


def _remove_outdated_initramfs(lacking: Sequence[str], changed: Changed, report: Report) -> None:
    """Remove the initramfs images that have to be made again, and say why."""
    for kernel, held in _initramfs_contents().items():
        paths = initramfs.outdated_by(kernel, changed.paths, held, lacking)
        if kernel in changed.kernels or paths:
            modules = Path("/", layout.KERNEL_MODULES, kernel)
            why = "the kernel" if kernel in changed.kernels else initramfs.paths_text(paths)
            if (modules / "vmlinuz").exists():  # else the kernel was removed
                report(Message(f"The initramfs of {kernel} is made anew, as {why} changed"))
            (modules / layout.INITRAMFS).unlink()


def _initramfs_contents() -> dict[str, frozenset[str]]:
    """Return the version of each kernel with an initramfs, and the paths that this contains."""
    images = Path("/", layout.KERNEL_MODULES).glob(f"*/{layout.INITRAMFS}")
    return {
        image.parent.name: initramfs.read_list(files.text_of(image.with_name(layout.INITRAMFS_LIST)))
        for image in images
    }


def initramfs_notes(root: Path, plan: PackagePlan) -> tuple[str, ...]:
    """Return for which kernels the plan makes an initramfs, and why (model.initramfs.plan_notes)."""
    result: list[str] = confined.call(root, lambda _run: _initramfs_notes(plan), _nothing_runs)
    return tuple(result)


def _initramfs_notes(plan: PackagePlan) -> list[str]:
    info = _ADMINDIR / "info"
    names = {path.name for path in info.iterdir()}
    lists = {}
    for step in (*plan.upgrade, *plan.downgrade, *plan.remove):
        name = dpkg_lists.info_name(names, step.name, step.architecture)
        lines = files.text_of(info / f"{name}.list").splitlines()
        lists[step.name] = [merged(line).removeprefix("/usr").lstrip("/") for line in lines]
    new = [step.name for step in plan.install if is_image(step.name, step.size)]
    added = [step.name for step in plan.install]
    return list(initramfs.plan_notes(_initramfs_contents(), new, added, lists))


def _owners(top: Path) -> frozenset[int]:
    infos = [os.lstat(path) for path in top.rglob("*")]
    return frozenset(number for info in infos for number in (info.st_uid, info.st_gid))


def _refuse_foreign_paths() -> None:
    """Raise Refused for paths that a tree cannot contain, with the packages that ship them."""
    paths = [f"/{name}" for name in buildroot.unexpected_top_level(_ROOT)]
    paths += [
        str(path) for path in (Path("/usr/etc"), Path("/usr")) if path.is_symlink() or not path.is_dir()
    ]
    if paths:
        raise Refused(
            f"packages contain what a tree cannot contain: {', '.join(paths)}",
            details=[f"{path} is of {_owner(path)}" for path in paths],
            hint="only /usr, /etc, /var, /opt and empty directories are possible; nothing was changed",
        )


def _owner(path: str) -> str:
    """Return the names of the packages that ship a path."""
    return ", ".join(dpkg_query.owners(_ADMINDIR, path)) or "no package"


def _nothing_runs(_command: Sequence[str], what: str) -> None:
    raise AssertionError(f"no program is to run here: {what}")
