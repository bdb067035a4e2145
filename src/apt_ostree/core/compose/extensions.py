"""`compose extensions`: downloads packages that machines can layer on a base."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apt_ostree.core.compose import committing, inputs, packages, places
from apt_ostree.core.compose.cache import open_cache
from apt_ostree.core.compose.tree import WORK_PREFIX
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure, Refused, UsageError
from apt_ostree.model import extensions as model
from apt_ostree.model import layout
from apt_ostree.model.extensions import Extensions, Kind
from apt_ostree.model.package import Package
from apt_ostree.model.requests.compose import ComposeExtensions
from apt_ostree.model.result import Result
from apt_ostree.model.treefile import Treefile
from apt_ostree.system import aptget, dpkg_query, exchange, files, mmdebstrap, scratch, signals, yamlfile
from apt_ostree.system.aptget import World
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.mmdebstrap import Bootstrap
from apt_ostree.system.ostree import commit, overlay_repo
from apt_ostree.system.ostree.repo import Repo

_STATUS = f"{layout.DPKG_ADMINDIR}/status"


@dataclass(frozen=True, slots=True)
class _Base:
    """What extensions are laid on. checksum: of the commit; None: it is a root filesystem."""

    checksum: str | None
    packages: tuple[Package, ...]
    status: bytes


def extensions(tx: Transaction, request: ComposeExtensions) -> Result:
    """Download the packages of extensions, and what they need beyond the base, into a directory.

    Returns `base`, `directory` and `packages`, each with `name`, `version`, `architecture`, `file`, `sha256`
    and `size`. Raises UsageError for a mistake in a file, and Refused for packages that the base has, that
    would change it, or that cannot be installed on it.
    """
    tree = inputs.read_treefile(request.treefile)
    committing.require_root()
    base = _base(request, tree)
    output = places.replaceable(request.output_dir, model.FILE)
    others = {"the directory of extensions": output}
    others |= {"the repository": Path(request.repo)} if request.repo else {}
    cache = open_cache(request.cachedir, apart_from=others)
    architecture = mmdebstrap.native_architecture()
    given = model.for_base(_read(request.extensions), architecture, base.packages)
    bootstrap = _bootstrap(tree, given)
    with (
        scratch.directory(output.parent, WORK_PREFIX) as work,
        packages.lists_of(bootstrap, cache) as lists,
    ):
        (work / "apt").mkdir()
        world = aptget.make_world(
            work / "apt",
            lists,
            mmdebstrap.copied(bootstrap.sources),
            status=base.status,
            base=base.packages,
            recommends=bootstrap.recommends,
            architecture=architecture,
        )
        _fetch(tx, world, given)
        new = _place(work / "new", world, lists)
        text = model.format_extensions(given, base.checksum, new)
        (work / "new" / model.FILE).write_text(text)
        changed = not _is_same(output, text, new)
        failpoint("compose.extensions-downloaded")
        if changed:
            signals.ignore()  # what follows is done at once, and cannot be undone
            _put(work / "new", output)
            failpoint("compose.extensions-placed")
    return Result(changed, details={"base": base.checksum, "directory": str(output), "packages": new})


def _base(request: ComposeExtensions, tree: Treefile) -> _Base:
    if (request.rootfs is None) == (request.repo is None):
        raise UsageError(
            "compose extensions needs one base", hint="name a repository with --repo, or a --rootfs"
        )
    if request.rootfs is not None:
        if request.base_rev:
            raise UsageError("--base-rev is a commit of a repository, and --rootfs is none")
        root = places.existing_root(request.rootfs)
        admindir = root / layout.DPKG_ADMINDIR
        if not (admindir / "status").is_file():
            admindir = root / "var/lib/dpkg"
        status = admindir / "status"
        if not status.is_file():
            raise UsageError(f"{root} has no packages of Debian")
        return _Base(None, dpkg_query.installed(admindir), status.read_bytes())
    path = Path(request.repo or "").absolute()
    if not commit.exists(path):
        raise UsageError(f"{path} is not an OSTree repository")
    repo = Repo.open(path)
    checksum = repo.resolve(request.base_rev or committing.ref_of(tree))
    name = _STATUS.removeprefix("usr/")
    nodes = overlay_repo.of_base(repo, checksum, (name,))
    if name not in nodes:
        raise UsageError(f"the commit {checksum[:12]} has no packages of Debian")
    return _Base(
        checksum, tuple(sorted(repo.packages(checksum) or ())), repo.file_state(nodes[name].checksum).content
    )


def _read(path: str) -> Extensions:
    document = yamlfile.read(Path(path))
    given = model.parse(document.data, name=document.name, lines=document.lines)
    for archive in given.archives:
        if archive.keyring and not Path(archive.keyring).exists():
            raise UsageError(f"{path}: archives: signed-by: there is no file {archive.keyring}")
    return given


def _bootstrap(tree: Treefile, given: Extensions) -> Bootstrap:
    """Return where packages come from: the archives of the treefile, and those of the extensions."""
    own = inputs.plan_bootstrap(tree, {})
    if not given.archives:
        return own
    more = inputs.plan_bootstrap(replace(tree, archives=given.archives), {})
    return replace(own, sources=tuple(dict.fromkeys((*own.sources, *more.sources))))


def _fetch(tx: Transaction, world: World, given: Extensions) -> None:
    """Download the archives, if the packages leave the base as it is."""
    wanted, alone = given.packages(Kind.OS), given.packages(Kind.DEVELOPMENT)
    if wanted:
        with tx.task("Resolving packages"):
            resolution = model.read_simulation(world.simulate(wanted))
        if resolution.changed:
            raise Refused(
                "the extensions would change the base",
                details=resolution.changed,
                hint="leave them out, or compose a base with other packages",
            )
    with tx.task("Downloading packages"):
        if wanted:
            world.fetch(wanted)
        if alone:
            world.fetch_alone(alone)


def _place(target: Path, world: World, lists: Path) -> list[dict[str, Any]]:
    """Move the archives to a new directory; return a row for each, sorted.

    Raises ExternalFailure for one that is not what the lists say.
    """
    from apt_ostree.system.apt import indexes  # not at the top: only this verb needs libapt

    target.mkdir()
    target.chmod(0o755)
    found = {path: indexes.package_of(path) for path in sorted(world.archives.glob("*.deb"))}
    known = indexes.digests(lists, frozenset(found.values()))
    rows = []
    for path, package in sorted(found.items(), key=lambda item: item[1]):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest not in known[package]:
            raise ExternalFailure(f"{path.name} is not the archive that the package lists name")
        path.chmod(0o644)
        shutil.move(path, target / path.name)
        rows.append(_row(package, target / path.name, digest))
    return rows


def _row(package: Package, path: Path, digest: str) -> dict[str, Any]:
    return {
        "name": package.name,
        "version": package.version,
        "architecture": package.architecture,
        "file": path.name,
        "sha256": digest,
        "size": path.stat().st_size,
    }


def _is_same(output: Path, text: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a directory has these packages, undamaged, and no others."""
    names: Collection[str] = {row["file"] for row in rows} | {model.FILE}
    if not output.is_dir() or {path.name for path in output.iterdir()} != names:
        return False
    digests: Iterator[bool] = (
        hashlib.sha256((output / row["file"]).read_bytes()).hexdigest() == row["sha256"] for row in rows
    )
    return files.text_of(output / model.FILE) == text and all(digests)


def _put(new: Path, output: Path) -> None:
    if output.exists():
        exchange.exchange(new, output)
    else:
        new.rename(output)
