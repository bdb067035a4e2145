"""What is read of a commit to make an image of it.

Paths are those of the image: relative, with `etc` in the place of `usr/etc`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from apt_ostree.errors import Refused
from apt_ostree.model import dpkg_lists, image_sources, image_var, layout, spdx
from apt_ostree.model.filestate import FileState
from apt_ostree.model.spdx import Record
from apt_ostree.system.ostree import contents
from apt_ostree.system.ostree.contents import Entry
from apt_ostree.system.ostree.repo import Repo

_SHIPPED_ETC = "usr/etc"
_STATUS = f"{layout.DPKG_ADMINDIR}/status"
_DIVERSIONS = f"{layout.DPKG_ADMINDIR}/diversions"
_INFO = f"{layout.DPKG_ADMINDIR}/info/"
_TMPFILES = "usr/lib/tmpfiles.d/"
_OS_RELEASE = "usr/lib/os-release"
#: What a layer means by a name that begins so: that a path of an earlier layer is gone.
_WHITEOUT = ".wh."


@dataclass(frozen=True, slots=True)
class Tree:
    """The tree of a commit.

    entries: path -> entry, parents first.
    records: the installed packages.
    owned: see image_sources.owners.
    """

    repo: Repo
    entries: Mapping[str, Entry]
    records: tuple[Record, ...]
    owned: Mapping[str, str]

    @property
    def sizes(self) -> dict[str, int]:
        """Path of each file, link and empty directory -> bytes."""
        return {
            path: 0 if entry.is_directory else contents.size_of(self.repo, entry.checksum)
            for path, entry in self.entries.items()
            if entry.is_empty or not entry.is_directory
        }

    @property
    def kernel(self) -> str:
        """The version of the kernel; "" without one."""
        parts = (path.split("/") for path in self.entries if path.startswith(f"{layout.KERNEL_MODULES}/"))
        return next((part[3] for part in parts if part[4:] == ["vmlinuz"]), "")

    @property
    def os_release(self) -> str:
        """The text of os-release(5)."""
        return _content(self.repo, self.entries, _OS_RELEASE).decode(errors="replace")

    @property
    def var(self) -> dict[str, FileState]:
        """The /var that an image of it has, see model.image_var."""
        paths = [path for path in self.entries if path.startswith(_TMPFILES) and path.endswith(".conf")]
        passwd, group = (self._text(f"etc/{name}") for name in ("passwd", "group"))
        return image_var.paths(map(self._text, sorted(paths)), passwd, group)

    def _text(self, path: str) -> str:
        return _content(self.repo, self.entries, path).decode(errors="surrogateescape")

    def source_of(self, path: str) -> str:
        """Return the source package of a path, or ""."""
        return image_sources.source_of(path, self.owned)


def read(repo: Repo, commit: str) -> Tree:
    """Read the tree of a commit; Refused for what no image can hold, and for a tree without packages."""
    in_commit = contents.entries(repo, commit)
    _refuse_unfit(in_commit)
    entries = {_in_image(path): entry for path, entry in in_commit.items()}
    if _STATUS not in entries:
        raise Refused(
            f"the tree of {commit[:12]} has no packages of Debian",
            hint=f"dpkg's database belongs in /{layout.DPKG_ADMINDIR}, as in what 'compose tree' makes",
        )
    from apt_ostree.system.apt import status  # not at the top: only this verb of the module needs libapt

    records = status.records(_content(repo, entries, _STATUS))
    owned = image_sources.owners(
        _lists(repo, entries),
        {record.package.name: record.source for record in records},
        dpkg_lists.diversions(_content(repo, entries, _DIVERSIONS).decode(errors="replace")),
        [path for path in entries if path.startswith(_INFO)],
    )
    return Tree(repo, entries, records, owned)


def _refuse_unfit(entries: Mapping[str, Entry]) -> None:
    if "etc" in entries:
        raise Refused(
            "the tree has /etc, which in an image is the place of /usr/etc",
            hint="'apt-ostree compose postprocess' gives a root filesystem the form of a tree",
        )
    names = [path for path in entries if path.rpartition("/")[2].startswith(_WHITEOUT)]
    if names:
        raise Refused(
            "an image cannot hold files with such names, which mean that other files are gone",
            details=[f"/{path}" for path in names],
        )
    if any(path.startswith(f"{image_var.TOP}/") for path in entries):
        raise Refused(
            "the tree has something in /var, which is the machines'",
            hint="'apt-ostree compose postprocess' gives a root filesystem the form of a tree",
        )
    if spdx.PATH in entries:
        raise Refused(f"the tree has /{spdx.PATH}, where an image lists its packages", hint="leave it out")


def _in_image(path: str) -> str:
    is_etc = path == _SHIPPED_ETC or path.startswith(f"{_SHIPPED_ETC}/")
    return path.removeprefix("usr/") if is_etc else path


def _lists(repo: Repo, entries: Mapping[str, Entry]) -> dict[str, str]:
    paths = [path for path in entries if path.startswith(_INFO) and path.endswith(".list")]
    return {
        path.removeprefix(_INFO).removesuffix(".list"): _content(repo, entries, path).decode(errors="replace")
        for path in paths
    }


def _content(repo: Repo, entries: Mapping[str, Entry], path: str) -> bytes:
    entry = entries.get(path)
    return repo.file_state(entry.checksum).content if entry and not entry.is_directory else b""
