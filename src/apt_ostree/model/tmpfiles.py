"""tmpfiles.d lines: what of a build's /var becomes what at boot (tmpfiles.d(5)).

Pure rules and text; walking a directory is `core.build.finish`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from apt_ostree.model import layout

_HEADER = "# State that the packages of this tree start from. Written by apt-ostree; not to be edited.\n"

#: Paths (with all below them) that no line describes: scratch space, the programs' own keys and state that
#: lives in the tree or on the host.
SKIPPED = (
    *layout.SYSIMAGE_LINKS,
    "var/lib/apt-ostree",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed",
    "var/lock",
    "var/run",
    "var/tmp",
)
#: Paths below which only directories matter: whatever files are there can be made again.
ONLY_DIRECTORIES = (
    "var/backups",
    "var/cache",
    "var/lib/apt/lists",
    "var/lib/systemd/catalog",
    "var/lib/systemd/deb-systemd-helper-enabled",
    "var/log",
)
#: Directories whose owner depends on how the build ran apt: as the user it drops to where that user can
#: reach the build's directory, else as root. User and group.
OWNERS = {
    "var/cache/apt/archives/partial": ("_apt", "root"),
    "var/lib/apt/lists/partial": ("_apt", "root"),
}
#: Endings of files that a package's scripts leave as their own backup or lock.
LEFTOVER_ENDINGS = (".dpkg-old", ".dpkg-new", ".dpkg-tmp", ".old", "-old", "~", ".lock")


class Treatment(Enum):
    """What happens to a path of the build's /var."""

    SKIP = "skip"
    DIRECTORIES = "directories"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: path absolute and unescaped, mode an octal word or None, user and group names or None."""

    type: str
    path: str
    mode: str | None = None
    user: str | None = None
    group: str | None = None
    argument: str | None = None


def treatment(path: str) -> Treatment:
    """Tell what becomes of a path, relative to the root (`var/...`)."""
    if _below(path, SKIPPED):
        return Treatment.SKIP
    if _below(path, ONLY_DIRECTORIES) or path.endswith(LEFTOVER_ENDINGS):
        return Treatment.DIRECTORIES
    return Treatment.KEEP


def line(entry: Entry) -> str:
    """Return an entry as a line of tmpfiles.d(5), without the age field's meaning (always `-`)."""
    words = [entry.type, _escape(entry.path), entry.mode, entry.user, entry.group]
    text = " ".join(word or "-" for word in words)
    return f"{text} - {_escape(entry.argument)}" if entry.argument else f"{text} -"


def merge(old: str, entries: Iterable[Entry]) -> str:
    """Return our file's text with `entries` added; a new line replaces the one for its path."""
    lines = {_path_word(text): text for text in old.splitlines() if text and not text.startswith("#")}
    lines |= {_escape(entry.path): line(entry) for entry in entries}
    return _HEADER + "".join(f"{lines[path]}\n" for path in sorted(lines))


def described(text: str) -> frozenset[str]:
    """Return the absolute paths that tmpfiles.d text makes, without those with specifiers or patterns."""
    found = set()
    for text_line in text.splitlines():
        words = text_line.split()
        if len(words) >= 2 and words[0][0] in "dDvqQLCfFp" and not set("%*?[\\\"'") & set(words[1]):
            found.add(words[1].rstrip("/"))
    return frozenset(found)


def layout_text() -> str:
    """Return the file that makes the places a tree's links lead to, and the links into the tree."""
    entries = [
        Entry("d", path, f"{mode:04o}", "root", "root") for path, mode in layout.STATE_DIRECTORIES.items()
    ]
    parents = {parent for path in layout.SYSIMAGE_LINKS for parent in _parents(path)}
    entries += [Entry("d", f"/{parent}", "0755", "root", "root") for parent in sorted(parents)]
    for path, target in layout.SYSIMAGE_LINKS.items():
        entries.append(Entry("L+", f"/{path}", argument=relative_link(path, target)))
    header = "# Where state lives, and links to the state that belongs to /usr. Written by apt-ostree.\n"
    return header + "".join(f"{line(entry)}\n" for entry in sorted(entries, key=lambda entry: entry.path))


def relative_link(path: str, target: str) -> str:
    """Return the text of a relative link at `path` to `target`, both relative to the root."""
    return "../" * path.count("/") + target


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(2, len(parts))]


def _below(path: str, places: Iterable[str]) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in places)


def _path_word(text: str) -> str:
    return text.split()[1]


def _escape(text: str) -> str:
    escaped = text.replace("\\", "\\x5c").replace("%", "%%").replace('"', "\\x22").replace("'", "\\x27")
    return escaped.replace(" ", "\\x20").replace("\t", "\\x09").replace("\n", "\\x0a")
