"""What an overlay may hold: the rules that its content must pass before it is activated, each with a name.

Owns the judgement of paths, types, modes, owners, xattrs and links; what the files say is not looked at, and
nothing is read from a system. The caller passes every path with the directories above it, since only an item
says what the base has in its place. The rules for users keep a named user's overlay from running code as
root; the others keep one that came from elsewhere from doing what nobody would look for.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from apt_ostree.errors import UsageError
from apt_ostree.model import accounts, layout

SCOPES = frozenset({"system", "global", "user"})

#: Rule -> what it demands, in one line.
RULES: Mapping[str, str] = MappingProxyType({
    "bad-path": "paths are plain, relative, printable UTF-8, and no name is a marker of overlayfs or ostree",
    "outside-scope": "every path lies below /usr or /etc, and none in /usr/etc",
    "device-node": "only files, symlinks, directories and whiteouts: no devices, sockets or pipes",
    "type-change": "a directory stays a directory, nothing else becomes one; only directories hold paths",
    "duplicate": "every path is there once",
    "protected": "accounts, kernel and package databases stay; libc, shell and systemd do, or are replaced",
    "recovery": "apt-ostree, ostree, what they run, their units and settings stay: they undo an overlay",
    "lockout": "what booting and logging in need stays: PAM's common files, sudoers, systemd's main units",
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

#: What no policy switches off: a breach could not be undone, would show something else than was checked, or
#: give a user more than is the point of that scope.
UNCONDITIONAL = frozenset({
    "bad-path", "outside-scope", "device-node", "type-change", "duplicate", "protected", "marker-xattr",
    "user-adds-only", "user-etc", "user-privilege", "user-root-code",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Item:
    """A path of an overlay, and what the tree below has in its place.

    path: relative to the root, without a leading slash; type: file, symlink, directory, whiteout (removes the
    base's path) or other; mode: permission bits with setuid, setgid and sticky; size: in bytes; target: of a
    symlink; xattrs: their names; base: absent, file, symlink or directory; base_mode: its permission bits;
    base_uid, base_gid: its owner, or -1 where nobody asked.
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
        """Tell whether the item is a directory of the base, which is there for what is below."""
        return self.type == self.base == "directory"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one overlay may hold: paths, bytes of files, names in a path."""

    max_files: int = 100_000
    max_bytes: int = 4 * 2**30
    max_depth: int = 64


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that a path breaks. path: fit to be printed; empty for the overlay as a whole."""

    path: str
    rule: str
    message: str


Breaches = Iterator[tuple[str, str]]  # rule, message

_NAME_MAX, _PATH_MAX, _TARGET_MAX = 255, 4096, 4095
#: Control characters, and what stands for bytes that are not UTF-8.
_unfit = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]").search
_DIRECTORY = ("directory", "whiteout")  # what may stand where the base has a directory
_MARKERS = (".wh.", ".ostree-wh.")
_MARKER_XATTRS = ("trusted.overlay.", "user.overlay.", "user.ostreemeta")
_HARMLESS_XATTRS = ("security.selinux", "security.ima")

_TRIPLET = r"[a-z0-9_]+-linux-(?:gnu|musl)[a-z0-9_]*"
_LIBS = rf"usr/lib(?:32|64|x32)?(?:/{_TRIPLET})?"
_UNIT_DIRS = r"(?:usr/(?:local/)?lib|etc)/systemd/(?:system|user)"


def _any(*patterns: str) -> Callable[[str], re.Match[str] | None]:
    """Return what matches whole paths with one of some patterns."""
    return re.compile(r"(?:" + r"|".join(patterns) + r")\Z", re.DOTALL).match


