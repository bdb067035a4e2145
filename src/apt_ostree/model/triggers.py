"""Triggers: what has to be run because files in certain directories differ, as dpkg and a boot run it.

Which triggers a change has, and what each concerns, is decided from the changed files; nothing is run here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from apt_ostree.model import layout
from apt_ostree.model.treediff import Kind


class Trigger(StrEnum):
    """What is run, in this order."""

    SYSUSERS = "sysusers"
    SEEDS = "seeds"  # the state that packages start from, see model.seeds
    TMPFILES = "tmpfiles"
    CONFIGURE = "configure"  # packages that each machine configures itself, see model.identities
    LDCONFIG = "ldconfig"
    MODULES = "modules-load"
    SYSCTL = "sysctl"
    BINFMT = "binfmt"
    UDEV = "udev"
    DBUS = "dbus"
    POLKIT = "polkit"
    APPARMOR = "apparmor"
    CATALOG = "catalog"  # of messages, see journalctl(1)
    FONTS = "fontconfig"
    MANUAL = "man-db"  # the index of manual pages, see apropos(1)


#: They change settings of the running kernel, which an undo gives back.
KERNEL = frozenset({Trigger.SYSCTL, Trigger.BINFMT, Trigger.APPARMOR})
#: An undo runs them again: they read files that are as before. What others did is undone by the records of
#: /etc and of the kernel, or stays.
REPEATED = frozenset(
    {
        Trigger.BINFMT,
        Trigger.UDEV,
        Trigger.DBUS,
        Trigger.POLKIT,
        Trigger.APPARMOR,
        Trigger.CATALOG,
        Trigger.FONTS,
        Trigger.MANUAL,
    }
)
#: The unit that does the same at boot. If it is masked, the administrator does not want it.
BOOT_UNITS: Mapping[Trigger, str] = {
    Trigger.MODULES: "systemd-modules-load.service",
    Trigger.SYSCTL: "systemd-sysctl.service",
    Trigger.BINFMT: "systemd-binfmt.service",
    Trigger.APPARMOR: "apparmor.service",
    Trigger.MANUAL: "apt-ostree-man-db.service",
}
#: The program of a trigger, relative to the root, that a package may not have brought.
PROGRAMS: Mapping[Trigger, str] = {
    Trigger.APPARMOR: "usr/sbin/apparmor_parser",
    Trigger.FONTS: "usr/bin/fc-cache",
    Trigger.MANUAL: "usr/bin/mandb",
}

APPARMOR_DIRECTORY = "/etc/apparmor.d"

_PREFIXES: Mapping[Trigger, tuple[str, ...]] = {
    Trigger.SYSUSERS: ("/usr/lib/sysusers.d/",),
    Trigger.SEEDS: (f"/{layout.SEEDS}",),
    Trigger.TMPFILES: ("/usr/lib/tmpfiles.d/",),
    Trigger.CONFIGURE: (f"/{layout.DEFERRED}",),
    Trigger.LDCONFIG: ("/etc/ld.so.conf",),
    Trigger.MODULES: ("/usr/lib/modules-load.d/", "/etc/modules-load.d/"),
    Trigger.SYSCTL: ("/usr/lib/sysctl.d/", "/etc/sysctl.d/", "/etc/sysctl.conf"),
    Trigger.BINFMT: ("/usr/lib/binfmt.d/", "/etc/binfmt.d/"),
    Trigger.UDEV: ("/usr/lib/udev/rules.d/", "/usr/lib/udev/hwdb", "/etc/udev/"),
    Trigger.DBUS: ("/usr/share/dbus-1/", "/etc/dbus-1/"),
    Trigger.POLKIT: ("/usr/share/polkit-1/", "/etc/polkit-1/"),
    Trigger.APPARMOR: (f"{APPARMOR_DIRECTORY}/",),
    Trigger.CATALOG: ("/usr/lib/systemd/catalog/",),
    Trigger.FONTS: ("/usr/share/fonts/", "/usr/share/ghostscript/fonts/", "/etc/fonts/"),
    Trigger.MANUAL: ("/usr/share/man/",),
}
_ALL_PREFIXES = tuple(prefix for prefixes in _PREFIXES.values() for prefix in prefixes)
#: The programs read all their files again; a removed one counts, too.
_REASONS: Mapping[Trigger, str] = {
    Trigger.UDEV: "its rules or its hardware database differ",
    Trigger.DBUS: "its policy or its services differ",
    Trigger.POLKIT: "its actions or rules differ",
    Trigger.CATALOG: "descriptions of messages differ",
    Trigger.FONTS: "fonts differ",
    Trigger.MANUAL: "manual pages differ",
    Trigger.LDCONFIG: "libraries differ",
}
#: Of these, the directories are named: the files are many.
_BY_DIRECTORY = (Trigger.FONTS, Trigger.LDCONFIG, Trigger.MANUAL)
#: These take new and changed files only.
_OF_FILES: Mapping[Trigger, str] = {
    Trigger.SYSUSERS: "users and groups are created",
    Trigger.SEEDS: "packages' state is given to /var",
    Trigger.TMPFILES: "directories outside /usr and /etc are created",
    Trigger.CONFIGURE: "each machine configures packages itself",
}
_LIBRARY = re.compile(r"\.so(\.[^/]*)?$")
_LIBRARIES = ("/usr/lib/", "/usr/lib64/", "/usr/local/lib/")
#: Endings of files that no program reads.
_IGNORED = (".dpkg-new", ".dpkg-old", ".dpkg-dist", ".dpkg-bak", ".dpkg-remove", "~", "README")


@dataclass(frozen=True, slots=True)
class ChangedFile:
    """A file that differs.

    path: absolute.
    before, after: the text of a file that a rule reads (`is_read`), else "".
    """

    path: str
    kind: Kind
    before: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True)
class TriggerStep:
    """One trigger.

    files: the files that are the reason, or the directories of many, absolute.
    names: what the files name: keys of sysctl, modules, binary formats.
    gone: what only removed files named, and profiles of AppArmor that only they defined.
    """

    trigger: Trigger
    reason: str
    files: tuple[str, ...]
    names: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()


def is_read(path: str) -> bool:
    """Return whether a rule reads the text of a changed file."""
    return path.startswith(
        (*_PREFIXES[Trigger.MODULES], *_PREFIXES[Trigger.SYSCTL], *_PREFIXES[Trigger.BINFMT])
    )


def concerned(changed: Iterable[ChangedFile]) -> frozenset[Trigger]:
    """Return the triggers that changed files may have."""
    return frozenset(trigger for file in changed for trigger in _of_path(file.path))


def steps(
    changed: Iterable[ChangedFile],
    *,
    possible: Collection[Trigger] = frozenset(Trigger),
    profiles: Mapping[str, Sequence[str]] | None = None,
) -> tuple[TriggerStep, ...]:
    """Return the triggers of a change, in the order in which they are run.

    possible: the triggers that this system can run.
    profiles: path of a file that is removed -> the AppArmor profiles that it defines.
    """
    of: dict[Trigger, list[ChangedFile]] = {}
    for file in sorted(changed, key=lambda file: file.path):
        for trigger in _of_path(file.path):
            if trigger in possible:
                of.setdefault(trigger, []).append(file)
    made = (_step(trigger, of[trigger], profiles or {}) for trigger in Trigger if trigger in of)
    return tuple(step for step in made if step)


def _of_path(path: str) -> Iterator[Trigger]:
    """Yield the triggers of a path."""
    if path.startswith(_LIBRARIES) and _LIBRARY.search(path):
        yield Trigger.LDCONFIG
    if path.startswith(_ALL_PREFIXES) and not path.endswith(_IGNORED):
        yield from (trigger for trigger, prefixes in _PREFIXES.items() if path.startswith(prefixes))


def _step(
    trigger: Trigger, files: Sequence[ChangedFile], profiles: Mapping[str, Sequence[str]]
) -> TriggerStep | None:
    if trigger in _REASONS:
        paths = (file.path for file in files)
        if trigger in _BY_DIRECTORY:
            paths = (path.rpartition("/")[0] for path in paths)
        return TriggerStep(trigger, _REASONS[trigger], _unique(paths))
    present = tuple(file.path for file in files if file.kind is not Kind.REMOVED)
    if trigger in _OF_FILES:
        return TriggerStep(trigger, _OF_FILES[trigger], present) if present else None
    if trigger is Trigger.MODULES:
        return _modules(files, present)
    if trigger is Trigger.SYSCTL:
        return _sysctl(files)
    if trigger is Trigger.BINFMT:
        return _binfmt(files, present)
    return _apparmor(files, profiles)


# --- kernel modules, sysctl, binary formats


def _modules(files: Sequence[ChangedFile], present: tuple[str, ...]) -> TriggerStep | None:
    modules = _unique(name for file in files for name in _lines(file.after))
    reason = f"loads {', '.join(modules)}; modules stay loaded until the reboot"
    return TriggerStep(Trigger.MODULES, reason, present, modules) if modules else None


def _sysctl(files: Sequence[ChangedFile]) -> TriggerStep | None:
    new, gone = _named(files, keys)
    reason = _reason("sets", map(shown_key, new), "no longer sets", map(shown_key, gone))
    paths = tuple(file.path for file in files)
    return TriggerStep(Trigger.SYSCTL, reason, paths, new, gone) if reason else None


def _binfmt(files: Sequence[ChangedFile], present: tuple[str, ...]) -> TriggerStep | None:
    new, gone = _named(files, formats)
    reason = _reason("registers", new, "removes", gone)
    return TriggerStep(Trigger.BINFMT, reason, present, new, gone) if reason else None


def _named(
    files: Sequence[ChangedFile], read: Callable[[str], tuple[str, ...]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names in the new texts of files, and those only in the old ones."""
    new = _unique(name for file in files for name in read(file.after))
    old = _unique(name for file in files for name in read(file.before))
    return new, tuple(name for name in old if name not in new)


