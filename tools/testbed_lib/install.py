"""Installs this checkout's packages, and the test bed's own files, into the deployment of a disk image.

The packages are built, unpacked and configured by dpkg in an overlay on a checkout of the base commit; only
what it changed is written to the repository.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from testbed_lib.common import CHECKOUT, TestbedError, hash_of_files, run
from testbed_lib.image import STATEROOT, mounted_disk
from testbed_lib.kernel import clone_file
from testbed_lib.store import SCRATCH, make_scratch

OVERLAY = Path(__file__).parent / "overlay"
#: What the package is made of, see tools/build-deb.
_INPUTS = (
    "data",
    "debian",
    "examples",
    "man",
    "src",
    "tools/build-deb",
    "tools/install-files",
    "tools/man_commands.py",
)
#: ostree gives every file the time stamp 0. Compiled Python has to agree, or each start would compile again.
_COMPILE = """
cd /usr/lib/python3/dist-packages/apt_ostree
find . -name '*.py' -exec touch --date=@0 {} +
python3 -m compileall -q -f .
"""
_PACKAGES_KEY = "apt-ostree.packages"


def code_key() -> str:
    """Return a key for everything that gets installed: the product, committed or not, and our files."""
    inputs = (*_INPUTS, str(OVERLAY.relative_to(CHECKOUT)))
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *inputs,
                 cwd=CHECKOUT)  # fmt: skip
    return hash_of_files(CHECKOUT, [name for name in listed.split("\0") if name])


def install_into_image(
    base: Path, target: Path, ref: str, *, fixtures: Path | None, packages: Sequence[str] | None
) -> None:
    """Make a copy of an image whose deployed commit has the code, and the fixture repository, in it.

    packages: those of the checkout to install; None: copy the files of all, without dpkg.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    clone_file(base, partial)
    with mounted_disk(partial) as disk:
        work = disk / ".testbed"
        tree = work / "tree"
        work.mkdir()
        repo = disk / "ostree/repo"
        run("ostree", "checkout", f"--repo={repo}", "--require-hardlinks", ref, tree)
        with TemporaryDirectory(dir=SCRATCH) as build:
            if packages is None:
                run(CHECKOUT / "tools/install-files", build)
                _lay_over(Path(build), tree)
            else:
                run(CHECKOUT / "tools/build-deb", build)
                debs = [deb for name in packages for deb in Path(build).glob(f"{name}_*.deb")]
                _install_packages(debs, work, tree)
        _lay_over(OVERLAY, tree)
        if fixtures:
            _add_fixtures(fixtures, disk, tree)
        else:
            (tree / "usr/etc/apt/sources.list.d/testbed.sources").unlink()
        _commit(repo, tree, ref)
        shutil.rmtree(work)
        run("ostree", "admin", "deploy", f"--sysroot={disk}", f"--os={STATEROOT}", ref)
        run("ostree", "admin", "undeploy", f"--sysroot={disk}", "1")
    partial.rename(target)


def _add_fixtures(fixtures: Path, disk: Path, tree: Path) -> None:
    shutil.copytree(fixtures, disk / f"ostree/deploy/{STATEROOT}/var/lib/testbed/repo")
    keyring = tree / "usr/share/keyrings/testbed.gpg"
    keyring.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(fixtures / "testbed.gpg", keyring)


def _commit(repo: Path, tree: Path, ref: str) -> None:
    # Debian 12's ostree cannot list the keys, but shows the whole commit as GVariant text.
    listed = re.findall(r"'([\w.-]+)': <", run("ostree", "show", f"--repo={repo}", "--raw", ref))
    parent = run("ostree", "rev-parse", f"--repo={repo}", ref).strip()
    # What describes the commit stays true, but for the list of packages.
    kept = [f"--keep-metadata={key}" for key in listed if key not in {_PACKAGES_KEY, "ostree.linux"}]
    packages = [f"--add-metadata={_PACKAGES_KEY}={_package_list(tree)}"] if _PACKAGES_KEY in listed else []
    run("ostree", "commit", f"--repo={repo}", f"--branch={ref}", f"--tree=dir={tree}",
        "--link-checkout-speedup", "--bootable", f"--parent={parent}", "--subject=with the checkout's code",
        *kept, *packages)  # fmt: skip


