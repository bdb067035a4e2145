"""Parses systemd's unit files (systemd.syntax(7)): settings, differences, and the files that they name.

No library in Debian can parse them: configparser and GKeyFile support neither repeated keys nor resets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath

from apt_ostree.model import layout
from apt_ostree.model.filestate import FileState

#: Directories of unit files; the first one takes precedence (systemd.unit(5)).
DIRECTORIES = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system")

#: The keys of [Service] with commands that `executables` reads.
COMMANDS = ("ExecStart", "ExecStartPre", "ExecStartPost", "ExecReload")

_ENDINGS = (".service", ".socket", ".timer", ".path", ".mount", ".automount", ".swap", ".target", ".slice")
_WHITESPACE = " \t\n\r"
_PREFIXES = "@-:+!|"
_WORD = re.compile(r"""(?:"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|\\.?|[^\s"'\\])+""", re.DOTALL)
_PIECE = re.compile(r"""\"((?:[^"\\]|\\.)*)"?|'((?:[^'\\]|\\.)*)'?|((?:\\.?|[^"'\\])+)""", re.DOTALL)
_ESCAPE = re.compile(r"\\x([0-9a-fA-F]{2})|\\(.)", re.DOTALL)
_ESCAPES = {"s": " ", "n": "\n", "t": "\t"}
_LINKED = ("/bin/", "/sbin/", "/lib/", "/lib64/")
_ETC = re.compile(r"(?:^|^-\w|[=:,\s])(/etc/[^\s,:;]+)")


@dataclass(frozen=True, slots=True)
class UnitFile:
    """The settings of a unit.

    settings: (section, key) -> values in order, after resets.
    """

    settings: Mapping[tuple[str, str], tuple[str, ...]]

    def get(self, section: str, key: str) -> str:
        """Return the last value, which is in effect for a setting with one value, or ""."""
        return self.settings.get((section, key), ("",))[-1]

    def values(self, section: str, key: str) -> tuple[str, ...]:
        """Return the values of a setting with several ones."""
        return self.settings.get((section, key), ())


def parse(texts: Iterable[str]) -> UnitFile:
    """Parse a unit file and its drop-ins, in this order; invalid lines are ignored."""
    settings: dict[tuple[str, str], tuple[str, ...]] = {}
    for text in texts:
        for setting, value in _assignments(text):
            if value:
                settings[setting] = (*settings.get(setting, ()), value)
            else:
                settings.pop(setting, None)
    return UnitFile(settings)


def difference(old: UnitFile, new: UnitFile) -> frozenset[tuple[str, str]]:
    """Return each (section, key) whose values differ, except in [Install]."""
    return frozenset(
        setting
        for setting in old.settings.keys() | new.settings.keys()
        if setting[0] != "Install" and old.settings.get(setting) != new.settings.get(setting)
    )


def template(name: str) -> str:
    """Return the template of an instance, else the name."""
    stem, at, rest = name.partition("@")
    return f"{stem}@.{rest.rpartition('.')[2]}" if at else name


def merged(path: str) -> str:
    """Return a path with the symlinks of the merged /usr resolved: systemd and packages may use either."""
    return f"/usr{path}" if path.startswith(_LINKED) else path


def is_unit_file(path: str) -> bool:
    """Return whether a path has the name of a unit file."""
    return path.endswith(_ENDINGS)


def in_tree(path: str) -> str:
    """Return where a package's path is in the tree; what is below /opt is placed elsewhere (layout.OPT)."""
    for prefix in ("/opt/", "/var/opt/"):
        if path.startswith(prefix):
            return f"/{layout.OPT}/{path.removeprefix(prefix)}"
    return merged(path)


def drop_in_directories(name: str) -> frozenset[str]:
    """Return the names of the directories whose drop-ins apply to a unit (systemd.unit(5))."""
    stem, _, kind = name.rpartition(".")
    parts = stem.split("-")
    prefixes = {f"{'-'.join(parts[:count])}-.{kind}.d" for count in range(1, len(parts))}
    return frozenset({f"{name}.d", f"{template(name)}.d", f"{kind}.d"} | prefixes)


def new_drop_ins(old: Iterable[str], new: Mapping[str, FileState]) -> list[str]:
    """Return the drop-ins in effect after a change, ordered by name: /etc overrides /run, and that /usr.

    old: paths of the drop-ins in effect now.
    new: path -> new state, of each drop-in that changes.
    """
    removed = {path for path, state in new.items() if state.type == "absent"}
    added = [p for p, s in new.items() if p.endswith(".conf") and s.type != "absent"]
    by_name: dict[str, str] = {}
    paths = [path for path in (*old, *added) if path not in removed]
    for path in sorted(paths, key=_precedence, reverse=True):
        by_name[PurePath(path).name] = path
    return [by_name[name] for name in sorted(by_name)]


def _precedence(path: str) -> int:
    return next((i for i, d in enumerate(DIRECTORIES) if path.startswith(d)), len(DIRECTORIES))


def executables(unit: UnitFile, keys: Iterable[str] = COMMANDS) -> tuple[str, ...]:
    """Return the absolute paths in the commands of a service: programs, and scripts as their arguments.

    For arguments in /etc see `configuration`. Specifiers (%i) are not expanded.
    """
    paths = []
    for program, arguments in _commands(unit, keys):
        paths += [program] if program.startswith("/") else []
        paths += [path for path in arguments if path.startswith("/") and not path.startswith("/etc/")]
    return tuple(dict.fromkeys(paths))


def environment_files(unit: UnitFile) -> tuple[str, ...]:
    """Return the absolute paths of EnvironmentFile=, which are read only at a restart."""
    paths = (value.removeprefix("-").strip() for value in unit.values("Service", "EnvironmentFile"))
    return tuple(dict.fromkeys(path for path in paths if path.startswith("/")))


def configuration(unit: UnitFile) -> tuple[str, ...]:
    """Return the configuration files of a service: environment files, and arguments in /etc."""
    files = list(environment_files(unit))
    for _, arguments in _commands(unit, ("ExecStart",)):
        files += [path for argument in arguments for path in _ETC.findall(argument)]
    return tuple(dict.fromkeys(files))


def _assignments(text: str) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield ((section, key), value) for each assignment; none between an invalid header and the next one."""
    section = ""
    for line in _logical_lines(text):
        if line.startswith("["):
            section = line[1:-1] if line.endswith("]") else ""
            continue
        key, equals, value = line.partition("=")
        key = key.rstrip(_WHITESPACE)
        if section and key and equals:
            yield (section, key), value.strip(_WHITESPACE)


def _logical_lines(text: str) -> Iterator[str]:
    """Yield the lines without comments, with continuations joined by a blank as systemd does."""
    continued = ""
    for raw in text.removeprefix("\ufeff").split("\n"):
        line = raw.removesuffix("\r")
        if line.lstrip(_WHITESPACE).startswith(("#", ";")):
            continue
        line = continued + line
        if (len(line) - len(line.rstrip("\\"))) % 2:
            continued = f"{line[:-1]} "
            continue
        continued = ""
        yield line.strip(_WHITESPACE)
    if continued:
        yield continued.strip(_WHITESPACE)


def _commands(unit: UnitFile, keys: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield (program, arguments) of the commands; one line may have several, separated by ";"."""
    for key in keys:
        for line in unit.values("Service", key):
            command: list[str] = []
            for word in [*_WORD.findall(line), ";"]:
                if word != ";":
                    command.append(_unquote(word))
                elif command:
                    program = command[0].lstrip(_PREFIXES)
                    renamed = "@" in command[0][: len(command[0]) - len(program)]
                    yield program, command[2 if renamed else 1 :]
                    command = []


def _unquote(word: str) -> str:
    """Return a word without quotes and escapes; never fails."""

    def escaped(match: re.Match[str]) -> str:
        code, char = match.groups()
        return chr(int(code, 16)) if code else _ESCAPES.get(char, char)

    return "".join(_ESCAPE.sub(escaped, "".join(piece)) for piece in _PIECE.findall(word))