def _reason(does: str, names: Iterable[str], undoes: str, gone: Iterable[str]) -> str:
    rows = ((does, ", ".join(names)), (undoes, ", ".join(gone)))
    return "; ".join(f"{verb} {named}" for verb, named in rows if named)


def shown_key(key: str) -> str:
    """Return a key of `keys` as people write it."""
    return key if "." in key else key.replace("/", ".")


def keys(text: str) -> tuple[str, ...]:
    """Return the keys that the text of a file of sysctl.d(5) sets, as paths below /proc/sys, or patterns."""
    named = (line.partition("=")[0] for line in _lines(text) if "=" in line)
    return _unique(_normalized(name.strip().removeprefix("-").strip()) for name in named)


def _normalized(key: str) -> str:
    """Return a key as a path: if a dot comes first, it separates, and a slash stands for a dot."""
    separator = next((character for character in key if character in "./"), "/")
    return key if separator == "/" else key.translate(str.maketrans("./", "/."))


def formats(text: str) -> tuple[str, ...]:
    """Return the names of the formats that the text of a file of binfmt.d(5) registers."""
    rows = (line.split(line[0]) for line in _lines(text))
    return _unique(row[1] for row in rows if len(row) > 2)


def _lines(text: str) -> Iterable[str]:
    """Yield the lines that are neither empty nor comments."""
    stripped = (line.strip() for line in text.splitlines())
    return (line for line in stripped if line and line[0] not in "#;")


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