#: Directories that stay, and stay what they are.
_main_directory = _any(
    r"usr", r"etc", r"usr/s?bin", _LIBS, r"usr/libexec", r"usr/share", r"usr/share/(?:dbus-1|polkit-1)",
    r"usr/lib/(?:systemd(?:/system)?|udev|dbus-1\.0|dpkg|apt|python3|tmpfiles\.d|sysusers\.d)",
    r"usr/lib/python3/dist-packages", rf"usr/lib/{_TRIPLET}/(?:systemd|security)",
)  # fmt: skip
#: No overlay changes these or adds to them: the kernel's modules, the databases of packages, what boots, what
#: the image ships for apt-ostree; accounts, which programs write; the machine's identity. fstab is allowed.
_closed = _any(
    rf"(?:{layout.KERNEL_MODULES}|{layout.SYSIMAGE}|usr/lib/ostree[^/]*|usr/lib/apt-ostree|etc/ostree)(?:/.*)?",
    rf"etc/(?:{'|'.join((*accounts.FILES, *accounts.SUBORDINATE_IDS))})(?:[-+]|\.lock)?(?:/.*)?",
    r"etc/(?:machine-id|\.updated|\.pwd\.lock|security/opasswd)(?:/.*)?|usr/\.updated",
)
_essential_program = _any(
    r"usr/bin/(?:sh|dash|bash)", r"usr/sbin/init", r"usr/lib/systemd/systemd(?:-executor)?",
    rf"{_LIBS}/ld(?:-[^/]*)?\.so(?:\.[^/]*)?",
)  # fmt: skip
#: What PID 1 and the shell are linked with. Version numbers after the soname count, too: what is removed
#: there leaves a link that dangles.
_essential_library = _any(
    rf"{_LIBS}/lib(?:c|m|crypt|pam|systemd|selinux|cap|mount|blkid)\.so\.\d+(?:\.\d+)*",
    rf"{_LIBS}/libc-[\d.]+\.so",
    rf"usr/lib/(?:{_TRIPLET}/)?systemd/libsystemd-(?:core|shared)-[^/]+\.so",
)  # fmt: skip
_of_recovery = _any(
    r"usr/(?:local/)?s?bin/(?:(?:apt-)?ostree|python3(?:\.\d+)?|dpkg(?:-query|-divert|-deb)?|ldconfig|systemctl"
    r"|systemd-(?:run|sysusers|tmpfiles))", r"usr/lib/python3[^/]*",
    rf"{_LIBS}/libostree-1\.so[^/]*",
    r"usr/(?:local/)?lib/python3[^/]*/(?:dist|site)-packages/apt_ostree(?:\.py|/.*)?",
    rf"{_UNIT_DIRS}/(?:[^/]+\.(?:wants|requires)/)?(?:apt-ostree|ostree-)[^/]*(?:/.*)?",
    r"usr/lib/systemd/system-generators/(?:apt-)?ostree[^/]*",
    r"(?:usr/share|etc)/(?:dbus-1/[^/]+|polkit-1/actions)/org\.debian\.AptOstree[^/]*",
    r"etc/apt-ostree(?:/apt-ostree\.conf(?:\.d(?:/.*)?)?)?",
)  # fmt: skip
_needed_to_log_in = _any(
    r"etc/pam\.d(?:/(?:common-(?:auth|account|password|session|session-noninteractive)|other|login))?",
    r"etc/(?:nsswitch\.conf|sudoers|security|systemd|systemd/system|ssh|ssh/sshd_config)",
    r"(?:etc|usr/lib)/systemd/system/(?:(?:sysinit|basic|multi-user|default|local-fs|sockets)\.target"
    r"|(?:dbus|systemd-journald|systemd-logind|systemd-udevd)\.(?:service|socket))",
)  # fmt: skip
_code = _any(r"usr/(?:local/)?(?:s?bin|games|libexec|lib(?:32|64|x32)?)/.*")
_hidden_program = _any(r"usr/(?:local/)?(?:s?bin|games)/\.[^/]*")
_preloaded = _any(
    r"etc/ld\.so\.preload", r"etc/perl/sitecustomize\.pl",
    r"(?:usr/(?:local/)?lib|etc)/python3[^/]*/(?:(?:dist|site)-packages/)?(?:site|user)customize(?:\.py|/.*)",
    rf"(?:usr/local/lib|{_LIBS})/glibc-hwcaps/.*/(?:ld-[^/]*\.so[^/]*|lib(?:c|m|crypt|pam)\.so[^/]*)",
)  # fmt: skip
_secret = _any(r"(?:usr/)?etc/g?shadow-?", r"etc/ssh/ssh_host_[^/]*_key", r"etc/krb5\.keytab")
_closed_to_others = _any(
    r"etc/ssl/private/.*", r"etc/ssh/ssh_host_[^/]*_key", r"etc/krb5\.keytab", r"etc/wireguard/[^/]*\.conf",
    r"etc/NetworkManager/system-connections/.*",
)  # fmt: skip