def _package_list(tree: Path) -> str:
    """Return the installed packages as GVariant text of type a(sss): name, version, architecture."""
    shown = run("dpkg-query", f"--admindir={tree}/usr/lib/sysimage/dpkg", "--show",
                "--showformat=${db:Status-Abbrev}\t${Package}\t${Version}\t${Architecture}\n")  # fmt: skip
    rows = sorted(line.split("\t")[1:] for line in shown.splitlines() if line.startswith("ii"))
    return "[" + ", ".join("('" + "', '".join(row) + "')" for row in rows) + "]"


# --- the package


def _install_packages(debs: Sequence[Path], work: Path, tree: Path) -> None:
    upper = work / "upper"
    upper.mkdir()
    with _build_root(tree, upper, work) as root:
        run("cp", *debs, root / "tmp")
        run("chroot", root, "systemd-tmpfiles", "--create", "--prefix=/var")  # the links to dpkg's database
        names = [f"/tmp/{deb.name}" for deb in debs]
        run("chroot", root, "dpkg", "--install", *names, env={"DEBIAN_FRONTEND": "noninteractive"})
        run("chroot", root, "sh", "-ec", _COMPILE)
    _apply_upper(upper, tree)
    (tree / "etc").rmdir()


@contextmanager
def _build_root(tree: Path, upper: Path, work: Path) -> Iterator[Path]:
    """Mount a writable view of a tree that programs can run in; all changes land in `upper`."""
    (work / "overlay").mkdir()
    (tree / "etc").mkdir()
    root = make_scratch()
    run("mount", "-t", "overlay", "-o", f"lowerdir={tree},upperdir={upper},workdir={work}/overlay",
        "overlay", root)  # fmt: skip
    try:
        run("mount", "--bind", root / "usr/etc", root / "etc")
        for name in ("var", "tmp", "run"):
            run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", root / name)
        run("mount", "-t", "proc", "proc", root / "proc")
        run("mount", "--bind", "/dev", root / "dev")
        yield root
    finally:
        run("umount", "--recursive", root)


def _apply_upper(upper: Path, tree: Path) -> None:
    """Move what an overlay collected into the tree it was laid over.

    The tree's files are hardlinks into a repository: they are replaced, never written to.
    """
    for directory, _names, files in os.walk(upper):
        source = Path(directory)
        target = tree / source.relative_to(upper)
        if "trusted.overlay.opaque" in os.listxattr(source) and target.exists():
            raise TestbedError(f"the package replaced a directory of the base: {target}")
        _forget_overlay(source)
        target.mkdir(exist_ok=True)
        shutil.copystat(source, target)
        for name in files:
            _apply_file(source / name, target / name)


def _apply_file(source: Path, target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    target.unlink(missing_ok=True)
    if source.is_char_device() and source.stat().st_rdev == 0:
        return  # a whiteout: removed
    _forget_overlay(source)
    source.rename(target)


def _forget_overlay(path: Path) -> None:
    """Remove overlayfs's own marks, which would otherwise be committed."""
    for name in os.listxattr(path, follow_symlinks=False):
        if name.startswith("trusted.overlay."):
            os.removexattr(path, name, follow_symlinks=False)


def _lay_over(source: Path, tree: Path) -> None:
    """Copy files into a tree, as root's, replacing what is there."""
    for directory, _names, files in os.walk(source):
        target = tree / Path(directory).relative_to(source)
        target.mkdir(exist_ok=True, parents=True)
        for name in files:
            (target / name).unlink(missing_ok=True)
            shutil.copy(Path(directory, name), target / name, follow_symlinks=False)
            os.chown(target / name, 0, 0, follow_symlinks=False)
