"""systemd's unit files (systemd.syntax(7)): names, settings, what differs between two, the files they name.

No library in Debian reads them: configparser and GKeyFile know neither repeated keys nor resets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath

from apt_ostree.model.filestate import FileState

#: Where unit files are looked for; the first directory wins (systemd.unit(5)).
DIRECTORIES = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system")

#: The keys of [Service] that name commands which `executables` looks at.
COMMANDS = ("ExecStart", "ExecStartPre", "ExecStartPost", "ExecReload")

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
    """The settings of a unit: (section, key) -> its values in order, after resets."""

    settings: Mapping[tuple[str, str], tuple[str, ...]]

    def get(self, section: str, key: str) -> str:
        """Return the last value, which is the one that counts for a single setting, or ""."""
        return self.settings.get((section, key), ("",))[-1]

    def values(self, section: str, key: str) -> tuple[str, ...]:
        """Return all values of a list."""
        return self.settings.get((section, key), ())


def parse(texts: Iterable[str]) -> UnitFile:
    """Read a unit file and its drop-ins, in this order; what systemd would warn about is left out."""
    settings: dict[tuple[str, str], tuple[str, ...]] = {}
    for text in texts:
        for setting, value in _assignments(text):
            if value:
                settings[setting] = (*settings.get(setting, ()), value)
            else:
                settings.pop(setting, None)
    return UnitFile(settings)


def difference(old: UnitFile, new: UnitFile) -> frozenset[tuple[str, str]]:
    """Return each (section, key) whose values differ; [Install] says nothing about a running unit."""
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
    """Return a path with the links of the merged /usr followed: systemd and packages may name either."""
    return f"/usr{path}" if path.startswith(_LINKED) else path


def drop_in_directories(name: str) -> frozenset[str]:
    """Return the names of the directories whose drop-ins apply to a unit (systemd.unit(5))."""
    stem, _, kind = name.rpartition(".")
    words = stem.split("-")
    prefixes = {f"{'-'.join(words[:count])}-.{kind}.d" for count in range(1, len(words))}
    return frozenset({f"{name}.d", f"{template(name)}.d", f"{kind}.d"} | prefixes)


def new_drop_ins(old: Iterable[str], new: Mapping[str, FileState]) -> list[str]:
    """Return the drop-ins that will be in force: /etc hides /run, /run hides /usr; ordered by name.

    old: those in force now; new: path -> its new state, of each that changes.
    """
    going = {path for path, state in new.items() if state.type == "absent"}
    coming = [p for p, s in new.items() if p.endswith(".conf") and s.type != "absent"]
    by_name: dict[str, str] = {}
    paths = [path for path in (*old, *coming) if path not in going]
    for path in sorted(paths, key=_precedence, reverse=True):
        by_name[PurePath(path).name] = path
    return [by_name[name] for name in sorted(by_name)]


def _precedence(path: str) -> int:
    return next((i for i, d in enumerate(DIRECTORIES) if path.startswith(d)), len(DIRECTORIES))


def executables(unit: UnitFile, keys: Iterable[str] = COMMANDS) -> tuple[str, ...]:
    """Return the absolute paths that the commands of a service name: programs, and scripts given to them.

    Arguments below /etc are left to `configuration`. Specifiers (%i) are not expanded.
    """
    found = []
    for program, arguments in _commands(unit, keys):
        found += [program] if program.startswith("/") else []
        found += [word for word in arguments if word.startswith("/") and not word.startswith("/etc/")]
    return tuple(dict.fromkeys(found))


def environment_files(unit: UnitFile) -> tuple[str, ...]:
    """Return the absolute paths of EnvironmentFile=, which only a restart reads again."""
    paths = (value.removeprefix("-").strip() for value in unit.values("Service", "EnvironmentFile"))
    return tuple(dict.fromkeys(path for path in paths if path.startswith("/")))


def configuration(unit: UnitFile) -> tuple[str, ...]:
    """Return the configuration that a service names: environment files, and arguments below /etc."""
    found = list(environment_files(unit))
    for _, arguments in _commands(unit, ("ExecStart",)):
        found += [path for word in arguments for path in _ETC.findall(word)]
    return tuple(dict.fromkeys(found))


def _assignments(text: str) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield ((section, key), value) for each assignment; after a malformed header, nothing until the next."""
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
    begun = ""
    for raw in text.removeprefix("\ufeff").split("\n"):
        line = raw.removesuffix("\r")
        if line.lstrip(_WHITESPACE).startswith(("#", ";")):
            continue
        line = begun + line
        if (len(line) - len(line.rstrip("\\"))) % 2:
            begun = f"{line[:-1]} "
            continue
        begun = ""
        yield line.strip(_WHITESPACE)
    if begun:
        yield begun.strip(_WHITESPACE)


def _commands(unit: UnitFile, keys: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield (program, arguments) of the commands; one line may hold several, with ";" between them."""
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
    """Drop quotes and resolve escapes; nothing is wrong enough to fail."""

    def escaped(match: re.Match[str]) -> str:
        code, char = match.groups()
        return chr(int(code, 16)) if code else _ESCAPES.get(char, char)

    return "".join(_ESCAPE.sub(escaped, "".join(piece)) for piece in _PIECE.findall(word))