#: Where symlinks lead: the tree, state and run time data of services (/var, /run), and what an administrator
#: keeps (/opt, /srv). Not /home, /root, /tmp, where somebody else decides what is found.
_link_target = _any(
    r"(?:usr|etc|var|run|opt|srv)(?:/.*)?", r"dev/(?:null|stdout|stderr)",
    r"proc/(?:(?:self/)?(?:mounts|mountinfo|fd/[12])|net/pnp)",
)  # fmt: skip
_link_trap = _any(r"(?:var/(?:tmp|lock|crash|home|roothome|mnt)|(?:var/)?run/(?:lock|user|media))(?:/.*)?")
_MERGED = frozenset({"bin", "sbin", "lib", "lib32", "lib64", "libx32"})

#: What root runs, loads or trusts without asking for it by name. Programs of a user belong into /usr/bin, the
#: last directory of root's PATH: there they hide no other.
_run_by_root = _any(
    r"usr/(?:sbin|local/s?bin|local/etc|local/lib)(?:/.*)?", r"usr/local(?:/share)?",
    r"usr/lib/(?:systemd|udev|pam\.d|security|sudo|dpkg|apt|dracut|kernel|NetworkManager|cron|initramfs-tools|lsb"
    r"|netplan|girepository-1\.0|polkit-1|policykit-1|dbus-1\.0|sasl2|firmware|openssh|git-core|needrestart|bootc"
    r"|locale|ssl|[^/]+\.d)(?:/.*)?",
    rf"usr/lib/{_TRIPLET}/(?:security|systemd|gconv|sasl2|gio|perl[^/]*|polkit-1|udisks2|NetworkManager|engines[^/]*"
    r"|ossl-modules|girepository-1\.0|krb5|pkcs11|audit)(?:/.*)?",
    rf"{_LIBS}/(?:[^/]*\.so(?:\.[^/]*)?|glibc-hwcaps(?:/.*)?)", r"usr/lib/python3[^/]*/(?!dist-packages/).*",
    r"usr/lib/python3/dist-packages/(?:[^/]*\.pth|(?:site|user)customize(?:[./].*)?)",
    r"usr/share/(?:dbus-1|polkit-1|pam|pam-configs|initramfs-tools|bug|apport|ucf|debconf|keyrings|ca-certificates"
    r"|factory|bash-completion|update-notifier|usb_modeswitch|perl[^/]*|python3|user-tmpfiles\.d|p11-kit"
    r"|containers|bootc|sudo|apparmor[^/]*|wireplumber|openssh)(?:/.*)?",
    r"usr/(?:local/)?share/(?:zsh/(?:site-functions|vendor-[^/]+)|fish/vendor_[^/]+|keyrings|perl|ca-certificates"
    r"|dbus-1|polkit-1)(?:/.*)?",
)  # fmt: skip


def check(
    items: Iterable[Item], *, scope: str = "system", allowed: Collection[str] = (), limits: Limits = Limits()
) -> tuple[Violation, ...]:
    """Return what an overlay's content breaks, by path and rule; empty when it may be activated.

    allowed: rules that do not count, unless they are UNCONDITIONAL. Reading ends with the first item beyond
    `limits.max_files`. Takes time in proportion to the items.
    """
    if scope not in SCOPES:
        raise UsageError(f"{scope!r} is no scope of an overlay", hint=f"one of {', '.join(sorted(SCOPES))}")
    if unknown := ", ".join(map(repr, sorted(set(allowed) - RULES.keys()))):
        raise UsageError(f"no rule about overlays is named {unknown}", hint=f"there are {', '.join(RULES)}")
    off = frozenset(allowed) - UNCONDITIONAL
    judges = _JUDGES if scope != "user" else (*_JUDGES, _judge_for_user)
    found: list[tuple[str, str, str]] = []
    kinds: dict[str, str] = {}
    links: dict[str, str] = {}
    size = 0
    for count, item in enumerate(items, 1):
        if count > limits.max_files and "too-many" not in off:
            found.append(("", "too-many", f"holds more than {limits.max_files} paths"))
            break
        if item.type == "file":
            size += max(item.size, 0)
        path = item.path
        if fault := _path_fault(path):
            found.append((path, "bad-path", fault))
            continue
        if path in kinds:
            found.append((path, "duplicate", "is there more than once"))
        if kinds.get(path, "directory") == "directory":
            kinds[path] = item.type
        if path.count("/") >= limits.max_depth:
            found.append((path, "too-deep", f"has more than {limits.max_depth} names"))
        if item.type == "symlink":
            links[path] = _resolved(path, item.target) or ""
        for judge in judges:
            found += [(path, rule, message) for rule, message in judge(item)]
    if size > limits.max_bytes:
        found.append(("", "too-large", f"holds {size} bytes, more than {limits.max_bytes}"))
    found += ((path, "type-change", "has paths below it and is no directory") for path in _no_parents(kinds))
    found += ((path, "link-loop", "leads back to itself") for path in _loops(links))
    told = {(_printable(path), rule, message) for path, rule, message in found if rule not in off}
    return tuple(Violation(*breach) for breach in sorted(told))


