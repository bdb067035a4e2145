"""The rules for the content of an overlay, each with a name. They are checked before it is activated.

The rules check paths, types, modes, owners, xattrs and symlinks, but not the contents of files; nothing is
read from the system. The caller passes every path with its parent directories, each with the state of the
base. The rules for users prevent a named user's overlay from running code as root; the others detect
malicious overlays from other sources.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from apt_ostree.errors import UsageError
from apt_ostree.model import overlay_paths

SCOPES = frozenset({"system", "global", "user"})

#: Rule -> description.
RULES: Mapping[str, str] = MappingProxyType({
    "bad-path": "paths are plain, relative, printable UTF-8, and no name is a marker of overlayfs or ostree",
    "outside-scope": "every path lies below /usr or /etc, and none in /usr/etc",
    "device-node": "only files, symlinks, directories and whiteouts: no devices, sockets or pipes",
    "type-change": "a directory stays a directory, nothing else becomes one; only directories hold paths",
    "duplicate": "every path is there once",
    "protected": "accounts, kernel and package databases stay; libc, shell and systemd do, or are replaced",
    "recovery": "apt-ostree, ostree, what they run, their units and settings stay: they undo an overlay",
    "lockout": "what booting and logging in need stays: PAM's common files, sudoers, systemd's main units",
    "privileged-code": "libc, shells, systemd, setuid programs and the files of PAM, sudo and NSS stay",
    "closed-directory": "the main directories stay open to all users",
    "world-writable": "no file is writable by everybody, and no directory without the sticky bit",
    "writable-code": "programs and libraries in /usr can be changed by root only",
    "owner": "owners and groups are root, those of the base or system accounts (below 1000)",
    "setuid": "no file is setuid or setgid which the base has not with the same bits and owner",
    "privileged-xattr": "no capabilities, no trusted.*, no security.* but SELinux labels and IMA signatures",
    "marker-xattr": "no extended attributes by which overlayfs or ostree replace what a path shows",
    "acl": "no access control lists, which grant more than the mode shows",
    "link-escape": "symlinks point into /usr, /etc, /var, /run, /opt or /srv, not where users may write",
    "link-loop": "symlinks do not point at each other in a circle",
    "bad-target": "the target of a symlink is printable UTF-8, not empty and not too long",
    "secret-link": "no symlink gives another name to the passwords or the host's keys",
    "exposed-secret": "private keys and stored passwords are closed to other users",
    "preload": "no file is one that is loaded into every program or every Python or Perl program",
    "misleading-name": "no name hides: invisible characters, blanks at an end, only dots, a leading dash",
    "user-adds-only": "a user's overlay replaces and removes nothing",
    "user-etc": "a user's overlay holds nothing in /etc",
    "user-privilege": "a user's overlay belongs to root, without setuid, setgid or capabilities",
    "user-root-code": "a user's overlay holds nothing that root runs or trusts: units, rules, libraries",
    "too-many": "there are not too many paths",
    "too-large": "the files are not too large together",
    "too-deep": "no path has too many directories above it",
})  # fmt: skip

#: Rules that cannot be switched off: a violation could not be undone, would change the result of the checks,
#: or would exceed the privileges of a user's overlay.
UNCONDITIONAL = frozenset({
    "bad-path", "outside-scope", "device-node", "type-change", "duplicate", "protected", "marker-xattr",
    "user-adds-only", "user-etc", "user-privilege", "user-root-code",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Item:
    """A path of an overlay, with the base's path of that name.

    path: relative to the root, without a leading slash.
    type: file, symlink, directory, whiteout (hides the base's path) or other.
    mode: permission bits with setuid, setgid and sticky.
    size: in bytes.
    target: of a symlink.
    xattrs: names of extended attributes.
    base: type of the base's path: absent, file, symlink or directory.
    base_mode: its permission bits.
    base_uid, base_gid: its owner, or -1 if unknown.
    """

    path: str
    type: str
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    target: str = ""
    xattrs: tuple[str, ...] = ()
    base: str = "absent"
    base_mode: int = 0
    base_uid: int = -1
    base_gid: int = -1

    @property
    def kept_directory(self) -> bool:
        """Return whether the item is a directory that the base has, too."""
        return self.type == self.base == "directory"


@dataclass(frozen=True, slots=True)
class Limits:
    """The maximum size of one overlay.

    max_files: number of paths.
    max_bytes: total size of files.
    max_depth: number of names in a path.
    """

    max_files: int = 100_000
    max_bytes: int = 4 * 2**30
    max_depth: int = 64


@dataclass(frozen=True, slots=True)
class Violation:
    """A violation of a rule.

    path: escaped for printing; empty for the overlay as a whole.
    """

    path: str
    rule: str
    message: str


Breaches = Iterator[tuple[str, str]]  # rule, message

_NAME_MAX, _PATH_MAX, _TARGET_MAX = 255, 4096, 4095
#: Control characters, and surrogates for bytes that are not UTF-8.
_unfit = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]").search
_DIRECTORY = ("directory", "whiteout")  # types that are permitted where the base has a directory
_MARKERS = (".wh.", ".ostree-wh.")
_MARKER_XATTRS = ("trusted.overlay.", "user.overlay.", "user.ostreemeta")
_HARMLESS_XATTRS = ("security.selinux", "security.ima")

_MERGED = frozenset({"bin", "sbin", "lib", "lib32", "lib64", "libx32"})


def check(
    items: Iterable[Item], *, scope: str = "system", allowed: Collection[str] = (), limits: Limits = Limits()
) -> tuple[Violation, ...]:
    """Return the violations of an overlay's content in linear time, sorted; UsageError for an unknown rule.

    items: read up to the first one beyond `limits.max_files`.
    scope: of the overlay.
    allowed: rules that are switched off, unless they are UNCONDITIONAL.
    """
    if scope not in SCOPES:
        raise UsageError(f"{scope!r} is no scope of an overlay", hint=f"one of {', '.join(sorted(SCOPES))}")
    if unknown_rules := ", ".join(map(repr, sorted(set(allowed) - RULES.keys()))):
        raise UsageError(
            f"no rule about overlays is named {unknown_rules}", hint=f"there are {', '.join(RULES)}"
        )
    off = frozenset(allowed) - UNCONDITIONAL
    judges = _JUDGES if scope != "user" else (*_JUDGES, _judge_for_user)
    breaches: list[tuple[str, str, str]] = []
    kinds: dict[str, str] = {}
    links: dict[str, str] = {}
    size = 0
    for count, item in enumerate(items, 1):
        if count > limits.max_files and "too-many" not in off:
            breaches.append(("", "too-many", f"holds more than {limits.max_files} paths"))
            break
        if item.type == "file":
            size += max(item.size, 0)
        path = item.path
        if fault := _path_fault(path):
            breaches.append((path, "bad-path", fault))
            continue
        if path in kinds:
            breaches.append((path, "duplicate", "is there more than once"))
        if kinds.get(path, "directory") == "directory":
            kinds[path] = item.type
        if path.count("/") >= limits.max_depth:
            breaches.append((path, "too-deep", f"has more than {limits.max_depth} names"))
        if item.type == "symlink":
            links[path] = _resolved(path, item.target) or ""
        for judge in judges:
            breaches += [(path, rule, message) for rule, message in judge(item)]
    if size > limits.max_bytes:
        breaches.append(("", "too-large", f"holds {size} bytes, more than {limits.max_bytes}"))
    breaches += (
        (path, "type-change", "has paths below it and is no directory") for path in _no_parents(kinds)
    )
    breaches += ((path, "link-loop", "leads back to itself") for path in _loops(links))
    counted = {(_printable(path), rule, message) for path, rule, message in breaches if rule not in off}
    return tuple(Violation(*breach) for breach in sorted(counted))


def _printable(text: str) -> str:
    """Return a text with unprintable characters escaped and a limited length."""
    if len(text) > _PATH_MAX:
        text = f"{text[:200]}..."
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _path_fault(path: str) -> str:
    """Return why a path is invalid, or an empty string."""
    if not path:
        return "has no name"
    if path.startswith("/"):
        return "is absolute"
    if _unfit(path):
        return "has control characters or bytes that are not UTF-8 in its name"
    if len(path.encode()) > _PATH_MAX:
        return f"is longer than {_PATH_MAX} bytes"
    for part in path.split("/"):
        if part in ("", ".", ".."):
            return f"has {part!r} for a name in it"
        if part.startswith(_MARKERS):
            return f"has the marker {part.split('wh.')[0]}wh. in it"
        if len(part) * 4 > _NAME_MAX and len(part.encode()) > _NAME_MAX:
            return f"has a name that is longer than {_NAME_MAX} bytes"
    return ""


def _resolved(path: str, target: str) -> str | None:
    """Return the path of a symlink's target without a leading slash, or None if it lies above the root.

    The kernel stops at the root, but a program that reads the overlay in another directory does not.
    """
    parts = [] if target.startswith("/") else path.split("/")[:-1]
    for part in target.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    if parts and parts[0] in _MERGED:
        parts.insert(0, "usr")
    return "/".join(parts)


def _no_parents(kinds: Mapping[str, str]) -> set[str]:
    """Return the paths that are no directories but have paths below them."""
    wrong: set[str] = set()
    checked: set[str] = set()
    for path in kinds:
        above = path.rpartition("/")[0]
        while above and above not in checked:
            checked.add(above)
            if kinds.get(above, "directory") != "directory":
                wrong.add(above)
            above = above.rpartition("/")[0]
    return wrong


def _loops(links: Mapping[str, str]) -> Iterator[str]:
    """Yield the symlinks that are part of a loop."""
    done: set[str] = set()
    for start in links:
        visited: dict[str, None] = {}
        at = start
        while at in links and at not in done and at not in visited:
            visited[at] = None
            at = links[at]
        if at in visited:
            passed = list(visited)
            yield from passed[passed.index(at) :]
        done.update(visited)


def _judge_place(item: Item) -> Breaches:
    path, kind = item.path, item.type
    if kind not in ("file", "symlink", "directory", "whiteout"):
        yield "device-node", "is neither a file, a symlink nor a directory"
    if not path.startswith(("usr/", "etc/")) and (path not in ("usr", "etc") or kind not in _DIRECTORY):
        yield "outside-scope", "lies outside of /usr and /etc"
    elif path == "usr/etc" or path.startswith("usr/etc/"):
        yield "outside-scope", "lies in /usr/etc, whose files are shown in /etc"
    if kind == "directory" and item.base not in ("absent", "directory"):
        yield "type-change", f"is a directory where the base has a {item.base}"
    elif kind not in _DIRECTORY and item.base == "directory":
        yield "type-change", f"is a {kind} where the base has a directory"


def _judge_protected(item: Item) -> Breaches:
    path, kind = item.path, item.type
    if kind != "directory" and overlay_paths.is_main_directory(path):
        yield "protected", "removes or replaces a main directory of the system"
    elif overlay_paths.is_closed(path) and not (item.kept_directory and item.mode == item.base_mode):
        yield "protected", "belongs to what no overlay changes"
    elif (overlay_paths.is_essential_program(path) or overlay_paths.is_essential_library(path)) and (
        fault := _fault_of_essential(item)
    ):
        yield "protected", f"{fault} what the system cannot run without"
    if kind != "directory" and overlay_paths.is_for_recovery(path):
        yield "recovery", "changes what takes overlays away again"
    if _leaves_nothing(item) and overlay_paths.is_needed_to_log_in(path):
        yield "lockout", "removes, empties or masks what logging in needs"
    if not item.kept_directory and _is_privileged_code(item):
        yield "privileged-code", "takes the place of what decides about users' rights"


def _is_privileged_code(item: Item) -> bool:
    """Return whether a path stands for code that runs with root's rights for every user, or grants rights.

    Programs whose setuid and setgid bits go with them may be removed.
    """
    if item.base == "absent":
        return item.type != "whiteout" and bool(overlay_paths.is_privileged_place(item.path))
    return bool(
        overlay_paths.is_essential_program(item.path)
        or overlay_paths.is_essential_library(item.path)
        or overlay_paths.is_privileged_place(item.path)
        or overlay_paths.is_privileged_code(item.path)
        or (item.base == "file" and item.base_mode & 0o6000 and item.type != "whiteout")
    )


def _leaves_nothing(item: Item) -> bool:
    """Return whether an item removes or masks the path: an empty file masks as a link to /dev/null does."""
    if item.type == "symlink":
        return _resolved(item.path, item.target) == "dev/null"
    return item.type == "whiteout" or (item.type == "file" and item.size <= 0)


def _fault_of_essential(item: Item) -> str:
    if item.type == "directory":
        return "puts a directory in the place of"
    if _leaves_nothing(item):
        return "removes or empties"
    if item.type == "symlink":  # /bin/sh is a symlink itself, so that a symlink to it may be a loop
        leads_to = _resolved(item.path, item.target) or ""
        is_good = leads_to.startswith(("usr/", "etc/")) and leads_to not in (item.path, "usr/bin/sh")
        return "" if is_good else "is a link to elsewhere in the place of"
    needed = 0o555 if overlay_paths.is_essential_program(item.path) else 0o444
    return "" if item.mode & needed == needed else "closes to other users"


def _judge_permissions(item: Item) -> Breaches:
    if item.type not in ("file", "directory"):
        return
    path, is_file, mode = item.path, item.type == "file", item.mode & 0o7777
    shown = f"mode {mode:04o}"
    as_base = item.base == item.type and item.base_mode & 0o7777 == mode
    if mode & 0o002 and (is_file or not (mode & 0o1000 or as_base)):
        yield "world-writable", f"is writable by everybody ({shown})"
    of_base = as_base and (item.base_uid, item.base_gid) == (item.uid, item.gid)
    by_others = (item.uid or (item.gid and mode & 0o020)) and not of_base
    if by_others and (overlay_paths.is_code(path) if is_file else overlay_paths.is_main_directory(path)):
        yield "writable-code", f"can be changed by others than root (owner {item.uid}:{item.gid}, {shown})"
    if is_file and mode & 0o6000:
        yield from _judge_setuid(item)
    if is_file and mode & 0o007 and overlay_paths.is_private(path):
        yield "exposed-secret", f"holds a secret and is open to other users ({shown})"
    if item.kept_directory and item.base_mode & ~mode & 0o555 and overlay_paths.is_main_directory(path):
        yield "closed-directory", f"is closed to users who need it ({shown})"


def _judge_setuid(item: Item) -> Breaches:
    bits, name = item.mode & 0o6000, "setuid" if item.mode & 0o4000 else "setgid"
    if item.base != "file" or item.base_mode & 0o6000 != bits:
        yield "setuid", f"is {name}, which the base's file is not (mode {item.mode & 0o7777:04o})"
    other_owner = bits & 0o4000 and item.base_uid not in (-1, item.uid)
    if other_owner or (bits & 0o2000 and item.base_gid not in (-1, item.gid)):
        yield "setuid", f"is {name} for another owner than the base's file ({item.uid}:{item.gid})"


def _judge_owner(item: Item) -> Breaches:
    if item.type == "whiteout":
        return
    for what, number, of_base in (("owner", item.uid, item.base_uid), ("group", item.gid, item.base_gid)):
        if not 0 <= number < 1000 and (number < 0 or number != of_base):
            yield "owner", f"has the {what} {number}, which is no system account"


def _judge_xattrs(item: Item) -> Breaches:
    for name in item.xattrs:
        message = f"has the extended attribute {_printable(name)}"
        if name.startswith(_MARKER_XATTRS):
            yield "marker-xattr", message
        if name.startswith(("trusted.", "security.")) and name not in _HARMLESS_XATTRS:
            yield "privileged-xattr", message
        elif name.startswith("system."):
            yield "acl", message


def _judge_link(item: Item) -> Breaches:
    if item.type != "symlink":
        return
    target = item.target
    if not target or _unfit(target) or len(target.encode()) > _TARGET_MAX:
        yield "bad-target", "has a target that is empty, too long or not plain text"
        return
    leads_to = _resolved(item.path, target)
    if leads_to is None or not overlay_paths.is_link_target(leads_to):
        yield "link-escape", f"leads out of the system's directories ({_printable(target)})"
    elif overlay_paths.is_writable_place(leads_to):
        yield "link-escape", f"leads where other users may write ({_printable(target)})"
    elif overlay_paths.is_secret(leads_to):
        yield "secret-link", f"gives another name to a secret ({_printable(target)})"


def _judge_name(item: Item) -> Breaches:
    path = item.path
    if not path.isascii() and any(unicodedata.category(c) in ("Cf", "Zl", "Zp") for c in path):
        yield "misleading-name", "has invisible characters in its name"
    name = path.rpartition("/")[2]
    if name != name.strip() or not name.strip("."):
        yield "misleading-name", "has a blank at an end of its name, or only dots"
    elif name.startswith("-") and not name.startswith(("-.mount", "-.slice")):
        yield "misleading-name", "has a name that programs take for an option"
    elif item.type in ("file", "symlink") and overlay_paths.is_hidden_program(path) and (item.mode & 0o111):
        yield "misleading-name", "is a hidden program"
    if item.type in ("file", "symlink") and overlay_paths.is_preloaded(path):
        yield "preload", "is loaded into other programs without their asking"


def _judge_for_user(item: Item) -> Breaches:
    if item.type == "whiteout":
        yield "user-adds-only", "removes a path"
    elif item.base != "absent" and not item.kept_directory:
        yield "user-adds-only", f"replaces a {item.base} of the base"
    if item.path == "etc" or item.path.startswith("etc/"):
        yield "user-etc", "lies in /etc"
    if not item.kept_directory:
        if item.uid or item.gid:
            yield "user-privilege", f"belongs to another than root ({item.uid}:{item.gid})"
        if (item.type != "symlink" and item.mode & 0o6000) or "security.capability" in item.xattrs:
            yield "user-privilege", f"is setuid, setgid or has capabilities (mode {item.mode & 0o7777:04o})"
    if item.type not in _DIRECTORY and overlay_paths.is_run_by_root(item.path):
        yield "user-root-code", "would be run or trusted by root"


_JUDGES = (
    _judge_place, _judge_protected, _judge_permissions, _judge_owner, _judge_xattrs, _judge_link, _judge_name,
)  # fmt: skip
