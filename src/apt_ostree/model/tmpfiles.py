"""tmpfiles.d(5) lines that create the directories of /var at boot.

Pure rules and text; `core.build.finish` reads the directories.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from apt_ostree.model import layout

_HEADER = "# State that the packages of this tree start from. Written by apt-ostree; not to be edited.\n"

#: Paths (with all below them) without a line: scratch space, keys of programs, and state that belongs to the
#: tree or the host.
SKIPPED = (
    *layout.SYSIMAGE_LINKS,
    "var/lib/apt-ostree",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed",
    "var/lock",
    "var/run",
    "var/tmp",
)
#: Paths below which only directories get a line: the files are caches.
ONLY_DIRECTORIES = (
    "var/backups",
    "var/cache",
    "var/lib/apt/lists",
    "var/lib/systemd/catalog",
    "var/lib/systemd/deb-systemd-helper-enabled",
    "var/log",
)
#: Directory -> (user, group), where the owner in the build depends on whether apt could drop its privileges.
OWNERS = {
    "var/cache/apt/archives/partial": ("_apt", "root"),
    "var/lib/apt/lists/partial": ("_apt", "root"),
}
#: Suffixes of backup and lock files that scripts of packages leave.
LEFTOVER_ENDINGS = (".dpkg-old", ".dpkg-new", ".dpkg-tmp", ".old", "-old", "~", ".lock")


#: In a path: a specifier, a pattern, quotes, or an escape that we do not write.
_VARIES = re.compile(r"""%[^%]|[*?\["']|\\(?!x[0-9a-f]{2})""")


class Treatment(Enum):
    """How a path of the build's /var is handled."""

    SKIP = "skip"
    DIRECTORIES = "directories"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line; None is a field that is not set.

    path: absolute and unescaped.
    mode: octal; with a colon before it, like user and group, it is applied only to what the line creates.
    user, group: names.
    """

    type: str
    path: str
    mode: str | None = None
    user: str | None = None
    group: str | None = None
    argument: str | None = None


def treatment(path: str) -> Treatment:
    """Return how a path relative to the root (`var/...`) is handled."""
    if _below(path, SKIPPED):
        return Treatment.SKIP
    is_cache = _below(path, ONLY_DIRECTORIES) and not _below(path, (layout.ANSWERS,))
    if is_cache or path.endswith(LEFTOVER_ENDINGS):
        return Treatment.DIRECTORIES
    return Treatment.KEEP


def line(entry: Entry) -> str:
    """Return an entry as a line of tmpfiles.d(5); the age field is always `-`."""
    fields = [entry.type, _escape(entry.path), entry.mode, entry.user, entry.group]
    text = " ".join(field or "-" for field in fields)
    return f"{text} - {_escape(entry.argument)}" if entry.argument else f"{text} -"


def merge(old: str, entries: Iterable[Entry], *, gone: Callable[[str], bool] = lambda _path: False) -> str:
    """Return the text of our file with `entries` added; a new line replaces the old one for its path.

    gone: whether an absolute path of an old line no longer exists, so that the line is left out.
    """
    old_lines = [text for text in old.splitlines() if text and not text.startswith("#")]
    lines = {_path_field(text): text for text in old_lines if not gone(_unescape(_path_field(text)))}
    lines |= {_escape(entry.path): line(entry) for entry in entries}
    return _HEADER + "".join(f"{lines[path]}\n" for path in sorted(lines))


def entries(text: str) -> list[Entry]:
    """Return the lines of tmpfiles.d text whose path has no specifier, pattern or quotes."""
    found = []
    for text_line in text.splitlines():
        fields = text_line.split(maxsplit=6)
        if len(fields) >= 2 and not fields[0].startswith("#") and not _VARIES.search(fields[1]):
            mode, user, group, _age, argument = (*fields[2:], *[""] * 5)[:5]
            path = _unescape(fields[1]).rstrip("/")
            found.append(Entry(fields[0], path, mode, user, group, _unescape(argument) or None))
    return found


def described(text: str) -> frozenset[str]:
    """Return the absolute paths that tmpfiles.d text creates, except for specifiers and patterns."""
    paths = set()
    for text_line in text.splitlines():
        fields = text_line.split()
        if len(fields) >= 2 and fields[0][0] in "dDvqQLCfFp" and not set("%*?[\\\"'") & set(fields[1]):
            paths.add(fields[1].rstrip("/"))
    return frozenset(paths)


def copied(text: str) -> frozenset[str]:
    """Return the paths, relative to the root, of a text of ours that also describes files; else none.

    An older apt-ostree described all state by tmpfiles.d lines. Seeds replace them (model.seeds).
    """
    rows = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    if not any(row[0] == "C" for row in rows):
        return frozenset()
    return frozenset(_unescape(row[1]).removeprefix("/") for row in rows)


def layout_text() -> str:
    """Return the text of the file that creates the targets of a tree's symlinks, and the symlinks into it."""
    entries = [
        Entry("d", path, f":{mode:04o}", ":root", ":root") for path, mode in layout.STATE_DIRECTORIES.items()
    ]
    parents = {parent for path in layout.SYSIMAGE_LINKS for parent in _parents(path)}
    entries += [Entry("d", f"/{parent}", ":0755", ":root", ":root") for parent in sorted(parents)]
    for path, target in layout.SYSIMAGE_LINKS.items():
        entries.append(Entry("L+", f"/{path}", argument=relative_link(path, target)))
    header = "# Where state lives, and links to the state that belongs to /usr. Written by apt-ostree.\n"
    return header + "".join(f"{line(entry)}\n" for entry in sorted(entries, key=lambda entry: entry.path))


def relative_link(path: str, target: str) -> str:
    """Return the target of a relative symlink at `path` to `target`, both relative to the root."""
    return "../" * path.count("/") + target


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(2, len(parts))]


def _below(path: str, places: Iterable[str]) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in places)


def _path_field(text: str) -> str:
    return text.split()[1]


def _escape(text: str) -> str:
    escaped = text.replace("\\", "\\x5c").replace("%", "%%").replace('"', "\\x22").replace("'", "\\x27")
    return escaped.replace(" ", "\\x20").replace("\t", "\\x09").replace("\n", "\\x0a")


def _unescape(field: str) -> str:
    plain = re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), field)
    return plain.replace("%%", "%")
