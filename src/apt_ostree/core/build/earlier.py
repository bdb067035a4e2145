"""What scripts of packages made in a deployment whose packages are installed again, on another tree.

There the scripts run again. They have to see what they made before, or they would make other keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from apt_ostree.core.state.inventory import layered_packages, owners
from apt_ostree.core.transaction import Transaction
from apt_ostree.model import accounts, etc_delta, layout, seeds
from apt_ostree.model.filestate import ABSENT
from apt_ostree.model.seeds import Seed
from apt_ostree.model.treediff import Kind, flatten
from apt_ostree.system.ostree import diff
from apt_ostree.system.ostree.repo import Repo

#: Where scripts leave what later scripts look at, relative to /usr.
_HELPERS = ("lib/sysimage/systemd/", "lib/sysimage/ucf/cache/")
#: Lists of it, with a line for each path, which comes last: of dpkg-statoverride(1) and ucf(1).
_LISTS = (
    f"{layout.DPKG_ADMINDIR}/statoverride",
    *(f"{layout.SYSIMAGE}/ucf/{name}" for name in ("hashfile", "registry")),
)


@dataclass(frozen=True, slots=True)
class Earlier:
    """An earlier deployment.

    directory: where it is.
    files: files below its /usr that scripts made, relative to the root.
    seeds: what it gives to /var.
    names: the accounts in its /usr/etc.
    configured: name -> paragraphs of its packages, as dpkg has them after a removal.
    lines: path of a list -> lines of it that its base has not.
    """

    directory: Path
    files: tuple[str, ...]
    seeds: dict[str, Seed]
    names: frozenset[str]
    configured: dict[str, str]
    lines: dict[str, list[str]]


def read(tx: Transaction, start: str) -> Earlier | None:
    """Return the deployment that is replaced, or None if its own tree is what the build starts from."""
    merge = tx.merge_deployment
    if merge.checksum == start:
        return None
    directory = tx.sysroot.directory(merge).resolve()
    manifest = directory / layout.SEEDS
    etc = (directory / "usr/etc" / name for name in accounts.FILES)
    return Earlier(
        directory,
        tuple(f"usr/{path}" for path in _made_by_scripts(tx, merge.checksum, _HELPERS)),
        seeds.parse(manifest.read_text()) if manifest.exists() else {},
        frozenset(name for path in etc if path.exists() for name in accounts.names(path.read_text())),
        configured(tx.sysroot.repo, merge.checksum),
        {path: _own_lines(tx.sysroot.repo, merge.checksum, path) for path in _LISTS},
    )


def configured(repo: Repo, commit: str) -> dict[str, str]:
    """Return name -> paragraphs of the packages of a commit, as dpkg has them after a removal."""
    from apt_ostree.system.apt import status

    return status.as_removed(_content(repo, commit, f"{layout.DPKG_ADMINDIR}/status"))


def _own_lines(repo: Repo, commit: str, path: str) -> list[str]:
    """Return the lines of a list in a commit that its base has not."""
    own, of_base = (_content(repo, tree, path).splitlines() for tree in (commit, repo.base_of(commit)))
    return [line.decode(errors="surrogateescape") for line in own if line not in of_base]


def _content(repo: Repo, commit: str, path: str) -> bytes:
    """Return the content of a file of a commit; a link that a script left there is not followed."""
    file = diff.file_of(repo, commit, path)
    state = repo.file_state(file) if file else ABSENT
    return state.content if state.type == "file" else b""


def made_in_etc(tx: Transaction, commit: str) -> tuple[str, ...]:
    """Return the paths below /etc that scripts made in a commit's /usr/etc and that no package ships.

    An older apt-ostree had them there, such as keys. They are the machine's.
    """
    paths = (path.removeprefix("etc/") for path in _made_by_scripts(tx, commit, "etc/"))
    return tuple(path for path in paths if etc_delta.is_scripts(path))


def _made_by_scripts(tx: Transaction, commit: str, top: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return the files below `top` that a commit has and its base has not, and that no package ships."""
    repo = tx.sysroot.repo
    added = [
        change.path
        for change in flatten(diff.diff_commits(repo, repo.base_of(commit), commit))
        if change.kind is Kind.ADDED and not change.is_dir and change.path.startswith(top)
    ]
    names = [(package.name, package.architecture) for package in layered_packages(repo, commit)]
    shipped = owners(repo, commit, names, frozenset(f"/{path}" for path in added))
    return tuple(path for path in added if f"/{path}" not in shipped)