# --- AppArmor


def _apparmor(files: Sequence[ChangedFile], profiles: Mapping[str, Sequence[str]]) -> TriggerStep | None:
    """Return the step that loads profiles; all of them if a part changed that any may include."""
    removed = [file.path for file in files if file.kind is Kind.REMOVED and is_profile(file.path)]
    gone = _unique(name for path in removed for name in profiles.get(path, ()))
    owners = [_profile_of(file.path) for file in files if file.path not in removed]
    loaded = (APPARMOR_DIRECTORY,) if None in owners else _unique(path for path in owners if path)
    reason = _reason("loads", ["profiles"] if loaded else [], "unloads", gone)
    return TriggerStep(Trigger.APPARMOR, reason, loaded, gone=gone) if reason else None


def is_profile(path: str) -> bool:
    """Return whether a path is a file that defines AppArmor profiles."""
    return path.rpartition("/")[0] == APPARMOR_DIRECTORY


def _profile_of(path: str) -> str | None:
    """Return the file of profiles to load if `path` changed; None if any file may include it."""
    directory, _, name = path.removeprefix(f"{APPARMOR_DIRECTORY}/").rpartition("/")
    return f"{APPARMOR_DIRECTORY}/{name}" if directory in ("", "local", "disable", "force-complain") else None
