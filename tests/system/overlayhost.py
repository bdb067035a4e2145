"""What tests of overlays share: usroverlay in a booted machine, and a plain model of what overlays show."""

from __future__ import annotations

import json
import random
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.system.livehost import Host

#: Where files lie in the machine before an overlay takes them.
_SOURCES = "/run/overlay-sources"


class Overlays:
    """The overlays of a machine."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def __call__(self, *words: str, code: int = 0) -> dict[str, Any]:
        """Run usroverlay, which has to end with this exit code; return its result, or its error."""
        return self.host.json("usroverlay", *words, code=code)

    def read(self, *words: str) -> Any:
        """Return what --list, --diff or --history tells."""
        return self.host.json("usroverlay", *words)

    def list(self) -> dict[str, dict[str, Any]]:
        """Return the overlays by their names, the topmost first."""
        return {row["name"]: row for row in self.read("--list")}

    def origin(self, path: str) -> tuple[str, str, list[str]]:
        """Return which overlay a path comes from, what that does to it, and what it hides."""
        row = next(row for row in self.read("--diff") if row["path"] == path)
        return row["overlay"], row["kind"], row["hides"]

    def put(self, name: str, files: Mapping[str, str], *words: str, code: int = 0) -> dict[str, Any]:
        """Add files with these texts to an overlay, in one step."""
        script = [f"mkdir -p {_SOURCES}"]
        arguments = []
        for number, (path, text) in enumerate(files.items()):
            script.append(f"printf %s {shlex.quote(text)} >{_SOURCES}/{number}")
            arguments += [f"--add={path}", f"--from={_SOURCES}/{number}"]
        self.host.sh(";".join(script))
        return self(f"--name={name}", *arguments, *words, code=code)

    def new(self, name: str, files: Mapping[str, str], *words: str) -> dict[str, Any]:
        """Make an overlay that has these files, in one step."""
        return self.put(name, files, "--create", *words)

    def clear(self) -> None:
        """Remove all overlays, heirs first."""
        for name, _row in sorted(self.list().items(), key=lambda item: not item[1]["inherits"]):
            self(f"--name={name}", "--remove")


def texts(host: Host, paths: Iterable[str]) -> dict[str, str | None]:
    """Return what files hold; None for those that are not there."""
    found: dict[str, str | None] = json.loads(host.run_program("texts.py", *paths).stdout)
    return found


def configure(host: Host, line: str) -> None:
    """Have a line in the section of overlays in apt-ostree.conf, and no other."""
    place = "/etc/apt-ostree/apt-ostree.conf.d"
    host.sh(f"mkdir -p {place}; echo '[Overlays]\n{line}' >{place}/test.conf")


@dataclass
class Modelled:
    """An overlay of the model: path -> its text, or None where it removes the path."""

    priority: int
    enabled: bool = True
    files: dict[str, str | None] = field(default_factory=dict)


class Model:
    """What overlays show, as plain dictionaries, and random steps that change them."""

    def __init__(self, base: Mapping[str, str | None], shipped: frozenset[str], dice: random.Random) -> None:
        self.base = dict(base)  # what the paths hold without overlays
        self._shipped = shipped  # those that the base tree has, so that an overlay can remove them
        self._dice = dice
        self.overlays: dict[str, Modelled] = {}

    def shows(self) -> dict[str, str | None]:
        """Return what every path holds: copies, the topmost last."""
        found = dict(self.base)
        for _name, overlay in sorted(self.overlays.items(), key=lambda o: (-o[1].priority, o[0]))[::-1]:
            if overlay.enabled:
                found |= overlay.files
        return found

    def chance(self, part: float) -> bool:
        """Decide at random."""
        return self._dice.random() < part

    def step(self, overlays: Overlays, names: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
        """Do something at random, to the machine and the model; return what, and the command's result."""
        dice = self._dice
        name = dice.choice(names)
        known = self.overlays.get(name)
        if known is None:
            priority = dice.choice((20, 50, 50, 80))
            self.overlays[name] = known = Modelled(priority)
            path, text = self._text()
            known.files[path] = text
            what = f"create {name} {priority} {path}={text!r}"
            return what, overlays.new(name, {path: text}, f"--priority={priority}")
        path, text = self._text()
        hideable = sorted(self._shipped)
        own = sorted(known.files)
        actions = ["add", "add", "remove-file", "switch", "switch", "set-priority", "remove"]
        match action := dice.choice([*actions, *(["drop"] if own else [])]):
            case "add":
                known.files[path] = text
                return f"{name}: add {path}={text!r}", overlays.put(name, {path: text})
            case "remove-file" | "drop":
                path = dice.choice(hideable if action == "remove-file" else own)
                known.files[path] = None
                if action == "drop":
                    del known.files[path]
                return f"{name}: {action} {path}", overlays(f"--name={name}", f"--{action}={path}")
            case "switch":
                known.enabled = not known.enabled
                word = "--enable" if known.enabled else "--disable"
                return f"{name}: {word}", overlays(f"{word}={name}")
            case "set-priority":
                known.priority = dice.choice((10, 30, 50, 70))
                words = f"--set-priority={known.priority}"
                return f"{name}: {words}", overlays(f"--name={name}", words)
            case _:
                del self.overlays[name]
                return f"{name}: remove", overlays(f"--name={name}", "--remove")

    def _text(self) -> tuple[str, str]:
        """Draw a path and what it shall hold: now and then what it holds anyway."""
        path = self._dice.choice(sorted(self.base))
        return path, self._dice.choice(("one\n", "two\n", self.base[path] or "three\n"))