def _printable(text: str) -> str:
    """Return a text with escapes for what a terminal must not get, and a limit to its length."""
    if len(text) > _PATH_MAX:
        text = f"{text[:200]}..."
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _path_fault(path: str) -> str:
    """Tell what makes a path unfit for every rule, or return an empty text."""
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
    """Return where a symlink leads, by its text, without a leading slash; None for above the root.

    The kernel stops at the root. Whatever reads an overlay where it is stored goes on.
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
    """Return what has paths below it and is no directory."""
    wrong: set[str] = set()
    known: set[str] = set()
    for path in kinds:
        above = path.rpartition("/")[0]
        while above and above not in known:
            known.add(above)
            if kinds.get(above, "directory") != "directory":
                wrong.add(above)
            above = above.rpartition("/")[0]
    return wrong


def _loops(links: Mapping[str, str]) -> Iterator[str]:
    """Yield the symlinks that are part of a circle."""
    done: set[str] = set()
    for start in links:
        way: dict[str, None] = {}
        at = start
        while at in links and at not in done and at not in way:
            way[at] = None
            at = links[at]
        if at in way:
            passed = list(way)
            yield from passed[passed.index(at) :]
        done.update(way)


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
    if kind != "directory" and _main_directory(path):
        yield "protected", "removes or replaces a main directory of the system"
    elif _closed(path) and not (item.kept_directory and item.mode == item.base_mode):
        yield "protected", "belongs to what no overlay changes"
    elif (_essential_program(path) or _essential_library(path)) and (fault := _fault_of_essential(item)):
        yield "protected", f"{fault} what the system cannot run without"
    if kind != "directory" and _of_recovery(path):
        yield "recovery", "changes what takes overlays away again"
    if _is_gone(item) and _needed_to_log_in(path):
        yield "lockout", "removes, empties or masks what logging in needs"


def _is_gone(item: Item) -> bool:
    """Tell whether an item leaves nothing in its place: an empty file masks as a link to /dev/null does."""
    if item.type == "symlink":
        return _resolved(item.path, item.target) == "dev/null"
    return item.type == "whiteout" or (item.type == "file" and item.size <= 0)


def _fault_of_essential(item: Item) -> str:
    if item.type == "directory":
        return "puts a directory in the place of"
    if _is_gone(item):
        return "removes or empties"
    if item.type == "symlink":  # /bin/sh is a link itself, so that a link to it may lead in a circle
        leads_to = _resolved(item.path, item.target) or ""
        is_good = leads_to.startswith(("usr/", "etc/")) and leads_to not in (item.path, "usr/bin/sh")
        return "" if is_good else "is a link to elsewhere in the place of"
    needed = 0o555 if _essential_program(item.path) else 0o444
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
    if by_others and (_code(path) if is_file else _main_directory(path)):
        yield "writable-code", f"can be changed by others than root (owner {item.uid}:{item.gid}, {shown})"
    if is_file and mode & 0o6000:
        yield from _judge_setuid(item)
    if is_file and mode & 0o007 and _closed_to_others(path):
        yield "exposed-secret", f"holds a secret and is open to other users ({shown})"
    if item.kept_directory and item.base_mode & ~mode & 0o555 and _main_directory(path):
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
    if leads_to is None or not _link_target(leads_to):
        yield "link-escape", f"leads out of the system's directories ({_printable(target)})"
    elif _link_trap(leads_to):
        yield "link-escape", f"leads where other users may write ({_printable(target)})"
    elif _secret(leads_to):
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
    elif item.type in ("file", "symlink") and _hidden_program(path) and (item.mode & 0o111):
        yield "misleading-name", "is a hidden program"
    if item.type in ("file", "symlink") and _preloaded(path):
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
    if item.type not in _DIRECTORY and _run_by_root(item.path):
        yield "user-root-code", "would be run or trusted by root"


_JUDGES = (
    _judge_place, _judge_protected, _judge_permissions, _judge_owner, _judge_xattrs, _judge_link, _judge_name,
)  # fmt: skip
